/** Sizes, times and rates as people write them: `10M`, `1.5G`, `200GiB`, `30s`, `5m`, `7d`, `20M` (bytes a second). */
import { FsError } from "../fs/error.ts";

/** Powers of 1024, as df, rclone and restic read them; `KB`, `MB`, ... are powers of 1000 (SI). */
const LETTERS = ["", "k", "m", "g", "t", "p"];

/**
 * Bytes of `10M`, `1.5G`, `200GiB`, `64KB`, `0`, `4096`. A letter alone and with `iB` is a power of 1024, with `B` one of
 * 1000; a plain number is bytes. Throws `invalid_input` for anything else, for fractions of a byte it rounds down, and for
 * more than 2^53 - 1.
 */
export function parseSize(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*(?:([kmgtp])(i?b)?|b)?$/i.exec(text.trim());
  if (match === null) {
    throw new FsError("invalid_input", `${JSON.stringify(text)} is not a size; write for example 10M, 1.5G or 200GiB`);
  }
  const power = LETTERS.indexOf((match[2] ?? "").toLowerCase());
  const base = match[3]?.toLowerCase() === "b" ? 1000 : 1024;
  const bytes = Math.floor(Number(match[1]) * base ** power);
  if (!Number.isSafeInteger(bytes)) {
    throw new FsError("invalid_input", `${JSON.stringify(text)} is too large; the largest size is 8191T`);
  }
  return bytes;
}

/** The shortest text that `parseSize` reads as exactly these bytes, with a power of 1024 where it divides: `10M`, `1536K`. */
export function printSize(bytes: number): string {
  let power = 0;
  let value = bytes;
  while (value !== 0 && value % 1024 === 0 && power < LETTERS.length - 1) {
    value /= 1024;
    power++;
  }
  return `${value}${(LETTERS[power] ?? "").toUpperCase()}`;
}

/** Rounded for people: at most four digits, `1.5G`, `932M`, `12B`. */
export function showSize(bytes: number): string {
  let power = 0;
  let value = bytes;
  while (Math.abs(value) >= 1023.5 && power < LETTERS.length - 1) {
    value /= 1024;
    power++;
  }
  if (power === 0) return `${Math.round(value)}B`;
  const digits = Math.abs(value) < 9.95 ? value.toFixed(1) : String(Math.round(value));
  return `${digits.replace(/\.0$/, "")}${(LETTERS[power] ?? "").toUpperCase()}`;
}

const MILLISECONDS: { readonly [unit: string]: number } = {
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
  w: 604_800_000,
  y: 31_536_000_000,
};

/**
 * Milliseconds of `30s`, `5m`, `1h30m`, `7d`, `250ms`, `1.5h`, `0`. A year is 365 days. Throws `invalid_input` for anything
 * else, also for a number without a unit: seconds or milliseconds is not to be guessed.
 */
export function parseDuration(text: string): number {
  const trimmed = text.trim().toLowerCase();
  if (trimmed === "0") return 0;
  const whole = /^(?:\d+(?:\.\d+)?(?:ms|[smhdwy]))+$/.test(trimmed);
  let total = 0;
  for (const match of trimmed.matchAll(/(\d+(?:\.\d+)?)(ms|[smhdwy])/g)) {
    total += Number(match[1]) * (MILLISECONDS[match[2] ?? ""] ?? Number.NaN);
  }
  if (!whole || !Number.isSafeInteger(Math.round(total))) {
    throw new FsError("invalid_input", `${JSON.stringify(text)} is not a time; write for example 30s, 5m, 1h30m or 7d`);
  }
  return Math.round(total);
}

/** The shortest text with whole units that `parseDuration` reads as exactly these milliseconds: `90s` is `1m30s`. */
export function printDuration(milliseconds: number): string {
  if (milliseconds === 0) return "0s";
  let rest = Math.round(milliseconds);
  let text = "";
  for (const unit of ["d", "h", "m", "s", "ms"]) {
    const size = MILLISECONDS[unit] ?? 1;
    const count = Math.floor(rest / size);
    if (count > 0) text += `${count}${unit}`;
    rest -= count * size;
  }
  return text;
}

/** Rounded for people: the two largest units, `3m12s`, `2d4h`, `450ms`. */
export function showDuration(milliseconds: number): string {
  if (milliseconds < 1000) return `${Math.round(milliseconds)}ms`;
  const parts = printDuration(Math.round(milliseconds / 1000) * 1000).match(/\d+[a-z]+/g) ?? [];
  return parts.slice(0, 2).join("");
}

/** Bytes a second of `20M`, `20M/s`, `1.5MB/s`; 0 or `off` is no limit (null). Throws `invalid_input`. */
export function parseRate(text: string): number | null {
  const trimmed = text.trim().toLowerCase();
  if (trimmed === "off" || trimmed === "unlimited") return null;
  try {
    const bytes = parseSize(trimmed.replace(/\/s$/, ""));
    return bytes === 0 ? null : bytes;
  } catch (cause) {
    const message = `${JSON.stringify(text)} is not a rate; write for example 10M (bytes a second) or off`;
    throw new FsError("invalid_input", message, { cause });
  }
}

/** The inverse of `parseRate`. */
export function printRate(bytesPerSecond: number | null): string {
  return bytesPerSecond === null ? "off" : printSize(bytesPerSecond);
}
