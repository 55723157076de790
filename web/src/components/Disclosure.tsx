import { UnstyledButton } from "@mantine/core";
import { type ReactNode, useId } from "react";
import classes from "./Disclosure.module.css";

export interface DisclosureProps {
  /** What the button says to who cannot see it. */
  label: string;
  button: ReactNode;
  children: ReactNode;
}

/** A button that opens a small panel: the browser's own popover, which closes by Escape or a press elsewhere. */
export function Disclosure({ label, button, children }: DisclosureProps) {
  const id = useId();
  return (
    <>
      <UnstyledButton popoverTarget={id} aria-label={label} className={classes.button}>
        {button}
      </UnstyledButton>
      <div id={id} popover="auto" className={classes.panel}>{children}</div>
    </>
  );
}
