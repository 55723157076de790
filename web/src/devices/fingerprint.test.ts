import { equal } from "../testing/assert.ts";
import { fingerprint } from "./fingerprint.ts";

/** The agent's half is held to the same (tests/unit/support/test_fingerprint.py). */
Deno.test("a key has the fingerprint that the device shows", async () => {
  equal(
    await fingerprint("4OHi4-Tl5ufo6err7O3u7_Dx8vP09fb3-Pn6-_z9_v8"),
    "9432-c1a7-d343-fcfa-cb16-4bdc-44ff-71c1",
  );
});
