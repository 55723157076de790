import { Button, Code, Group, Text } from "@mantine/core";
import { CenteredCard } from "../components/CenteredCard.tsx";
import { useClient } from "./session.tsx";

/** For a user who is signed in but has no row in `operators`. */
export function NotAnOperator({ email, retry }: { email: string; retry: () => void }) {
  const client = useClient();
  return (
    <CenteredCard title="Not an operator yet">
      <Text>
        You are signed in as <b>{email}</b>, but this account is not an operator of this fleet.
      </Text>
      <Text>
        Ask an admin to run <Code>fleetctl operator add {email}</Code>.
      </Text>
      <Group>
        <Button onClick={retry}>Try again</Button>
        <Button variant="default" onClick={() => void client.auth.signOut()}>Sign out</Button>
      </Group>
    </CenteredCard>
  );
}
