import { lazy, Suspense } from "react";
import type { AskReasonProps } from "./ConfirmWithReasonModal.tsx";

// Most visits only look: the dialog is loaded when the first question is asked.
const Modal = lazy(() => import("./ConfirmWithReasonModal.tsx"));

/** Asks before something is done; see AskReasonModal. */
export function AskReason(props: AskReasonProps) {
  return (
    <Suspense>
      <Modal {...props} />
    </Suspense>
  );
}
