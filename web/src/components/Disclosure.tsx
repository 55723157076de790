import { UnstyledButton } from "@mantine/core";
import { type ReactNode, useId } from "react";
import classes from "./Disclosure.module.css";

export interface DisclosureProps {
  /** The button's name for screen readers. */
  label: string;
  button: ReactNode;
  children: ReactNode;
}

/** A button that opens a small panel: the browser's own popover, which Escape or a click elsewhere closes. */
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
