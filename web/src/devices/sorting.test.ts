import { equal } from "../testing/assert.ts";
import type { DeviceView } from "./deviceView.ts";
import { compare, type SortColumn } from "./sorting.ts";

const row = (name: string, fields: Partial<DeviceView> = {}) =>
  ({
    name,
    shown: "healthy",
    current: null,
    target: null,
    contactAt: null,
    why: "",
    ...fields,
  }) as DeviceView;
const sorted = (column: SortColumn, rows: DeviceView[]) =>
  [...rows].sort((a, b) => compare(column, a, b)).map((it) => it.name);

Deno.test("numbers in names count as numbers", () => {
  equal(sorted("name", [row("device-10"), row("device-9")]), ["device-9", "device-10"]);
});

Deno.test("by state the urgent come first", () => {
  equal(sorted("shown", [row("a"), row("b", { shown: "degraded" }), row("c", { shown: "offline" })]), [
    "b",
    "c",
    "a",
  ]);
});

Deno.test("by contact the newest come first and the never seen last", () => {
  const rows = [
    row("never"),
    row("old", { contactAt: "2026-11-01T00:00:00Z" }),
    row("new", { contactAt: "2026-11-23T00:00:00Z" }),
  ];
  equal(sorted("contactAt", rows), ["new", "old", "never"]);
});

Deno.test("equal rows keep the order of their names", () => {
  equal(sorted("segment", [row("b", { segment: "x" }), row("a", { segment: "x" })]), ["a", "b"]);
});

Deno.test("an unknown version comes last", () => {
  equal(sorted("current", [row("none"), row("one", { current: "v1" })]), ["one", "none"]);
});
