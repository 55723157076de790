/** The lists of the whole fleet as hooks: read whole by polling, patched by broadcasts in between. */
import { useQuery } from "@tanstack/react-query";
import { useMemo } from "react";
import { useClient } from "../auth/session.tsx";
import {
  alertsQuery,
  devicesQuery,
  haltsQuery,
  releasesQuery,
  settingsQuery,
  statusesQuery,
  unacknowledgedQuery,
} from "../data/queries.ts";
import { useConnection } from "../realtime/connectionContext.ts";
import { pollEvery } from "../realtime/connectionStatus.ts";
import { type FleetData, type SharedRows, sharedRows } from "./fleetData.ts";

/** How often a query of this page is read again, milliseconds. */
export function usePollMs(): number {
  const { channel, pollSeconds } = useConnection();
  return pollEvery(channel, pollSeconds) * 1000;
}

/** The rows of all lists; `fleet` is null until each was read once. */
export function useFleet(): { fleet: FleetData | null; error: Error | null } {
  const client = useClient();
  const refetchInterval = usePollMs();
  const devices = useQuery({ ...devicesQuery(client), refetchInterval });
  const statuses = useQuery({ ...statusesQuery(client), refetchInterval });
  const settings = useQuery({ ...settingsQuery(client), refetchInterval });
  const releases = useReleases();
  const halts = useOpenHalts();
  const fleet = useMemo<FleetData | null>(() => {
    if (!devices.data || !statuses.data || !releases.data || !halts.data || !settings.data) return null;
    return {
      devices: devices.data,
      statuses: statuses.data,
      releases: releases.data,
      halts: halts.data,
      settings: settings.data,
    };
  }, [devices.data, statuses.data, releases.data, halts.data, settings.data]);
  return { fleet, error: devices.error ?? statuses.error ?? releases.error ?? halts.error ?? settings.error };
}

/** What the rows of devices name: releases, open halts, settings; null until each was read once. */
export function useSharedRows(): { shared: SharedRows | null; error: Error | null } {
  const client = useClient();
  const settings = useQuery({ ...settingsQuery(client), refetchInterval: usePollMs() });
  const releases = useReleases();
  const halts = useOpenHalts();
  const shared = useMemo(
    () =>
      releases.data && halts.data && settings.data
        ? sharedRows({ releases: releases.data, halts: halts.data, settings: settings.data })
        : null,
    [releases.data, halts.data, settings.data],
  );
  return { shared, error: releases.error ?? halts.error ?? settings.error };
}

export function useReleases() {
  const client = useClient();
  return useQuery({ ...releasesQuery(client), refetchInterval: usePollMs() });
}

export function useOpenHalts() {
  const client = useClient();
  return useQuery({ ...haltsQuery(client), refetchInterval: usePollMs() });
}

/** How many open alerts nobody has acknowledged; 0 while that is not known. */
export function useUnacknowledgedAlerts(): number {
  const client = useClient();
  return useQuery({ ...unacknowledgedQuery(client), refetchInterval: usePollMs() }).data ?? 0;
}

export function useOpenAlerts() {
  const client = useClient();
  return useQuery({ ...alertsQuery(client), refetchInterval: usePollMs() });
}
