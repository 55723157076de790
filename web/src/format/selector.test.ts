import { equal } from "../testing/assert.ts";
import { KEYS, parseSelector, type Selector, SelectorError, selectorText } from "./selector.ts";

interface Cases {
  valid: { text: string; selector: Selector; written: string }[];
  refused: { text: string; kind: string; message: string }[];
}

/** The table that the Python half is tested with, too (tests/unit/fleetctl/test_selector.py). */
const cases: Cases = JSON.parse(
  Deno.readTextFileSync(new URL("../../../tests/support/selector_cases.json", import.meta.url)),
);

Deno.test("each text means what the table says, and is written as it says", () => {
  equal(cases.valid.length > 30, true);
  for (const { text, selector, written } of cases.valid) {
    equal(parseSelector(text), selector);
    equal(selectorText(selector), written);
    equal(parseSelector(written), selector);
  }
});

Deno.test("each wrong text is refused with the part that is wrong", () => {
  equal(cases.refused.length > 60, true);
  for (const { text, kind, message } of cases.refused) {
    const error = refusal(text);
    equal([error?.kind, error?.message], [kind, message]);
    equal(KEYS.every((key) => error?.hint.includes(key)), kind === "selector_unknown");
  }
});

function refusal(text: string): SelectorError | undefined {
  try {
    parseSelector(text);
  } catch (error) {
    if (error instanceof SelectorError) return error;
    throw error;
  }
}
