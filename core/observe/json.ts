/** JSON for programs that read our output. */

/** bigint as a number where it is exact, else as text; everything else as JSON.stringify does it. */
function replace(_key: string, value: unknown): unknown {
  if (typeof value !== "bigint") return value;
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : String(value);
}

/** One indented document with a newline. */
export function jsonDocument(value: unknown): string {
  return `${JSON.stringify(value, replace, 2)}\n`;
}

/** One line of a stream of documents (jsonlines.org). */
export function jsonLine(value: unknown): string {
  return `${JSON.stringify(value, replace)}\n`;
}
