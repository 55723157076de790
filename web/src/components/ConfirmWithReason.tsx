import { lazy, Suspense } from "react";
import type { ConfirmWithReasonProps } from "./ConfirmWithReasonModal.tsx";

// Most visits only read: the dialog is loaded when it first opens.
const Modal = lazy(() => import("./ConfirmWithReasonModal.tsx"));

/** Asks for confirmation, and a reason if the action needs one; see ConfirmWithReasonModal. */
export function ConfirmWithReason(props: ConfirmWithReasonProps) {
  return (
    <Suspense>
      <Modal {...props} />
    </Suspense>
  );
}
