import { Button, Code, Group, Text } from "@mantine/core";
import { CenteredCard } from "../components/CenteredCard.tsx";
import { useClient } from "./session.tsx";

/** Signed in, but without a row in `operators`: says so, and what an admin has to do. */
export function NotAnOperator({ email, again }: { email: string; again: () => void }) {
  const client = useClient();
  return (
    <CenteredCard title="Not an operator yet">
      <Text>
        You are signed in as{" "}
        <b>{email}</b>, but that is not one of this fleet's operators, so there is nothing to see here.
      </Text>
      <Text>
        Ask an admin to add you to the table <Code>operators</Code> with the rank viewer, operator or admin.
      </Text>
      <Group>
        <Button onClick={again}>Try again</Button>
        <Button variant="default" onClick={() => void client.auth.signOut()}>Sign out</Button>
      </Group>
    </CenteredCard>
  );
}
