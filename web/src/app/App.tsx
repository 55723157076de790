/** The page from the outside in: config, client, sign-in, fleet. */
import { Button, MantineProvider } from "@mantine/core";
import { QueryClient, QueryClientProvider, useQuery, useQueryClient } from "@tanstack/react-query";
import { lazy, Suspense, useEffect, useMemo } from "react";
import { Router } from "wouter";
import { useHashLocation } from "wouter/use-hash-location";
import { NotAnOperator } from "../auth/NotAnOperator.tsx";
import { ClientProvider, OperatorProvider, useAccess } from "../auth/session.tsx";
import { SignIn } from "../auth/SignIn.tsx";
import { CenteredCard } from "../components/CenteredCard.tsx";
import { ErrorAlert } from "../components/ErrorAlert.tsx";
import { Loading } from "../components/Loading.tsx";
import { passes } from "../data/appError.ts";
import { connect } from "../data/client.ts";
import { type Config, loadConfig } from "./config.ts";
import { provider } from "./theme.ts";

// The sign-in page does not load the rest.
const FleetPage = lazy(() => import("./FleetPage.tsx"));

const cache = new QueryClient({
  defaultOptions: {
    queries: {
      // A refusal would be repeated; only a network failure or an outage is worth an immediate retry.
      retry: (failures, error) => failures < 2 && passes(error),
      networkMode: "always",
      staleTime: 5_000,
    },
    mutations: { networkMode: "always" },
  },
});

export function App() {
  return (
    <MantineProvider {...provider}>
      <QueryClientProvider client={cache}>
        <Router hook={useHashLocation}>
          <Configured />
        </Router>
      </QueryClientProvider>
    </MantineProvider>
  );
}

function Configured() {
  const config = useQuery({ queryKey: ["config"], queryFn: () => loadConfig(location), staleTime: Infinity });
  if (config.error) {
    return (
      <CenteredCard title="Metrica Fleet">
        <ErrorAlert error={config.error} />
        <Button onClick={() => void config.refetch()} loading={config.isFetching}>Try again</Button>
      </CenteredCard>
    );
  }
  return config.data ? <Connected config={config.data} /> : <Loading />;
}

function Connected({ config }: { config: Config }) {
  const client = useMemo(() => connect(config), [config]);
  return (
    <ClientProvider client={client} address={config}>
      <RequireOperator pollSeconds={config.pollSeconds} />
    </ClientProvider>
  );
}

function RequireOperator({ pollSeconds }: { pollSeconds: number }) {
  const access = useAccess();
  const queries = useQueryClient();
  const signedOut = access.state === "signed out";
  useEffect(() => {
    // The next person to sign in must not see what the last one saw.
    if (signedOut) queries.removeQueries({ predicate: (query) => query.queryKey[0] !== "config" });
  }, [signedOut, queries]);
  switch (access.state) {
    case "loading":
      return <Loading />;
    case "signed out":
      return <SignIn />;
    case "not an operator":
      return <NotAnOperator email={access.email} retry={access.retry} />;
    case "failed":
      return (
        <CenteredCard title="Metrica Fleet">
          <ErrorAlert error={access.error} />
          <Button onClick={access.retry}>Try again</Button>
        </CenteredCard>
      );
    case "operator":
      return (
        <OperatorProvider value={access.operator}>
          <Suspense fallback={<Loading />}>
            <FleetPage pollSeconds={pollSeconds} />
          </Suspense>
        </OperatorProvider>
      );
  }
}
