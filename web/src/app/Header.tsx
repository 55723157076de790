import {
  Anchor,
  Button,
  Group,
  Stack,
  Text,
  UnstyledButton,
  useComputedColorScheme,
  useMantineColorScheme,
} from "@mantine/core";
import { Link, useLocation } from "wouter";
import { RANK_WORDS } from "../auth/rank.ts";
import { useClient, useOperator } from "../auth/session.tsx";
import { isWaiting } from "../alerts/alerts.ts";
import { useOpenAlerts } from "../fleet/useFleet.ts";
import { LinkIndicator } from "../realtime/ConnectionIndicator.tsx";
import { Icon } from "../components/Icon.tsx";
import { Disclosure } from "../components/Disclosure.tsx";
import classes from "./Header.module.css";
import { Logo } from "../components/Logo.tsx";

/** The pages, in the order of the navigation. */
const PAGES = [{ href: "/", name: "Devices" }, { href: "/alerts", name: "Alerts" }] as const;

export function Header() {
  const [here] = useLocation();
  const waiting = useOpenAlerts().data?.filter(isWaiting).length ?? 0;
  return (
    <header className={classes.header}>
      <button
        type="button"
        className="visually-hidden skip"
        onClick={() => document.getElementById("main")?.focus()}
      >
        Skip to the content
      </button>
      <Group gap="lg" wrap="nowrap">
        <UnstyledButton component={Link} href="/" aria-label="Metrica Fleet, all devices">
          <Group gap={10} wrap="nowrap">
            <Logo />
            <Text fw={650} visibleFrom="xs">Metrica Fleet</Text>
          </Group>
        </UnstyledButton>
        <Group component="nav" aria-label="Pages" gap="md">
          {PAGES.map(({ href, name }) => (
            <Anchor
              key={href}
              component={Link}
              href={href}
              c="inherit"
              fz="sm"
              fw={500}
              aria-current={here === href ? "page" : undefined}
              className={classes.page}
            >
              {name}
              {href === "/alerts" && waiting > 0 && (
                <span className={classes.waiting} data-testid="alerts-waiting">
                  {waiting.toLocaleString("en")}
                  <span className="visually-hidden">that nobody looks at yet</span>
                </span>
              )}
            </Anchor>
          ))}
        </Group>
      </Group>
      <Group gap="md" wrap="nowrap">
        <LinkIndicator />
        <Person />
      </Group>
    </header>
  );
}

function Person() {
  const client = useClient();
  const operator = useOperator();
  const { setColorScheme } = useMantineColorScheme();
  const other = useComputedColorScheme("light") === "dark" ? "light" : "dark";
  return (
    <Disclosure label={`Your account: ${operator.email}`} button={<Icon name="person" size={22} />}>
      <Stack gap="sm">
        <div>
          <Text size="sm" fw={600} style={{ overflowWrap: "anywhere" }}>{operator.email}</Text>
          <Text size="sm" className="soft">{RANK_WORDS[operator.rank]}</Text>
        </div>
        <Button
          variant="default"
          leftSection={<Icon name={other === "dark" ? "moon" : "sun"} />}
          onClick={() => setColorScheme(other)}
        >
          {other === "dark" ? "Dark" : "Light"} colors
        </Button>
        <Button variant="default" onClick={() => void client.auth.signOut()}>Sign out</Button>
      </Stack>
    </Disclosure>
  );
}
