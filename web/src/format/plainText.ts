/**
 * Texts that devices write, as a person may see them.
 *
 * A browser obeys no escape sequence, but it does turn letters around where a text says so, and shows nothing for many
 * characters: two names that look the same, a sentence that reads otherwise. So those are shown as marks, like `\u202e`.
 * scripts/fleetctl/console.py has the same list for terminals.
 */

const LETTERS =
  "\\u034f\\u115f\\u1160\\u17b4\\u17b5\\u180b-\\u180d\\u180f\\u2800\\u3164\\uffa0\\ufe00-\\ufe0f";
const MARKED = new RegExp(
  `(?![\\n\\t])[\\p{Cc}\\p{Cf}\\p{Cs}\\p{Zl}\\p{Zp}${LETTERS}\\u{e0100}-\\u{e01ef}]`,
  "gu",
);

/** `text` with marks for what changes the direction of letters, controls, or shows nothing. */
export function marked(text: string): string {
  return text.replace(MARKED, (sign) => {
    const code = sign.codePointAt(0) ?? 0;
    const [letter, digits] = code < 0x100 ? ["x", 2] : code < 0x10000 ? ["u", 4] : ["U", 8];
    return `\\${letter}${code.toString(16).padStart(digits, "0")}`;
  });
}

/** The same for every text within a row, a list or an object; names of fields, too. */
export function markedWithin<Value>(value: Value): Value;
export function markedWithin(value: unknown): unknown {
  if (typeof value === "string") return marked(value);
  if (Array.isArray(value)) return value.map((item) => markedWithin<unknown>(item));
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => [marked(key), markedWithin<unknown>(item)]),
  );
}
