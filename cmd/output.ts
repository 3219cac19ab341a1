/** What a command prints: data on standard output, as text or with --json, and remarks on standard error. */
import { jsonDocument, jsonLine } from "../core/observe/json.ts";
import { type Style, styleFor } from "../core/observe/style.ts";
import { type Column, renderTable } from "../core/observe/table.ts";
import { getEnv, isTerminal, print } from "../core/platform/process.ts";

export interface Output {
  readonly json: boolean;
  readonly quiet: boolean;
  /** For standard output. */
  readonly style: Style;
  /** Text as it is, on standard output. */
  text(text: string): void;
  /** The result: `value` as one JSON document with --json, else the text. */
  data(value: unknown, text: () => string): void;
  /** One of a stream of results: a JSON line with --json, else the text and a newline. */
  item(value: unknown, text: () => string): void;
  /** Aligned columns; with --json the objects instead. */
  table<T>(items: readonly T[], columns: readonly Column[], row: (item: T) => readonly string[]): void;
  /** A remark on standard error; silent with --quiet. */
  remark(text: string): void;
  /** An item that failed: on standard error, always. */
  failure(text: string): void;
}

export function createOutput(options: { json: boolean; quiet: boolean }): Output {
  const { json, quiet } = options;
  const style = styleFor(isTerminal("stdout"), getEnv);
  const text = (what: string) => print("stdout", what);
  return {
    json,
    quiet,
    style,
    text,
    data: (value, human) => text(json ? jsonDocument(value) : human()),
    item: (value, human) => text(json ? jsonLine(value) : `${human()}\n`),
    table(items, columns, row) {
      if (json) text(jsonDocument(items));
      else if (items.length > 0) text(renderTable(columns, items.map(row), { style }));
    },
    remark(what) {
      if (!quiet) print("stderr", `${what}\n`);
    },
    failure: (what) => print("stderr", `anyfs: ${what}\n`),
  };
}
