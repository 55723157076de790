import { equal } from "../testing/assert.ts";
import { declaredAccess } from "./access.ts";

Deno.test("what a role declares is shown for that role only, root first", () => {
  const release = { access: { kiosk: { host_network: "printers", root: "why" }, other: { sys: "x" } } };
  equal(declaredAccess(release, "kiosk"), [
    { word: "root", reason: "why" },
    { word: "host_network", reason: "printers" },
  ]);
  equal(declaredAccess(release, "none"), []);
});

Deno.test("whatever else is in the column breaks no page", () => {
  for (const access of [null, [], "x", { kiosk: [] }, { kiosk: null }]) {
    equal(declaredAccess({ access }, "kiosk"), []);
  }
  equal(declaredAccess({ access: { kiosk: { sys: 3 } } }, "kiosk"), [{ word: "sys", reason: "" }]);
  equal(declaredAccess(undefined, "kiosk"), []);
});
