/** The pages before the fleet: one card in the middle of the screen. */
import { Center, Group, Paper, Stack, Title } from "@mantine/core";
import type { ReactNode } from "react";
import { Logo } from "./Logo.tsx";

export function CenteredCard({ title, children }: { title: string; children: ReactNode }) {
  return (
    <Center component="main" mih="100dvh" p="md">
      <Paper withBorder shadow="sm" radius="md" p="xl" w="100%" maw={420}>
        <Stack>
          <Group gap="sm" wrap="nowrap">
            <Logo size={32} />
            <Title order={1} size="h3">{title}</Title>
          </Group>
          {children}
        </Stack>
      </Paper>
    </Center>
  );
}
