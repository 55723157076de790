import type { AlertRow } from "../data/rows.ts";
import { equal } from "../testing/assert.ts";
import { acknowledgeLabel, inOrder, isUnacknowledged, kindWords, tally } from "./alerts.ts";

const alert = (id: string, fields: Partial<AlertRow> = {}): AlertRow => ({
  id,
  kind: "device_offline",
  severity: "warning",
  summary: "kitchen has been offline since noon.",
  device_id: null,
  rollout_id: null,
  opened_at: "2026-11-26T10:00:00Z",
  acknowledged_at: null,
  acknowledged_by: null,
  devices: null,
  rollouts: null,
  ...fields,
});

Deno.test("the unacknowledged come first, then the severe, then the new", () => {
  const seen = alert("seen", { severity: "critical", acknowledged_at: "2026-11-26T11:00:00Z" });
  const old = alert("old");
  const young = alert("young", { opened_at: "2026-11-26T10:00:01Z" });
  const critical = alert("critical", { severity: "critical", opened_at: "2026-11-20T00:00:00Z" });
  const note = alert("note", { severity: "info", opened_at: "2026-11-26T12:00:00Z" });
  const shown = inOrder([seen, old, note, young, critical]);
  equal(shown.map(({ id }) => id), ["critical", "young", "old", "note", "seen"]);
  equal(isUnacknowledged(seen), false);
});

Deno.test("counts and kinds are shown as words", () => {
  const seen = alert("seen", { acknowledged_at: "2026-11-26T11:00:00Z" });
  equal(tally([alert("a"), seen]), "2 open, 1 unacknowledged");
  equal(tally([seen]), "1 open, all acknowledged");
  equal(acknowledgeLabel([seen]), "Acknowledge 1 alert");
  equal(acknowledgeLabel([alert("a"), alert("b")]), "Acknowledge 2 alerts");
  equal(kindWords("lease_expired"), "lease expired");
});
