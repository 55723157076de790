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
import { isUnacknowledged } from "../alerts/alerts.ts";
import { RANK_WORDS } from "../auth/rank.ts";
import { useClient, useOperator } from "../auth/session.tsx";
import { Disclosure } from "../components/Disclosure.tsx";
import { Icon } from "../components/Icon.tsx";
import { Logo } from "../components/Logo.tsx";
import { useOpenAlerts } from "../fleet/useFleet.ts";
import { ConnectionIndicator } from "../realtime/ConnectionIndicator.tsx";
import { soft, visuallyHidden } from "../styles/classNames.ts";
import classes from "./Header.module.css";

/** The pages, in the order of the navigation. */
const PAGES = [{ href: "/", name: "Devices" }, { href: "/alerts", name: "Alerts" }] as const;

export function Header() {
  const [here] = useLocation();
  const unacknowledged = useOpenAlerts().data?.filter(isUnacknowledged).length ?? 0;
  return (
    <header className={classes.header}>
      <button
        type="button"
        className={`${visuallyHidden} ${classes.skip}`}
        onClick={() => document.getElementById("main")?.focus()}
      >
        Skip to main content
      </button>
      <Group gap="lg" wrap="nowrap">
        <UnstyledButton component={Link} href="/" aria-label="Metrica Fleet: all devices">
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
              {href === "/alerts" && unacknowledged > 0 && (
                <span className={classes.badge} data-testid="alerts-unacknowledged">
                  {unacknowledged.toLocaleString("en")}
                  <span className={visuallyHidden}>unacknowledged</span>
                </span>
              )}
            </Anchor>
          ))}
        </Group>
      </Group>
      <Group gap="md" wrap="nowrap">
        <ConnectionIndicator />
        <AccountMenu />
      </Group>
    </header>
  );
}

function AccountMenu() {
  const client = useClient();
  const operator = useOperator();
  const { setColorScheme } = useMantineColorScheme();
  const other = useComputedColorScheme("light") === "dark" ? "light" : "dark";
  return (
    <Disclosure label={`Your account: ${operator.email}`} button={<Icon name="person" size={22} />}>
      <Stack gap="sm">
        <div>
          <Text size="sm" fw={600} style={{ overflowWrap: "anywhere" }}>{operator.email}</Text>
          <Text size="sm" className={soft}>{RANK_WORDS[operator.rank]}</Text>
        </div>
        <Button
          variant="default"
          leftSection={<Icon name={other === "dark" ? "moon" : "sun"} />}
          onClick={() => setColorScheme(other)}
        >
          {other === "dark" ? "Dark" : "Light"} mode
        </Button>
        <Button variant="default" onClick={() => void client.auth.signOut()}>Sign out</Button>
      </Stack>
    </Disclosure>
  );
}
