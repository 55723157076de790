import { useMemo } from "react";
import { useNow } from "../components/useNow.ts";
import type { FleetData } from "../fleet/fleetData.ts";
import { type DeviceView, deviceViews } from "./deviceView.ts";

/** How often a device is checked for being offline: a quarter of the shortest poll interval. */
const OFFLINE_STEP_MS = 5000;

/** Every device as it is shown now. */
export function useDeviceViews(fleet: FleetData | null): DeviceView[] {
  const now = useNow(OFFLINE_STEP_MS);
  return useMemo(() => (fleet ? deviceViews(fleet, now) : []), [fleet, now]);
}
