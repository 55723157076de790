import { Button, Group, Modal, Stack, Textarea } from "@mantine/core";
import { useMutation } from "@tanstack/react-query";
import { type FormEvent, type ReactNode, useState } from "react";
import { ErrorAlert } from "./ErrorAlert.tsx";

export interface ConfirmWithReasonProps {
  title: string;
  /** What will happen, and to how many. */
  children: ReactNode;
  /** The button's words: what it does. */
  action: string;
  dangerous?: boolean;
  /** The label of the field; without it, nothing is asked. */
  reasonLabel?: string;
  run: (reason: string) => Promise<void>;
  close: () => void;
}

/** Asks before something is done: says what, takes the reason, does it, and stays open with the refusal if refused. */
export default function ConfirmWithReasonModal(
  { title, children, action, dangerous, reasonLabel, run, close }: ConfirmWithReasonProps,
) {
  const [reason, setReason] = useState("");
  const doing = useMutation({ mutationFn: run, onSuccess: close });
  const missing = reasonLabel !== undefined && reason.trim() === "";

  function submit(event: FormEvent) {
    event.preventDefault();
    if (!missing) doing.mutate(reason.trim());
  }

  return (
    <Modal
      opened
      onClose={close}
      title={<b>{title}</b>}
      centered
      closeButtonProps={{ "aria-label": "Close" }}
    >
      <form onSubmit={submit}>
        <Stack>
          {children}
          {reasonLabel !== undefined && (
            <Textarea
              label={reasonLabel}
              value={reason}
              onChange={(event) => setReason(event.currentTarget.value)}
              autosize
              minRows={2}
              maxLength={1000}
              required
              data-autofocus
            />
          )}
          {doing.error && <ErrorAlert error={doing.error} title="That was refused" />}
          <Group justify="flex-end">
            <Button variant="default" onClick={close}>Cancel</Button>
            <Button
              type="submit"
              color={dangerous ? "red" : "blue"}
              loading={doing.isPending}
              disabled={missing}
            >
              {action}
            </Button>
          </Group>
        </Stack>
      </form>
    </Modal>
  );
}
