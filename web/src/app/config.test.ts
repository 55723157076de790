import { equal, rejects } from "../testing/assert.ts";
import { loadConfig, parseConfig } from "./config.ts";

const origin = "http://127.0.0.1:54321";
const publishableKey = "sb_publishable_x";

Deno.test("an empty or relative address is resolved against the page's", () => {
  equal(parseConfig({ supabaseUrl: "", publishableKey }, origin).supabaseUrl, origin);
  equal(parseConfig({ publishableKey }, origin).supabaseUrl, origin);
  equal(parseConfig({ supabaseUrl: "/fleet/", publishableKey }, origin).supabaseUrl, `${origin}/fleet`);
});

Deno.test("an absolute address is kept, without its last slash", () => {
  equal(
    parseConfig({ supabaseUrl: "https://abc.example.co/", publishableKey }, origin).supabaseUrl,
    "https://abc.example.co",
  );
});

Deno.test("an invalid config is refused with the reason", () => {
  const cases: [unknown, RegExp][] = [
    [null, /not a JSON object/],
    [{}, /publishableKey is missing/],
    [{ publishableKey: "sb_secret_x" }, /secret key/],
    [{ publishableKey, supabaseUrl: 5 }, /supabaseUrl must be a string/],
    [{ publishableKey, supabaseUrl: "http://[" }, /not a valid URL/],
    [{ publishableKey, pollSeconds: 4 }, /pollSeconds/],
    [{ publishableKey, pollSeconds: 86_401 }, /pollSeconds/],
    [{ publishableKey, pollSeconds: Number.NaN }, /pollSeconds/],
  ];
  for (const [raw, why] of cases) {
    let seen = "";
    try {
      parseConfig(raw, origin);
    } catch (cause) {
      seen = String(cause);
    }
    equal(why.test(seen), true);
  }
});

Deno.test("config.json is read from next to the page, whatever the route is", async () => {
  const asked: string[] = [];
  const get = ((address: URL) => {
    asked.push(address.href);
    return Promise.resolve(Response.json({ publishableKey }));
  }) as unknown as typeof fetch;
  await loadConfig({ href: `${origin}/fleet/?state=offline#/devices/1`, origin } as Location, get);
  equal(asked, [`${origin}/fleet/config.json`]);
});

Deno.test("a page without config.json says so", async () => {
  const get = (() => Promise.resolve(new Response("no", { status: 404 }))) as unknown as typeof fetch;
  await rejects(loadConfig({ href: `${origin}/`, origin } as Location, get), { kind: "config_invalid" });
});
