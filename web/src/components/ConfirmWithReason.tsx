import { lazy, Suspense } from "react";
import type { ConfirmWithReasonProps } from "./ConfirmWithReasonModal.tsx";

// Most visits only look: the dialog is loaded when the first question is asked.
const Modal = lazy(() => import("./ConfirmWithReasonModal.tsx"));

/** Asks before something is done; see ConfirmWithReasonModal. */
export function ConfirmWithReason(props: ConfirmWithReasonProps) {
  return (
    <Suspense>
      <Modal {...props} />
    </Suspense>
  );
}
