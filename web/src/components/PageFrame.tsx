/** What every page has: its title (also the tab's), its actions, and what is shown while it loads or fails. */
import { Anchor, Text, Title } from "@mantine/core";
import { type ReactNode, useEffect } from "react";
import { Link } from "wouter";
import { soft } from "../styles/classNames.ts";
import { ErrorAlert } from "./ErrorAlert.tsx";
import { Icon } from "./Icon.tsx";
import { Loading } from "./Loading.tsx";
import classes from "./PageFrame.module.css";

export interface PageFrameProps {
  title: string;
  /** Next to the title: a state. */
  mark?: ReactNode;
  /** One or two sentences below the title. */
  intro?: ReactNode;
  /** Buttons; leave them out for whoever may not use them. */
  actions?: ReactNode;
  /** The page above this one. */
  back?: { href: string; title: string };
  /** Still nothing to show. */
  loading?: boolean;
  /** The read that failed; with `loading` nothing can be shown, without it what was read last still is. */
  error?: Error | null;
  children?: ReactNode;
}

export function PageFrame({ title, mark, intro, actions, back, loading, error, children }: PageFrameProps) {
  useEffect(() => {
    document.title = `${title} – Metrica Fleet`;
  }, [title]);
  return (
    <div className={classes.page}>
      {back && (
        <Anchor component={Link} href={back.href} className={classes.back} fz="sm">
          <Icon name="back" size={16} /> {back.title}
        </Anchor>
      )}
      <div className={classes.top}>
        <div className={classes.titles}>
          <div className={classes.title}>
            <Title order={1} size="h2">{title}</Title>
            {mark}
          </div>
          {intro && <Text size="sm" className={`${soft} ${classes.intro}`} component="div">{intro}</Text>}
        </div>
        {actions && <div className={classes.actions}>{actions}</div>}
      </div>
      {error && (
        <ErrorAlert
          error={error}
          title={loading ? "Could not load this page" : "Could not refresh. Showing the last data loaded."}
        />
      )}
      {loading ? !error && <Loading /> : children}
    </div>
  );
}

/** For a list without rows: what it will hold, and the next step, with its command or button. */
export function EmptyState({ title, children }: { title: string; children?: ReactNode }) {
  return (
    <div className={classes.empty}>
      <Text fw={600}>{title}</Text>
      {children && <Text size="sm" component="div" className={soft}>{children}</Text>}
    </div>
  );
}
