/**
 * What a broadcast on topic `fleet` says has changed, collected for a moment and handed over together.
 *
 * A broadcast is a hint: its record is a summary, so the rows are read again. A thousand devices that report in
 * the same second cost a few requests.
 */

/** The tables whose changes the topic announces; an event's name is its table. */
export const TABLES = [
  "devices",
  "device_status",
  "update_history",
  "releases",
  "halts",
  "device_commands",
  "alerts",
] as const;
export type ChangedTable = typeof TABLES[number];

export interface Change {
  table: ChangedTable;
  op: "insert" | "update" | "delete";
  /** The row's id, and the device it is about; both null when one statement changed many rows. */
  id: string | null;
  deviceId: string | null;
}

/** Read one broadcast; null if this page does not know it. */
export function parseChange(event: unknown, payload: unknown): Change | null {
  const table = TABLES.find((name) => name === event);
  if (!table || typeof payload !== "object" || payload === null) return null;
  const { op, id, device_id } = payload as Record<string, unknown>;
  if (op !== "insert" && op !== "update" && op !== "delete") return null;
  const own = typeof id === "string" ? id : null;
  const device = typeof device_id === "string" ? device_id : null;
  return { table, op, id: own, deviceId: device ?? (table === "devices" ? own : null) };
}

/** All changes of one moment, by what has to be read again. */
export interface Batch {
  devices: Set<string>;
  deleted: Set<string>;
  statuses: Set<string>;
  /** Devices whose history or commands changed. */
  histories: Set<string>;
  commands: Set<string>;
  /** Tables of which so much changed that they are read whole; releases, halts and alerts always are. */
  whole: Set<ChangedTable>;
}

export function emptyBatch(): Batch {
  return {
    devices: new Set(),
    deleted: new Set(),
    statuses: new Set(),
    histories: new Set(),
    commands: new Set(),
    whole: new Set(),
  };
}

/** Add one change to a batch. */
export function addToBatch(batch: Batch, change: Change): void {
  const { table, op, deviceId } = change;
  const short = table === "releases" || table === "halts" || table === "alerts";
  if (short || deviceId === null) batch.whole.add(table);
  else if (table === "devices" && op === "delete") {
    batch.deleted.add(deviceId);
    batch.devices.delete(deviceId);
  } else if (table === "devices") batch.devices.add(deviceId);
  else if (table === "device_status") batch.statuses.add(deviceId);
  else if (table === "update_history") batch.histories.add(deviceId);
  else batch.commands.add(deviceId);
}

/** Collects changes for `waitMs` after the first one, then flushes once; the next flush waits for the last to end. */
export class ChangeBatcher {
  #batch = emptyBatch();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #busy = false;
  #dirty = false;

  constructor(
    private readonly flush: (batch: Batch) => Promise<void>,
    private readonly waitMs: number,
    private readonly later: (run: () => void, ms: number) => ReturnType<typeof setTimeout> =
      // Not setTimeout itself: a browser refuses to call it as a method of this object.
      (run, ms) => setTimeout(run, ms),
  ) {}

  add(change: Change): void {
    addToBatch(this.#batch, change);
    this.#dirty = true;
    this.#arm();
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#dirty = false;
  }

  #arm(): void {
    if (this.#timer !== undefined || this.#busy || !this.#dirty) return;
    this.#timer = this.later(() => void this.#run(), this.waitMs);
  }

  async #run(): Promise<void> {
    this.#timer = undefined;
    const batch = this.#batch;
    this.#batch = emptyBatch();
    this.#dirty = false;
    this.#busy = true;
    try {
      await this.flush(batch);
    } finally {
      this.#busy = false;
      this.#arm();
    }
  }
}
