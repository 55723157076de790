import { equal } from "../testing/assert.ts";
import { addToBatch, type Batch, type Change, ChangeBatcher, emptyBatch, parseChange } from "./changes.ts";

const change = (fields: Partial<Change> = {}): Change => ({
  table: "device_status",
  op: "update",
  id: "a",
  deviceId: "a",
  ...fields,
});

Deno.test("a broadcast names its table, its operation and its device", () => {
  equal(
    parseChange("device_status", { v: 1, op: "update", id: "s", device_id: "d", record: {} }),
    { table: "device_status", op: "update", id: "s", deviceId: "d" },
  );
  equal(parseChange("devices", { op: "delete", id: "d" }), {
    table: "devices",
    op: "delete",
    id: "d",
    deviceId: "d",
  });
});

Deno.test("a table without rows of its own is read whole", () => {
  const batch = emptyBatch();
  const told = parseChange("maintenance_windows", { v: 1, op: "update", id: null, device_id: null });
  if (told) addToBatch(batch, told);
  equal([[...batch.tables], [...batch.whole]], [["maintenance_windows"], ["maintenance_windows"]]);
});

Deno.test("what is not about a table is ignored", () => {
  equal(parseChange("<script>", { op: "insert" }), null);
  equal(parseChange("halts", { op: "explode" }), null);
  equal(parseChange("halts", "insert"), null);
});

Deno.test("a deleted device is not read again", () => {
  const batch = emptyBatch();
  addToBatch(batch, change({ table: "devices" }));
  addToBatch(batch, change({ table: "devices", op: "delete" }));
  equal([batch.devices.size, [...batch.deleted]], [0, ["a"]]);
});

Deno.test("an alert about a device is read with the other alerts, not with the device", () => {
  const batch = emptyBatch();
  addToBatch(batch, change({ table: "alerts", deviceId: "d" }));
  equal([[...batch.whole], batch.devices.size, batch.commands.size], [["alerts"], 0, 0]);
});

Deno.test("one message for many rows means: read that table whole", () => {
  const bulk = parseChange("devices", {
    v: 1,
    op: "update",
    id: null,
    device_id: null,
    record: null,
    count: 21,
  });
  equal(bulk, { table: "devices", op: "update", id: null, deviceId: null });
  const batch = emptyBatch();
  if (bulk) addToBatch(batch, bulk);
  equal([[...batch.whole], batch.devices.size], [["devices"], 0]);
});

/** A batcher whose timer the test lets run, and whose flushes it ends. */
function batching() {
  const timers: (() => void)[] = [];
  const flushed: { batch: Batch; end: () => void }[] = [];
  const flush = (batch: Batch) => new Promise<void>((end) => flushed.push({ batch, end }));
  const batcher = new ChangeBatcher(flush, 250, (run) => {
    timers.push(run);
    return 0 as unknown as ReturnType<typeof setTimeout>;
  });
  return { batcher, timers, flushed };
}

Deno.test("a burst becomes one flush with every device once", () => {
  const { batcher, timers, flushed } = batching();
  for (const id of ["a", "b", "a", "c"]) batcher.add(change({ id, deviceId: id }));
  equal(timers.length, 1);
  timers[0]?.();
  equal(flushed.map(({ batch }) => [...batch.statuses]), [["a", "b", "c"]]);
});

Deno.test("what changes during a flush waits for its end, and is not lost", async () => {
  const { batcher, timers, flushed } = batching();
  batcher.add(change());
  timers[0]?.();
  batcher.add(change({ deviceId: "late" }));
  equal(timers.length, 1);
  flushed[0]?.end();
  await Promise.resolve();
  await Promise.resolve();
  equal(timers.length, 2);
  timers[1]?.();
  equal([...(flushed[1]?.batch.statuses ?? [])], ["late"]);
});
