/** The list: counts and the emergency stop, filters, then every device, the ones that need attention first. */
import { Text } from "@mantine/core";
import { useMemo } from "react";
import { useLocation, useSearch } from "wouter";
import { mayOperate } from "../auth/rank.ts";
import { useOperator } from "../auth/session.tsx";
import { PageFrame } from "../components/PageFrame.tsx";
import { useFleet } from "../fleet/useFleet.ts";
import { counted } from "../format/size.ts";
import { EmergencyStop } from "../halts/EmergencyStop.tsx";
import { soft } from "../styles/classNames.ts";
import { DeviceTable } from "./DeviceTable.tsx";
import { countByState } from "./deviceView.ts";
import { FilterBar } from "./FilterBar.tsx";
import { type Filters, narrow, readFilters, toggleState, writeFilters } from "./filters.ts";
import { StateCounts } from "./StateCounts.tsx";
import { useDeviceViews } from "./useDeviceViews.ts";

export default function DevicesPage() {
  const { fleet, error } = useFleet();
  const views = useDeviceViews(fleet);
  const operator = useOperator();
  const [, go] = useLocation();
  const query = useSearch();
  const filters = useMemo(() => readFilters(new URLSearchParams(query)), [query]);
  // With a question mark even if nothing follows: without it, the last query would stay in the address.
  const setFilters = (next: Filters) => go(`/devices?${writeFilters(next)}`, { replace: true });
  const counts = useMemo(() => countByState(views), [views]);
  const shown = useMemo(() => narrow(views, filters), [views, filters]);

  return (
    <PageFrame
      title="Devices"
      loading={!fleet}
      error={error}
      actions={mayOperate(operator.rank) && <EmergencyStop />}
    >
      <StateCounts
        counts={counts}
        chosen={filters.states}
        toggle={(state) => setFilters(toggleState(filters, state))}
      />
      <FilterBar views={views} filters={filters} setFilters={setFilters} />
      {views.length === 0 ? <NoDevices /> : (
        <>
          <Text size="sm" className={soft} role="status">
            {shown.length === views.length
              ? "All devices"
              : `${shown.length.toLocaleString("en")} of ${counted(views.length, "device")}`}
          </Text>
          <DeviceTable views={shown} />
        </>
      )}
    </PageFrame>
  );
}

function NoDevices() {
  return (
    <Text>
      No devices have enrolled yet. <code>fleetctl token create</code>{" "}
      prints a line; run it on the device, and it will appear here.
    </Text>
  );
}
