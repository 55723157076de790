import { equal } from "../testing/assert.ts";
import {
  chosenStates,
  readView,
  searchedText,
  toggleState,
  valuesOf,
  withText,
  withValues,
  writeView,
} from "./filters.ts";

const view = (query: string) => readView(new URLSearchParams(query));

Deno.test("a view is read back from the address that it writes", () => {
  const whole = {
    selector: {
      segment: "canary",
      shown: ["degraded", "offline"],
      text: "lobby rome",
      labels: { site: "rome" },
    },
    sort: "current" as const,
    descending: true,
  };
  equal(view(writeView(whole).toString()), { ...whole, problem: null });
  equal(writeView({ selector: {}, sort: "shown", descending: false }).toString(), "");
  equal(
    writeView(whole).get("select"),
    'segment=canary shown=degraded,offline text="lobby rome" label.site=rome',
  );
});

Deno.test("what the address does not know is left out, and a wrong selector is said and takes everything", () => {
  equal([view("sort=<script>").sort, view("sort=-name").descending], ["shown", true]);
  const wrong = view("select=segmnt%3Dx");
  equal([wrong.selector, wrong.problem?.kind], [{}, "selector_unknown"]);
});

Deno.test("counts, choices and the search box write one selector", () => {
  let selector = toggleState({}, "offline");
  selector = toggleState(selector, "degraded");
  equal(chosenStates(selector), ["degraded", "offline"]);
  equal(toggleState(selector, "offline"), { shown: "degraded" });
  equal(toggleState(toggleState(selector, "offline"), "degraded"), {});
  equal(searchedText(withText(selector, "lobby ")), "lobby ");
  equal(withText(withText({}, "x"), "  "), {});
  equal(valuesOf(withValues({ role: "kiosk" }, "segment", ["b", "a"]), "segment"), ["a", "b"]);
});
