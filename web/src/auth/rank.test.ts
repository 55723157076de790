import { equal } from "../testing/assert.ts";
import { mayOperate } from "./rank.ts";

Deno.test("operators and admins run the fleet, viewers look", () => {
  equal((["viewer", "operator", "admin"] as const).map(mayOperate), [false, true, true]);
});
