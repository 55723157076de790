/** Everything behind the sign-in: the frame, and one route per page. */
import { Button, Stack, Text } from "@mantine/core";
import { Suspense, useMemo } from "react";
import { Link, Route, Switch } from "wouter";
import { rankIs } from "../auth/rank.ts";
import { useOperator } from "../auth/session.tsx";
import { Loading } from "../components/Loading.tsx";
import { PageFrame } from "../components/PageFrame.tsx";
import { PagesContext } from "../components/pagesContext.ts";
import { HaltBanner } from "../halts/HaltBanner.tsx";
import { RealtimeProvider } from "../realtime/RealtimeProvider.tsx";
import { Header } from "./Header.tsx";
import classes from "./Header.module.css";
import { SideNavigation } from "./Navigation.tsx";
import { type PageRoute, ROUTES } from "./routes.tsx";

export default function FleetPage({ pollSeconds }: { pollSeconds: number }) {
  const { rank } = useOperator();
  const pages = useMemo(
    () => new Set(ROUTES.filter(({ minimum }) => rankIs(rank, minimum)).map(({ path }) => path)),
    [rank],
  );
  return (
    <PagesContext value={pages}>
      <RealtimeProvider pollSeconds={pollSeconds}>
        <Header />
        <div className={classes.body}>
          <SideNavigation />
          <main id="main" tabIndex={-1} className={classes.main}>
            <Stack>
              <HaltBanner />
              <Suspense fallback={<Loading />}>
                <Switch>
                  {ROUTES.map((route) => (
                    <Route key={route.path} path={route.path}>
                      {(given: { id?: string }) => (
                        <ForItsRank key={given.id} route={route} id={given.id ?? ""} />
                      )}
                    </Route>
                  ))}
                  <Route>
                    <NotFound />
                  </Route>
                </Switch>
              </Suspense>
            </Stack>
          </main>
        </div>
      </RealtimeProvider>
    </PagesContext>
  );
}

/** The page, or why not: an address can be typed by anyone. */
function ForItsRank({ route: { page: Page, title, minimum }, id }: { route: PageRoute; id: string }) {
  const { rank } = useOperator();
  if (rankIs(rank, minimum)) return <Page id={id} />;
  return (
    <PageFrame title={title}>
      <Text>This page requires the rank {minimum}; yours is {rank}. Ask an admin to raise your rank.</Text>
    </PageFrame>
  );
}

function NotFound() {
  return (
    <PageFrame title="Page not found">
      <Text>The link may be out of date.</Text>
      <div>
        <Button component={Link} href="/">Overview</Button>
      </div>
    </PageFrame>
  );
}
