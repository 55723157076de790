import { equal } from "../testing/assert.ts";
import { marked, markedWithin } from "./plainText.ts";

Deno.test("what a terminal obeys, turns letters around or shows nothing is a mark", () => {
  equal(marked("\x1b]0;owned\x07"), "\\x1b]0;owned\\x07");
  equal(marked("\u202egpj.sh\u2066"), "\\u202egpj.sh\\u2066");
  equal(marked("a\u200b\u200d\ufeff\u00ad\u3164b"), "a\\u200b\\u200d\\ufeff\\xad\\u3164b");
  equal(marked("\u{e0041}\u{e0100}\ud800\u2028\x9b"), "\\U000e0041\\U000e0100\\ud800\\u2028\\x9b");
});

Deno.test("letters, accents, other scripts and line breaks stay", () => {
  for (const text of ["", "Größe: 3 µm", "שלום", "日本語", "🙂", "two\nlines\tand a tab"]) {
    equal(marked(text), text);
  }
});

Deno.test("every text within a row is marked, and nothing else changes", () => {
  equal(
    markedWithin<unknown>({ n: 1, ok: null, list: ["\u202e", { "a\u200b": "\x07" }] }),
    { n: 1, ok: null, list: ["\\u202e", { "a\\u200b": "\\x07" }] },
  );
});
