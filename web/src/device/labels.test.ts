import { equal } from "../testing/assert.ts";
import { labelsFromText, labelsText } from "./labels.ts";

Deno.test("labels are read back from the lines that they are shown as", () => {
  const labels = { site: "rome", "a=b": "c" };
  equal(labelsText({ site: "rome", floor: "2" }), "floor=2\nsite=rome");
  equal(labelsFromText(" site = rome \n\nfloor=2=3\nspare"), { site: "rome", floor: "2=3", spare: "" });
  equal(labelsFromText(labelsText({ site: labels.site })), { site: "rome" });
});
