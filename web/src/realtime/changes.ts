/**
 * What a broadcast on topic `fleet` says has changed, collected for a moment and handed over together.
 *
 * A broadcast is a hint: its record is a summary, so the rows are read again. A thousand devices that report in
 * the same second cost a few requests.
 */

export interface Change {
  /** An event's name is its table. */
  table: string;
  op: "insert" | "update" | "delete";
  /** The row's id, and the device it is about; both null when one statement changed many rows. */
  id: string | null;
  deviceId: string | null;
}

const TABLE = /^[a-z][a-z0-9_]{0,62}$/;

/** Read one broadcast; null if it is not about a table. */
export function parseChange(event: unknown, payload: unknown): Change | null {
  if (typeof event !== "string" || !TABLE.test(event)) return null;
  if (typeof payload !== "object" || payload === null) return null;
  const table = event;
  const { op, id, device_id } = payload as Record<string, unknown>;
  if (op !== "insert" && op !== "update" && op !== "delete") return null;
  const own = typeof id === "string" ? id : null;
  const device = typeof device_id === "string" ? device_id : null;
  return { table, op, id: own, deviceId: device ?? (table === "devices" ? own : null) };
}

/** All changes of one moment, by what has to be read again. */
export interface Batch {
  /** Every table of which anything changed: queries that name one of them are read again. */
  tables: Set<string>;
  devices: Set<string>;
  deleted: Set<string>;
  statuses: Set<string>;
  /** Devices whose history or commands changed. */
  histories: Set<string>;
  commands: Set<string>;
  /** Tables of which so much changed that they are read whole; all but those of devices always are. */
  whole: Set<string>;
}

export function emptyBatch(): Batch {
  return {
    tables: new Set(),
    devices: new Set(),
    deleted: new Set(),
    statuses: new Set(),
    histories: new Set(),
    commands: new Set(),
    whole: new Set(),
  };
}

/** Tables whose rows are about one device each. */
const OF_DEVICES = ["devices", "device_status", "update_history", "device_commands"];

/** Add one change to a batch. */
export function addToBatch(batch: Batch, change: Change): void {
  const { table, op, deviceId } = change;
  batch.tables.add(table);
  if (!OF_DEVICES.includes(table) || deviceId === null) batch.whole.add(table);
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
