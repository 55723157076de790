import { equal } from "../testing/assert.ts";
import { each, enrollLine, outcomeWords, tokenState } from "./provisioning.ts";

const NOW = Date.parse("2026-11-26T12:00:00Z");
const token = { revoked_at: null, uses: 0, max_uses: 2, expires_at: "2026-11-27T00:00:00Z" };

Deno.test("a token is open until it is used up, expires, or is revoked", () => {
  equal(tokenState(token as never, NOW), "open");
  equal(tokenState({ ...token, uses: 2 } as never, NOW), "used up");
  equal(tokenState({ ...token, expires_at: "2026-11-26T12:00:00Z" } as never, NOW), "expired");
  equal(tokenState({ ...token, uses: 2, revoked_at: "2026-11-26T10:00:00Z" } as never, NOW), "revoked");
});

Deno.test("the line is a shell's own words, whatever the address holds", () => {
  const address = { supabaseUrl: "https://abc.example.co", publishableKey: "sb_publishable_x" };
  equal(
    enrollLine(address, "fpt_1"),
    "fleet-agent enroll --url https://abc.example.co --key sb_publishable_x --token fpt_1",
  );
  equal(
    enrollLine({ ...address, publishableKey: "a'b;c" }, "t"),
    `fleet-agent enroll --url https://abc.example.co --key 'a'"'"'b;c' --token t`,
  );
});

Deno.test("one refusal keeps nobody else out", async () => {
  const outcomes = await each(
    [{ name: "a" }, { name: "b" }],
    ({ name }) => name === "a" ? Promise.reject(new Error("a is retired.")) : Promise.resolve(),
  );
  equal(outcomes, [{ name: "a", error: "a is retired." }, { name: "b", error: null }]);
  equal(outcomeWords("Accepted", outcomes), "Accepted 1 device. Not accepted: 1 device.");
  equal(outcomeWords("Refused", outcomes.slice(1)), "Refused 1 device.");
});
