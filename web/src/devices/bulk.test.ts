import { equal } from "../testing/assert.ts";
import { bulkLabel, parseResult, resultWords } from "./bulk.ts";

Deno.test("the answer of a bulk change names whoever refused, and its parts add up", () => {
  const result = parseResult({
    devices: 9,
    changed: 6,
    unchanged: 1,
    refused: 2,
    answers: [
      { name: "a", outcome: "changed" },
      { name: "b", outcome: "refused", message: "b is retired.", hint: "Enroll it again." },
      { name: "c", outcome: "refused" },
    ],
  });
  equal(resultWords(result), "6 devices of 9 changed, 1 was like that before, 2 refused");
  equal(result.refused[0], { name: "b", message: "b is retired.", hint: "Enroll it again." });
  equal(resultWords(parseResult({ devices: 1, changed: 1, answers: [] })), "1 device of 1 changed");
  equal(bulkLabel("Hold", 2500), "Hold 2,500 devices");
});
