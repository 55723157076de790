/** What the unit tests compare with. */
import { deepStrictEqual, rejects as nodeRejects } from "node:assert";

/** Both are the same value, deeply and by type. */
export function equal<T>(seen: T, expected: T): void {
  deepStrictEqual(seen, expected);
}

/** The promise fails, and its error has these fields. */
export function rejects(promise: Promise<unknown>, expected: object): Promise<void> {
  return nodeRejects(promise, expected);
}
