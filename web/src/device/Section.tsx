import { Paper, Title } from "@mantine/core";
import { type ReactNode, useId } from "react";

/** One part of the device's page, named for navigation by headings or landmarks. */
export function Section({ title, children }: { title: string; children: ReactNode }) {
  const id = useId();
  return (
    <Paper component="section" aria-labelledby={id} withBorder p="md">
      <Title order={2} size="h5" id={id} mb="sm">{title}</Title>
      {children}
    </Paper>
  );
}
