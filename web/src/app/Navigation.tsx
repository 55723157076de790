/** The pages, in the order of the list of routes: at the side of a wide screen, behind a button on a narrow one. */
import { useMediaQuery } from "@mantine/hooks";
import { Link, useLocation } from "wouter";
import { rankIs } from "../auth/rank.ts";
import { useOperator } from "../auth/session.tsx";
import { Disclosure } from "../components/Disclosure.tsx";
import { Icon } from "../components/Icon.tsx";
import { useUnacknowledgedAlerts } from "../fleet/useFleet.ts";
import { visuallyHidden } from "../styles/classNames.ts";
import classes from "./Navigation.module.css";
import { isInNavigation, ROUTES } from "./routes.tsx";

/** One of the two is on the page, never both. */
function useIsWide(): boolean {
  return useMediaQuery("(min-width: 62em)", undefined, { getInitialValueInEffect: false }) ?? true;
}

export function SideNavigation() {
  return useIsWide() && (
    <nav aria-label="Pages" className={classes.side}>
      <PageLinks />
    </nav>
  );
}

export function MenuNavigation() {
  return !useIsWide() && (
    <Disclosure label="Pages" button={<Icon name="menu" size={22} />} closeOnClick>
      <nav aria-label="Pages">
        <PageLinks />
      </nav>
    </Disclosure>
  );
}

function PageLinks() {
  const [here] = useLocation();
  const operator = useOperator();
  const unacknowledged = useUnacknowledgedAlerts();
  return (
    <ul className={classes.pages}>
      {ROUTES.filter((route) => isInNavigation(route) && rankIs(operator.rank, route.minimum)).map((
        { path, title },
      ) => (
        <li key={path}>
          <Link
            href={path}
            className={classes.page}
            aria-current={isWithin(here, path) ? "page" : undefined}
            data-page={path}
          >
            {title}
            {path === "/alerts" && unacknowledged > 0 && (
              <span className={classes.badge} data-testid="alerts-unacknowledged">
                {unacknowledged.toLocaleString("en")}
                <span className={visuallyHidden}>unacknowledged</span>
              </span>
            )}
          </Link>
        </li>
      ))}
    </ul>
  );
}

/** A page of one device is within the list of devices. */
function isWithin(here: string, path: string): boolean {
  return here === path || (path !== "/" && here.startsWith(`${path}/`));
}
