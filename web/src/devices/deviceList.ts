/** One page of the list, as the database answers it. */
import { fields, list, number } from "../data/json.ts";
import type { ListedDevice, StatusRow } from "../data/rows.ts";
import type { SharedRows } from "../fleet/fleetData.ts";
import { type DeviceView, deviceView } from "./deviceView.ts";

export interface DevicePage {
  total: number;
  devices: { device: ListedDevice; status: StatusRow | undefined }[];
}

/** Read the answer of `list_devices`. */
export function parsePage(answer: unknown): DevicePage {
  const whole = fields(answer);
  return {
    total: number(whole.total) ?? 0,
    devices: list(whole.devices).map(({ device, status }) => ({
      device: fields(device) as unknown as ListedDevice,
      status: status === null ? undefined : fields(status) as unknown as StatusRow,
    })),
  };
}

/** A device with what only its row tells. */
export interface ListedView extends DeviceView {
  window: string | null;
  hardware: string | null;
  agent: string | null;
  labels: string;
}

export function listedView(
  { device, status }: DevicePage["devices"][number],
  shared: SharedRows,
  now: number,
): ListedView {
  return {
    ...deviceView(device, status, shared, now),
    window: device.maintenance_window,
    hardware: device.hardware_model,
    agent: status?.agent_version ?? null,
    labels: Object.entries(fields(device.labels)).map(([name, value]) => `${name}=${String(value)}`).join(
      " ",
    ),
  };
}
