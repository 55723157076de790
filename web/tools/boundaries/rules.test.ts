/** Each rule catches what it is for: one import that breaks it, in a tree of its own. */
import { deepStrictEqual } from "node:assert";
import { cruise, type IConfiguration, type ICruiseResult } from "dependency-cruiser";
import rules from "./rules.js";

/** The names of the rules that a tree with these imports breaks; every imported file exists. */
async function broken(imports: Record<string, string[]>): Promise<string[]> {
  const folder = await Deno.makeTempDir({ prefix: "boundaries-" });
  const write = async (file: string, text: string) => {
    await Deno.mkdir(`${folder}/${file.slice(0, file.lastIndexOf("/"))}`, { recursive: true });
    await Deno.writeTextFile(`${folder}/${file}`, text);
  };
  try {
    for (const [file, targets] of Object.entries(imports)) {
      for (const target of targets) {
        if (target.includes("/") && !(target in imports)) await write(target, "export {};\n");
      }
      const up = "../".repeat(file.split("/").length - 1);
      const lines = targets.map((target) => `import "${target.includes("/") ? up + target : target}";\n`);
      await write(file, lines.join("") + "export {};\n");
    }
    const roots = [...new Set(Object.keys(imports).map((file) => file.split("/", 1)[0] ?? ""))];
    const { forbidden, options } = rules as unknown as IConfiguration;
    const result = await cruise(
      roots,
      {
        ...options,
        ruleSet: { forbidden: forbidden ?? [] },
        validate: true,
        baseDir: folder,
      } as Parameters<typeof cruise>[1],
    );
    const { summary } = result.output as ICruiseResult;
    return [...new Set(summary.violations.map(({ rule }) => rule.name))].sort();
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const CASES: [rule: string, imports: Record<string, string[]>][] = [
  ["no-circles", {
    "web/src/data/a.ts": ["web/src/data/b.ts"],
    "web/src/data/b.ts": ["web/src/data/a.ts"],
  }],
  ["pages-import-only-floors-below", { "web/src/alerts/a.tsx": ["web/src/device/b.tsx"] }],
  ["devices-import-only-floors-below", { "web/src/devices/a.tsx": ["web/src/device/b.tsx"] }],
  ["data-import-only-floors-below", { "web/src/data/a.ts": ["web/src/realtime/b.ts"] }],
  ["each-folder-of-web-has-a-floor", { "web/src/app/a.tsx": ["web/src/misc/b.ts"] }],
  ["main-is-imported-by-nothing", { "web/src/app/a.tsx": ["web/src/loose.ts"] }],
  ["only-tests-import-testing", { "web/src/data/a.ts": ["web/src/testing/b.ts"] }],
  ["nothing-imports-a-test", { "web/src/data/a.ts": ["web/src/data/b.test.ts"] }],
  ["format-is-pure", { "web/src/format/a.ts": ["node:fs"] }],
  ["view-models-do-without-react", { "web/src/device/a.ts": ["react"] }],
  ["view-models-do-without-react", { "web/src/device/a.ts": ["web/src/device/b.tsx"] }],
  ["web-stands-alone", { "web/tools/a.ts": ["supabase/local/b.ts"] }],
  ["web-ships-no-tools", { "web/src/app/a.tsx": ["web/tools/b.ts"] }],
  ["the-stack-loads-functions-and-dashboard-by-path-only", {
    "supabase/local/a.ts": ["edge_functions/enroll/index.ts"],
  }],
  ["realtime-is-entered-by-mod", { "supabase/local/a.ts": ["supabase/local/realtime/hub.ts"] }],
  ["realtime-stands-alone", { "supabase/local/realtime/deps.ts": ["supabase/local/config.ts"] }],
  ["realtime-takes-packages-from-deps", { "supabase/local/realtime/a.ts": ["postgres"] }],
  ["functions-are-deployed-alone", {
    "edge_functions/enroll/index.ts": ["edge_functions/device-token/b.ts"],
  }],
  ["functions-are-deployed-alone", { "edge_functions/_shared/a.ts": ["edge_functions/enroll/b.ts"] }],
];

for (const [rule, imports] of CASES) {
  const [[file, [target]]] = Object.entries(imports) as [[string, [string]]];
  Deno.test(`${rule}: ${file} may not import ${target}`, async () => {
    deepStrictEqual(await broken(imports), [rule]);
  });
}

Deno.test("what the code does today breaks nothing", async () => {
  deepStrictEqual(
    await broken({
      "web/src/main.tsx": ["web/src/app/a.tsx"],
      "web/src/device/a.tsx": ["react", "web/src/devices/b.ts", "web/src/device/c.tsx"],
      "web/src/device/a.test.ts": ["web/src/device/d.ts", "web/src/testing/e.ts"],
      "web/src/fleet/useFleet.ts": ["react", "web/src/auth/session.tsx"],
      "supabase/local/server.ts": ["supabase/local/realtime/mod.ts", "postgres"],
      "supabase/local/realtime/presence.ts": ["node:crypto"],
      "supabase/local/realtime/deps.ts": ["postgres"],
      "edge_functions/enroll/index.ts": ["edge_functions/_shared/a.ts"],
    }),
    [],
  );
});
