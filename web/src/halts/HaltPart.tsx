import { Button } from "@mantine/core";
import { lazy, Suspense, useState } from "react";

const HaltPartDialog = lazy(() => import("./HaltPartDialog.tsx"));

/** Opens a halt of a part of the fleet, of a release or of a rollout; the last two can take devices back. */
export function HaltPart() {
  const [open, setOpen] = useState(false);
  return (
    <>
      <Button variant="default" onClick={() => setOpen(true)}>Halt a part…</Button>
      {open && (
        <Suspense>
          <HaltPartDialog close={() => setOpen(false)} />
        </Suspense>
      )}
    </>
  );
}
