/** How machines join the fleet: those that wait, and the tokens with which they join automatically. */
import { Stack, Text } from "@mantine/core";
import { rankIs } from "../auth/rank.ts";
import { useOperator } from "../auth/session.tsx";
import { PageFrame } from "../components/PageFrame.tsx";
import { useLive } from "../fleet/useLive.ts";
import { soft } from "../styles/classNames.ts";
import { readPending } from "./actions.ts";
import { PendingDevices } from "./PendingDevices.tsx";
import { Tokens } from "./Tokens.tsx";

export default function ProvisioningPage() {
  const operator = useOperator();
  const { data: pending, error } = useLive({ key: ["pending"], tables: ["devices"], read: readPending });
  return (
    <PageFrame title="Provisioning" loading={!pending} error={error}>
      <Stack gap="xl">
        <PendingDevices pending={pending ?? []} />
        {rankIs(operator.rank, "admin")
          ? <Tokens />
          : <Text size="sm" className={soft}>Tokens are made and seen by admins.</Text>}
      </Stack>
    </PageFrame>
  );
}
