import { lazy, Suspense } from "react";
import type { AskReasonProps } from "./AskReasonModal.tsx";

// Most visits only look: the dialog is loaded when the first question is asked.
const Modal = lazy(() => import("./AskReasonModal.tsx"));

/** Asks before something is done; see AskReasonModal. */
export function AskReason(props: AskReasonProps) {
  return (
    <Suspense>
      <Modal {...props} />
    </Suspense>
  );
}
