import {
  Button,
  Group,
  Stack,
  Text,
  UnstyledButton,
  useComputedColorScheme,
  useMantineColorScheme,
} from "@mantine/core";
import { Link } from "wouter";
import { RANK_WORDS } from "../auth/rank.ts";
import { useClient, useOperator } from "../auth/session.tsx";
import { Disclosure } from "../components/Disclosure.tsx";
import { Icon } from "../components/Icon.tsx";
import { Logo } from "../components/Logo.tsx";
import { ConnectionIndicator } from "../realtime/ConnectionIndicator.tsx";
import { soft, visuallyHidden } from "../styles/classNames.ts";
import classes from "./Header.module.css";
import { MenuNavigation } from "./Navigation.tsx";

export function Header() {
  return (
    <header className={classes.header}>
      <button
        type="button"
        className={`${visuallyHidden} ${classes.skip}`}
        onClick={() => document.getElementById("main")?.focus()}
      >
        Skip to main content
      </button>
      <Group gap="xs" wrap="nowrap">
        <MenuNavigation />
        <UnstyledButton component={Link} href="/" aria-label="Metrica Fleet: overview">
          <Group gap={10} wrap="nowrap">
            <Logo />
            <Text fw={650} className={classes.name}>Metrica Fleet</Text>
          </Group>
        </UnstyledButton>
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
