// @ts-check
/**
 * What may import what in the TypeScript of this repository, as rules of dependency-cruiser; the Python side has
 * the like in pyproject.toml (import-linter). `deno task check` compares, and `make lint` calls it.
 */

/** The folders of web/src, top floor first: each may import only from floors below its own. */
const FLOORS = [
  ["app"],
  [
    "overview",
    "alerts",
    "device",
    "rollouts",
    "releases",
    "windows",
    "provisioning",
    "audit",
    "settings",
    "people",
    "known-bad",
  ],
  ["devices"],
  ["halts"],
  ["fleet"],
  ["realtime"],
  ["forms"],
  ["auth"],
  ["components"],
  ["data"],
  ["format", "styles"],
];

const folders = (/** @type {string[]} */ names) => `^web/src/(${names.join("|")})/`;
const TEST = "[.]test[.]ts$";

/** No floor may import from one above it, nor from another folder on the same floor. */
const floors = FLOORS.map((own, index) => ({
  // The pages are many.
  name: `${own.length > 2 ? "pages" : own.join("-and-")}-import-only-floors-below`,
  from: { path: folders(own) },
  to: { path: folders(FLOORS.slice(0, index + 1).flat()), pathNot: "^web/src/$1/" },
}));

export default {
  forbidden: [
    { name: "no-circles", from: {}, to: { circular: true } },
    ...floors,
    {
      name: "each-folder-of-web-has-a-floor",
      from: {},
      to: { path: "^web/src/[^/]+/", pathNot: folders([...FLOORS.flat(), "testing"]) },
    },
    {
      name: "main-is-imported-by-nothing",
      from: {},
      to: { path: "^web/src/[^/]+$" },
    },
    {
      name: "only-tests-import-testing",
      from: { pathNot: [TEST, "^web/src/testing/"] },
      to: { path: "^web/src/testing/" },
    },
    { name: "nothing-imports-a-test", from: {}, to: { path: TEST } },
    {
      name: "format-is-pure",
      from: { path: "^web/src/format/", pathNot: TEST },
      to: { pathNot: "^web/src/format/" },
    },
    {
      // A view model is tested without a browser: .ts files take no component, and React only in hooks and contexts.
      name: "view-models-do-without-react",
      from: {
        path: "^web/src/.+[.]ts$",
        pathNot: ["/use[A-Z][^/]*$", "Context[.]ts$", "/theme[.]ts$", TEST],
      },
      to: {
        path: ["[.]tsx$", "(^|/)react(-dom)?(/|$)", "(^|/)@mantine/", "(^|/)wouter(/|$)"],
        dependencyTypesNot: ["type-only"],
      },
    },
    {
      name: "web-stands-alone",
      from: { path: "^web/" },
      to: { path: "^(supabase|edge_functions)/" },
    },
    { name: "web-ships-no-tools", from: { path: "^web/src/" }, to: { path: "^web/(?!src/|node_modules/)" } },
    {
      name: "the-stack-loads-functions-and-dashboard-by-path-only",
      from: { path: "^supabase/local/" },
      to: { path: "^(web|edge_functions)/" },
    },
    {
      name: "realtime-is-entered-by-mod",
      from: { path: "^supabase/local/", pathNot: "^supabase/local/realtime/" },
      to: { path: "^supabase/local/realtime/", pathNot: "/mod[.]ts$" },
    },
    {
      name: "realtime-stands-alone",
      from: { path: "^supabase/local/realtime/" },
      to: { path: "^supabase/local/(?!realtime/|node_modules/)" },
    },
    {
      name: "realtime-takes-packages-from-deps",
      from: { path: "^supabase/local/realtime/", pathNot: "/deps[.]ts$" },
      to: { pathNot: "^supabase/local/realtime/", dependencyTypesNot: ["core"] },
    },
    {
      name: "functions-are-deployed-alone",
      from: { path: "^edge_functions/([^/]+)/" },
      to: { path: "^(web|supabase|edge_functions)/", pathNot: "^edge_functions/($1|_shared)/" },
    },
  ].map((rule) => ({ severity: "error", ...rule })),
  options: {
    // Types count: a circle of types is a circle for the reader.
    tsPreCompilationDeps: true,
    doNotFollow: { path: "node_modules" },
    exclude: { path: "^web/tools/[^/]+/node_modules|[.]css$" },
    enhancedResolveOptions: { extensions: [".ts", ".tsx", ".js"] },
  },
};
