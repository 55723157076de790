/** The page from the outside in: config, connection, person, fleet. */
import { Button, MantineProvider } from "@mantine/core";
import { QueryClient, QueryClientProvider, useQuery, useQueryClient } from "@tanstack/react-query";
import { lazy, Suspense, useEffect, useMemo } from "react";
import { Router } from "wouter";
import { useHashLocation } from "wouter/use-hash-location";
import { Door } from "../components/CenteredCard.tsx";
import { ClientProvider, OperatorProvider, useAccess } from "../auth/session.tsx";
import { SignIn } from "../auth/SignIn.tsx";
import { Stranger } from "../auth/NotAnOperator.tsx";
import { connect } from "../data/client.ts";
import { problem } from "../data/appError.ts";
import { ProblemAlert } from "../components/ErrorAlert.tsx";
import { Waiting } from "../components/Loading.tsx";
import { type Config, loadConfig } from "./config.ts";
import { theme } from "./theme.ts";

// Who only signs in does not load the fleet.
const Fleet = lazy(() => import("./FleetPage.tsx"));

const cache = new QueryClient({
  defaultOptions: {
    queries: {
      // A refusal stays one; only a network that fails is worth another try at once.
      retry: (failures, error) => failures < 2 && problem(error).kind === "unreachable",
      networkMode: "always",
      staleTime: 5_000,
    },
    mutations: { networkMode: "always" },
  },
});

export function App() {
  return (
    <MantineProvider theme={theme} defaultColorScheme="auto">
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
      <Door title="Metrica Fleet">
        <ProblemAlert error={config.error} />
        <Button onClick={() => void config.refetch()} loading={config.isFetching}>Try again</Button>
      </Door>
    );
  }
  return config.data ? <Connected config={config.data} /> : <Waiting />;
}

function Connected({ config }: { config: Config }) {
  const client = useMemo(() => connect(config), [config]);
  return (
    <ClientProvider client={client}>
      <Admitted pollSeconds={config.pollSeconds} />
    </ClientProvider>
  );
}

function Admitted({ pollSeconds }: { pollSeconds: number }) {
  const access = useAccess();
  const queries = useQueryClient();
  const signedOut = access.state === "signed out";
  useEffect(() => {
    // The next person at this screen must not see what the last one saw.
    if (signedOut) queries.removeQueries({ predicate: (query) => query.queryKey[0] !== "config" });
  }, [signedOut, queries]);
  switch (access.state) {
    case "unknown":
      return <Waiting />;
    case "signed out":
      return <SignIn />;
    case "stranger":
      return <Stranger email={access.email} again={access.again} />;
    case "failed":
      return (
        <Door title="Metrica Fleet">
          <ProblemAlert error={access.error} />
          <Button onClick={access.again}>Try again</Button>
        </Door>
      );
    case "operator":
      return (
        <OperatorProvider value={access.operator}>
          <Suspense fallback={<Waiting />}>
            <Fleet pollSeconds={pollSeconds} />
          </Suspense>
        </OperatorProvider>
      );
  }
}
