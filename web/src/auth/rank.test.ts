import { equal } from "../testing/assert.ts";
import { mayOperate } from "./rank.ts";

Deno.test("operators and admins manage the fleet, viewers only view", () => {
  equal((["viewer", "operator", "admin"] as const).map(mayOperate), [false, true, true]);
});
