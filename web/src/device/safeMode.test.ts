import { equal } from "../testing/assert.ts";
import { safeMode } from "./safeMode.ts";

const said = {
  state: "safe_mode" as const,
  reason: "Safe mode: the disk is full.",
  error: null,
  error_kind: null,
};

Deno.test("only a device whose last report says so is in safe mode", () => {
  equal(safeMode(null, null), null);
  equal(safeMode({ ...said, state: "healthy" }, "v3"), null);
});

Deno.test("the reason is the device's own, else its error, and what runs beside is named", () => {
  equal(safeMode(said, null), { reason: "Safe mode: the disk is full.", kind: null, beside: null });
  equal(safeMode({ ...said, error: "The disk is full.", error_kind: "disk_full" }, "v3"), {
    reason: "Safe mode: the disk is full.",
    kind: "disk_full",
    beside: "v3",
  });
  equal(safeMode({ ...said, reason: null, error: "The disk is full." }, null)?.reason, "The disk is full.");
  equal(safeMode({ ...said, reason: null }, null)?.reason, "No reason given.");
});
