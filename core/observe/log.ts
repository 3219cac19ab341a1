/** Log lines on standard error, as text or JSON, with fields that child loggers inherit. */
import { printable } from "./style.ts";

export const LEVELS = ["trace", "debug", "info", "warn", "error"] as const;
export type Level = (typeof LEVELS)[number];
export type Fields = Readonly<Record<string, unknown>>;

export interface Logger {
  trace(message: string, fields?: Fields): void;
  debug(message: string, fields?: Fields): void;
  info(message: string, fields?: Fields): void;
  warn(message: string, fields?: Fields): void;
  error(message: string, fields?: Fields): void;
  /** Would a message of this level be written? Before costly fields are made. */
  enabled(level: Level): boolean;
  /** A logger that adds these fields to every message. */
  child(fields: Fields): Logger;
}

export interface LogOptions {
  /** @default "info" */
  readonly level?: Level;
  /** @default "text" */
  readonly format?: "text" | "json";
  /** Milliseconds since 1970. */
  readonly now: () => number;
  /** Gets whole lines, with their newline. */
  readonly write: (line: string) => void;
}

/** What an Error has to say; FsError's code and its cause too. */
function plain(value: unknown): unknown {
  if (!(value instanceof Error)) return typeof value === "bigint" ? String(value) : value;
  return {
    message: value.message,
    ...("code" in value ? { code: value.code } : {}),
    ...(value.cause === undefined ? {} : { cause: value.cause instanceof Error ? value.cause.message : value.cause }),
  };
}

function asText(value: unknown): string {
  if (value instanceof Error) return JSON.stringify(value.message);
  if (typeof value === "string") return /^[\w./:@%+-]+$/.test(value) ? value : JSON.stringify(value);
  return typeof value === "object" && value !== null ? JSON.stringify(value, (_, v) => plain(v)) : String(value);
}

/** Text: `2024-05-01T12:00:00.000Z warn  message key=value`. JSON: `{"time","level","message",...fields}`, one a line. */
export function createLogger(options: LogOptions): Logger {
  const least = LEVELS.indexOf(options.level ?? "info");
  const make = (own: Fields): Logger => {
    const at = (level: Level) => (message: string, fields?: Fields) => {
      if (LEVELS.indexOf(level) < least) return;
      const all = { ...own, ...fields };
      const time = new Date(options.now()).toISOString();
      if (options.format === "json") {
        const record = { ...all, time, level, message };
        options.write(`${JSON.stringify(record, (_, value) => plain(value))}\n`);
      } else {
        const pairs = Object.entries(all).map(([key, value]) => ` ${key}=${printable(asText(value))}`).join("");
        options.write(`${time} ${level.padEnd(5)} ${printable(message)}${pairs}\n`);
      }
    };
    return {
      trace: at("trace"),
      debug: at("debug"),
      info: at("info"),
      warn: at("warn"),
      error: at("error"),
      enabled: (level) => LEVELS.indexOf(level) >= least,
      child: (fields) => make({ ...own, ...fields }),
    };
  };
  return make({});
}

/** A logger that says nothing. */
export const silentLogger: Logger = createLogger({ level: "error", now: () => 0, write: () => {} });
