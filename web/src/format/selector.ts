/**
 * Selectors as people type them: `segment=canary,early label.site=rome`. The grammar is docs/usage/selectors.md.
 *
 * scripts/fleetctl/commands/common/selector.py is the same in Python; tests/support/selector_cases.json holds both to it.
 */

/** As the database has it: texts, lists of texts, `offline` as a boolean, and `labels` inside. */
export type Selector = Record<string, string | string[] | boolean | Record<string, string | string[]>>;

/** Keys in the order in which they are written. */
export const KEYS = [
  "segment",
  "role",
  "branch",
  "name",
  "hardware_model",
  "os",
  "agent_version",
  "state",
  "release",
  "not_release",
  "offline",
  "last_outcome",
  "shown",
  "text",
];
const SHORT = new Map([["on", "release"], ["not_on", "not_release"]]);
const LABEL = "label.";
/** Keys with a closed list of values. */
const CLOSED = new Map([
  ["state", ["pending", "active", "suspended", "retired"]],
  ["offline", ["true", "false"]],
  ["last_outcome", ["succeeded", "failed", "rolled_back", "skipped"]],
  [
    "shown",
    [
      "safe_mode",
      "isolated",
      "degraded",
      "offline",
      "rolled_back",
      "pending",
      "updating",
      "never_seen",
      "suspended",
      "healthy",
      "retired",
    ],
  ],
]);
/** What separates parts. Other spaces come from copying and pasting. */
const SPACES = " \t\r\n";
const INVISIBLE = new RegExp(
  "[\\0- \\x7f-\\xa0\\xad\\u061c\\u1680\\u180e\\u2000-\\u200f\\u2028-\\u202f\\u205f-\\u206f\\u3000\\ufeff" +
    "\\u{e0000}-\\u{e007f}\\ud800-\\udfff]",
  "gu",
);
const NEEDS_QUOTES = /[="'\\‘’‚‛“”„‟«»]/u;
/** PostgreSQL's texts cannot hold these. */
const IMPOSSIBLE = /[\0\ud800-\udfff]/u;
const HINT = 'Write it like segment=canary,early label.site=rome hardware_model="Pi 3".';
const SHOWN = 100;

/** What is wrong with a selector, and with which part of it. `kind` is stable; `hint` says what to write. */
export class SelectorError extends Error {
  constructor(readonly kind: string, message: string, readonly hint: string) {
    super(message);
  }
}

/**
 * The selector that `text` writes, in the normal form of the database; {} for an empty text.
 *
 * Throws SelectorError: `selector_malformed`, `selector_unknown`. Both name the part that is wrong.
 */
export function parseSelector(text: string): Selector {
  const selector = new Map<string, string | string[]>();
  const labels = new Map<string, string | string[]>();
  for (const part of partsOf(text)) {
    const [key, rest] = keyOf(part);
    const values = valuesOf(part, rest);
    if (key.startsWith(LABEL)) {
      put(labels, key.slice(LABEL.length), values, part, quotedKey(key));
    } else {
      checkClosed(part, key, values);
      put(selector, key, values, part, key);
    }
  }
  // From entries: a label may be called __proto__.
  const parsed: Selector = Object.fromEntries(selector);
  if ("offline" in parsed) parsed.offline = parsed.offline === "true";
  return labels.size ? { ...parsed, labels: Object.fromEntries(labels) } : parsed;
}

/** The text that `parseSelector` reads back; empty for {}. */
export function selectorText(selector: Selector): string {
  const others = Object.keys(selector).filter((key) => key !== "labels" && !KEYS.includes(key));
  const values = new Map(Object.entries(selector));
  const parts = [...KEYS, ...others.sort(byCodePoint)]
    .filter((key) => values.has(key))
    .map((key) => `${key}=${written(values.get(key))}`);
  const labels = Object.entries(selector.labels ?? {}).sort(([one], [other]) => byCodePoint(one, other));
  return [...parts, ...labels.map(([name, value]) => `${quotedKey(LABEL + name)}=${written(value)}`)].join(
    " ",
  );
}

function put(
  into: Map<string, string | string[]>,
  key: string,
  values: string[],
  part: string,
  called: string,
): void {
  if (into.has(key)) throw malformed(part, `${called} is there twice; separate several values with commas`);
  const chosen = [...new Set(values)].sort(byCodePoint);
  const [first, ...others] = chosen;
  into.set(key, first !== undefined && others.length === 0 ? first : chosen);
}

/** What stands between spaces, those in quotes aside. */
function partsOf(text: string): string[] {
  const parts: string[] = [];
  let part = "";
  let quoted = false;
  let escaped = false;
  for (const sign of text) {
    if (!quoted && SPACES.includes(sign)) {
      if (part) parts.push(part);
      part = "";
      continue;
    }
    part += sign;
    if (escaped) escaped = false;
    else if (quoted && sign === "\\") escaped = true;
    else if (sign === '"') quoted = !quoted;
  }
  return part ? [...parts, part] : parts;
}

/** The key, short forms written out, and what follows its equals sign. */
function keyOf(part: string): [key: string, rest: string] {
  let name: string;
  let rest: string;
  if (part.startsWith(`${LABEL}"`)) {
    [name, rest] = unquoted(part, part.slice(LABEL.length));
    if (!rest.startsWith("=")) throw malformed(part, "it is not of the form KEY=VALUE");
    rest = rest.slice(1);
  } else {
    const equals = part.indexOf("=");
    if (equals < 1) throw malformed(part, "it is not of the form KEY=VALUE");
    const typed = part.slice(0, equals);
    rest = part.slice(equals + 1);
    const key = SHORT.get(typed) ?? typed;
    if (KEYS.includes(key)) return [key, rest];
    if (!key.startsWith(LABEL)) throw unknown(part, key);
    name = key.slice(LABEL.length);
    checkBare(part, name);
  }
  if (!name) throw malformed(part, "a label needs a name");
  return [LABEL + name, rest];
}

function valuesOf(part: string, text: string): string[] {
  const values: string[] = [];
  let rest = text;
  while (true) {
    let value: string;
    if (rest.startsWith('"')) {
      [value, rest] = unquoted(part, rest);
    } else {
      const comma = rest.indexOf(",");
      value = comma < 0 ? rest : rest.slice(0, comma);
      if (!value) throw malformed(part, 'a value is missing; an empty text is ""');
      checkBare(part, value);
      rest = rest.slice(value.length);
    }
    values.push(value);
    if (!rest) return values;
    if (!rest.startsWith(",")) throw malformed(part, "a comma or a space has to follow the closing quote");
    rest = rest.slice(1);
  }
}

/** What stands in the quotes with which `text` begins, and what follows them. */
function unquoted(part: string, text: string): [value: string, rest: string] {
  let value = "";
  let escaped = false;
  let end = 1;
  for (const sign of [...text].slice(1)) {
    end += sign.length;
    if (escaped) {
      if (sign !== '"' && sign !== "\\") break;
      escaped = false;
    } else if (sign === "\\") {
      escaped = true;
      continue;
    } else if (sign === '"') {
      return [value, text.slice(end)];
    }
    if (IMPOSSIBLE.test(sign)) throw malformed(part, `no text can contain ${codeOf(sign)}`);
    value += sign;
  }
  throw malformed(
    part,
    escaped ? 'a backslash in quotes goes before " or \\ only' : "the quote is not closed",
  );
}

function checkBare(part: string, text: string): void {
  const invisible = text.match(INVISIBLE);
  if (invisible) {
    throw malformed(part, `the invisible character ${codeOf(invisible[0])} is allowed in quotes only`);
  }
  const quotable = text.match(NEEDS_QUOTES);
  if (quotable) throw malformed(part, `what contains ${quotable[0]} goes into double quotes`);
  if (text.includes(",")) {
    throw malformed(part, "the name of a label that contains , goes into double quotes");
  }
}

function checkClosed(part: string, key: string, values: string[]): void {
  const allowed = CLOSED.get(key);
  if (allowed && values.some((value) => !allowed.includes(value))) {
    throw malformed(part, `${key} is one of ${allowed.join(", ")}`);
  }
  if (key === "offline" && values.length > 1) throw malformed(part, "offline has one value, true or false");
}

function written(value: unknown): string {
  if (typeof value === "boolean") return String(value);
  return (Array.isArray(value) ? value : [value]).map((one) => quoted(String(one))).join(",");
}

/** `text`, in quotes if the grammar needs them. */
function quoted(text: string): string {
  if (text && !text.match(INVISIBLE) && !NEEDS_QUOTES.test(text) && !text.includes(",")) return text;
  return `"${text.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`;
}

function quotedKey(key: string): string {
  return LABEL + quoted(key.slice(LABEL.length));
}

function malformed(part: string, problem: string): SelectorError {
  return new SelectorError("selector_malformed", `${shown(part)} is not valid: ${problem}.`, HINT);
}

function unknown(part: string, key: string): SelectorError {
  return new SelectorError(
    "selector_unknown",
    `Devices have no attribute ${shown(key)}: ${shown(part)}.`,
    `Use ${KEYS.join(", ")} or ${LABEL}NAME.`,
  );
}

/** A part of the text for a message: not too long, and without what a screen would not show. */
function shown(text: string): string {
  const signs = [...text];
  const cut = signs.length <= SHOWN ? text : signs.slice(0, SHOWN).join("") + "…";
  return cut.replaceAll(INVISIBLE, (sign) => sign === " " ? " " : `<${codeOf(sign)}>`);
}

function codeOf(sign: string): string {
  return `U+${(sign.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0")}`;
}

/** The order of the database and of Python; the one of JavaScript differs beyond U+FFFF. */
function byCodePoint(one: string, other: string): number {
  const others = [...other];
  for (const [at, sign] of [...one].entries()) {
    const difference = (sign.codePointAt(0) ?? 0) - (others[at]?.codePointAt(0) ?? -1);
    if (difference) return difference;
  }
  return one.length - other.length;
}
