/** Labels as lines of text: `site=rome`. */

export function labelsText(labels: Readonly<Record<string, string>>): string {
  return Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, value]) =>
    `${name}=${value}`
  ).join("\n");
}

/** A line without an equals sign is a label with an empty value; empty lines are nothing. */
export function labelsFromText(lines: string): Record<string, string> {
  const pairs = lines.split("\n").map((line) => line.trim()).filter(Boolean).map((line) => {
    const at = line.indexOf("=");
    return at < 0 ? [line, ""] : [line.slice(0, at).trim(), line.slice(at + 1).trim()];
  });
  // From entries: a label may be called __proto__.
  return Object.fromEntries(pairs) as Record<string, string>;
}
