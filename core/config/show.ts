/** The configuration as `anyfs config show` gives it: what holds, with anything that could be a secret hidden. */
import type { Config } from "./config.ts";
import { printDuration, printRate, printSize } from "./units.ts";

/** What stands where a secret was. */
export const HIDDEN = "(hidden)";

const SECRET_NAME = /pass|secret|token|key|credential|auth/i;
/** Names that only tell where a secret is. */
const PLACE_NAME = /(file|env|hosts|path)$/i;

/** A copy without secrets: in plugin options by their names, and in URLs between `//` and `@`. */
export function redact(value: unknown, name = ""): unknown {
  if (typeof value === "string") {
    if (SECRET_NAME.test(name) && !PLACE_NAME.test(name)) return HIDDEN;
    return value.replace(/\/\/[^/\s@]*@/g, `//${HIDDEN}@`);
  }
  if (Array.isArray(value)) return value.map((item) => redact(item, name));
  if (typeof value === "object" && value !== null) {
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, redact(inner, key)]));
  }
  return typeof value !== "boolean" && value !== null && SECRET_NAME.test(name) && !PLACE_NAME.test(name)
    ? HIDDEN
    : value;
}

function printed(name: string, value: unknown): string {
  if (value === null) return "-";
  if (typeof value === "number") {
    if (/Ms$/.test(name)) return printDuration(value);
    if (name === "bandwidth") return printRate(value);
    if (/(Bytes|[sS]ize|^high|^low)$/.test(name)) return printSize(value);
  }
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

/** Rows of dotted name and value. */
export function configRows(config: Config): [name: string, value: string][] {
  const rows: [string, string][] = [];
  const visit = (path: string, name: string, value: unknown) => {
    const flat = Array.isArray(value) ? value.length === 0 : typeof value !== "object" || value === null;
    if (flat || path === "daemon.listen" || Object.keys(Object(value)).length === 0) {
      const listen = config.daemon.listen;
      rows.push([
        path,
        path === "daemon.listen"
          ? `${listen.hostname}:${listen.port}`
          : printed(name, flat && Array.isArray(value) ? null : value),
      ]);
      return;
    }
    for (const [key, inner] of Object.entries(Object(value))) visit(path === "" ? key : `${path}.${key}`, key, inner);
  };
  visit("", "", redact(config));
  return rows;
}
