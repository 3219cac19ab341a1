/** Where each key of a TOML document stands, for error messages: the parser keeps no positions. */

/** A key's place in the document: names, and numbers for the elements of an array of tables. */
export type KeyPath = readonly (string | number)[];

/** Splits `a."b c".d` (TOML 1.0, keys) from the start of `text`; returns the parts and what follows. */
function readKey(text: string): { parts: string[]; rest: string } {
  const parts: string[] = [];
  let rest = text;
  for (;;) {
    const match = /^\s*(?:"((?:[^"\\]|\\.)*)"|'([^']*)'|([A-Za-z0-9_-]+))\s*/.exec(rest);
    if (match === null) return { parts, rest };
    parts.push(match[1] ?? match[2] ?? match[3] ?? "");
    rest = rest.slice(match[0].length);
    if (!rest.startsWith(".")) return { parts, rest };
    rest = rest.slice(1);
  }
}

/** How far a value that begins in this line is still open at its end: inside a multi-line string or array. */
function scanValue(text: string, depth: number, quote: string): { depth: number; quote: string } {
  let i = 0;
  while (i < text.length) {
    if (quote !== "") {
      if (quote.startsWith('"') && text[i] === "\\") i += 2;
      else if (text.startsWith(quote, i)) {
        i += quote.length;
        quote = "";
      } else i++;
      continue;
    }
    const c = text[i] ?? "";
    if (c === "#") break;
    if (c === '"' || c === "'") {
      quote = text.startsWith(c.repeat(3), i) ? c.repeat(3) : c;
      i += quote.length;
      continue;
    }
    if (c === "[" || c === "{") depth++;
    else if (c === "]" || c === "}") depth--;
    i++;
  }
  // One-line strings end with their line, whatever it holds.
  return { depth, quote: quote.length === 3 ? quote : "" };
}

/** Line (from 1) of every table and key, by its path joined with dots. For documents that a parser has accepted. */
export class TomlLines {
  readonly #lines = new Map<string, number>();

  constructor(text: string) {
    const elements = new Map<string, number>();
    let table: (string | number)[] = [];
    let depth = 0;
    let quote = "";
    for (const [i, raw] of text.split("\n").entries()) {
      const line = raw.replace(/\r$/, "");
      if (depth > 0 || quote !== "") {
        ({ depth, quote } = scanValue(line, depth, quote));
        continue;
      }
      const trimmed = line.trim();
      if (trimmed === "" || trimmed.startsWith("#")) continue;
      const header = /^\[(\[?)/.exec(trimmed);
      if (header !== null) {
        const { parts } = readKey(trimmed.slice(header[0].length));
        table = this.#place(parts, elements);
        if (header[1] === "[") {
          const name = table.join(".");
          const index = (elements.get(name) ?? -1) + 1;
          elements.set(name, index);
          this.#note(table, i + 1);
          table = [...table, index];
        }
        this.#note(table, i + 1);
        continue;
      }
      const { parts, rest } = readKey(line);
      this.#note([...table, ...parts], i + 1);
      ({ depth, quote } = scanValue(rest, 0, ""));
    }
  }

  /** `[origins.options]` below `[[origins]]` belongs to its last element. */
  #place(parts: readonly string[], elements: ReadonlyMap<string, number>): (string | number)[] {
    const path: (string | number)[] = [];
    for (const [i, part] of parts.entries()) {
      path.push(part);
      const index = elements.get(path.join("."));
      if (index !== undefined && i < parts.length - 1) path.push(index);
    }
    return path;
  }

  #note(path: KeyPath, line: number): void {
    for (let i = 1; i <= path.length; i++) {
      const name = path.slice(0, i).join(".");
      if (!this.#lines.has(name)) this.#lines.set(name, line);
    }
  }

  /** The line of the key, or of the nearest table around it; 1 when there is none. */
  lineOf(path: KeyPath): number {
    for (let i = path.length; i > 0; i--) {
      const line = this.#lines.get(path.slice(0, i).join("."));
      if (line !== undefined) return line;
    }
    return 1;
  }
}
