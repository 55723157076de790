/** Everything behind the sign-in: the frame, and one route per page. */
import { Button, Group, Stack, Text, Title } from "@mantine/core";
import { lazy, Suspense } from "react";
import { Link, Route, Switch } from "wouter";
import { Loading } from "../components/Loading.tsx";
import { DevicesPage } from "../devices/DevicesPage.tsx";
import { HaltBanner } from "../halts/HaltBanner.tsx";
import { RealtimeProvider } from "../realtime/RealtimeProvider.tsx";
import classes from "./Header.module.css";
import { Header } from "./Header.tsx";

const AlertsPage = lazy(() => import("../alerts/AlertsPage.tsx"));
const DevicePage = lazy(() => import("../device/DevicePage.tsx"));

export default function FleetPage({ pollSeconds }: { pollSeconds: number }) {
  return (
    <RealtimeProvider pollSeconds={pollSeconds}>
      <Header />
      <main id="main" tabIndex={-1} className={classes.main}>
        <Stack>
          <HaltBanner />
          <Suspense fallback={<Loading />}>
            <Switch>
              <Route path="/">
                <DevicesPage />
              </Route>
              <Route path="/alerts">
                <AlertsPage />
              </Route>
              <Route path="/devices/:id">{({ id }) => <DevicePage id={id} key={id} />}</Route>
              <Route>
                <NotFound />
              </Route>
            </Switch>
          </Suspense>
        </Stack>
      </main>
    </RealtimeProvider>
  );
}

function NotFound() {
  return (
    <Stack align="flex-start">
      <Title order={1} size="h2">Page not found</Title>
      <Text>The link may be out of date.</Text>
      <Group>
        <Button component={Link} href="/">All devices</Button>
      </Group>
    </Stack>
  );
}
