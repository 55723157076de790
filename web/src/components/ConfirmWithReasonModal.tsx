import { Button, Group, Modal, Stack, Textarea } from "@mantine/core";
import { useMutation } from "@tanstack/react-query";
import { type FormEvent, type ReactNode, useState } from "react";
import { ErrorAlert } from "./ErrorAlert.tsx";

export interface ConfirmWithReasonProps {
  title: string;
  /** What will happen, and to how many devices. */
  children: ReactNode;
  /** The button's label: what it does. */
  action: string;
  dangerous?: boolean;
  /** The label of the reason field; without it there is none. */
  reasonLabel?: string;
  run: (reason: string) => Promise<void>;
  close: () => void;
}

/** Says what will happen, takes the reason, and runs it. Stays open with the error if that fails. */
export default function ConfirmWithReasonModal(
  { title, children, action, dangerous, reasonLabel, run, close }: ConfirmWithReasonProps,
) {
  const [reason, setReason] = useState("");
  const mutation = useMutation({ mutationFn: run, onSuccess: close });
  const missing = reasonLabel !== undefined && reason.trim() === "";

  function submit(event: FormEvent) {
    event.preventDefault();
    if (!missing) mutation.mutate(reason.trim());
  }

  return (
    <Modal
      opened
      onClose={close}
      title={<b>{title}</b>}
      centered
      lockScroll={false}
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
          {mutation.error && <ErrorAlert error={mutation.error} title="That did not work" />}
          <Group justify="flex-end">
            <Button variant="default" onClick={close}>Cancel</Button>
            <Button
              type="submit"
              color={dangerous ? "red" : "blue"}
              loading={mutation.isPending}
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
