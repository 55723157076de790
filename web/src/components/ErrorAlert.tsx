import { Alert, Text } from "@mantine/core";
import { toAppError } from "../data/appError.ts";

/** What went wrong, and what to try. */
export function ErrorAlert({ error, title }: { error: unknown; title?: string }) {
  const { kind, message, hint } = toAppError(error);
  return (
    <Alert color="red" variant="outline" role="alert" title={title ?? message} data-kind={kind}>
      {title && <Text size="sm">{message}</Text>}
      {hint && <Text size="sm">{hint}</Text>}
    </Alert>
  );
}
