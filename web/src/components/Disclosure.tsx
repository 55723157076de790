import { UnstyledButton } from "@mantine/core";
import { type ReactNode, useId } from "react";
import classes from "./Disclosure.module.css";

export interface DisclosureProps {
  /** The button's name for screen readers. */
  label: string;
  button: ReactNode;
  /** For a menu of links: a click on one closes it. */
  closeOnClick?: boolean;
  children: ReactNode;
}

/** A button that opens a small panel: the browser's own popover, which Escape or a click elsewhere closes. */
export function Disclosure({ label, button, closeOnClick, children }: DisclosureProps) {
  const id = useId();
  return (
    <>
      <UnstyledButton popoverTarget={id} aria-label={label} className={classes.button}>
        {button}
      </UnstyledButton>
      <div
        id={id}
        popover="auto"
        className={closeOnClick ? `${classes.panel} ${classes.menu}` : classes.panel}
        onClick={closeOnClick ? (event) => event.currentTarget.hidePopover() : undefined}
      >
        {children}
      </div>
    </>
  );
}
