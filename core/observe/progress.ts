/** Progress of long work: a line that is redrawn on a terminal, a line every 10 s elsewhere, nothing when quiet. */
import { showDuration, showSize } from "../config/units.ts";
import type { Clock } from "../platform/clock.ts";
import { displayWidth, printable } from "./style.ts";

export interface Progress {
  /** What was done since the last call. */
  add(done: { bytes?: number; files?: number }): void;
  /** What there is to do, as far as it is known by now. */
  expect(total: { bytes?: number; files?: number }): void;
  /** What is being worked on, for example a path. */
  at(item: string): void;
  /** Prints a line without disturbing the progress. */
  note(line: string): void;
  /** Ends it; on a terminal the line goes away. */
  finish(): void;
}

export interface ProgressOptions {
  /** `migrate`, `upload`. */
  readonly label: string;
  readonly clock: Clock;
  /** Gets what is to be printed, on standard error. */
  readonly write: (text: string) => void;
  /** Width of the terminal; null when there is none. */
  readonly columns: number | null;
  /** Nothing is printed but notes: --quiet, --json. */
  readonly quiet?: boolean;
}

/** Redrawn so often on a terminal. */
const REDRAW_MS = 200;
/** Elsewhere a line so often. */
const LINE_MS = 10_000;
/** The rate is that of about the last so many milliseconds. */
const WINDOW_MS = 10_000;

function fit(text: string, columns: number): string {
  if (displayWidth(text) <= columns) return text;
  let out = "";
  for (const c of text) {
    if (displayWidth(out + c) > columns - 1) break;
    out += c;
  }
  return `${out}…`;
}

/** `migrate 1.2G/4.0G 30% 120/400 files 85M/s 34s left /photos/x.jpg`; the parts that are known. */
export function startProgress(options: ProgressOptions): Progress {
  const { clock, write, columns } = options;
  const done = { bytes: 0, files: 0 };
  const total: { bytes: number | null; files: number | null } = { bytes: null, files: null };
  const started = clock.monotonic();
  const samples: { at: number; bytes: number; files: number }[] = [{ at: started, bytes: 0, files: 0 }];
  let item = "";
  let drawn = false;

  const rates = () => {
    const now = clock.monotonic();
    samples.push({ at: now, ...done });
    while (samples.length > 2 && now - (samples[0]?.at ?? now) > WINDOW_MS) samples.shift();
    const first = samples[0];
    const elapsed = first === undefined ? 0 : (now - first.at) / 1000;
    if (first === undefined || elapsed <= 0) return { bytes: 0, files: 0 };
    return { bytes: (done.bytes - first.bytes) / elapsed, files: (done.files - first.files) / elapsed };
  };
  const line = (withItem: boolean): string => {
    const rate = rates();
    const parts = [options.label];
    const share = total.bytes !== null && total.bytes > 0
      ? done.bytes / total.bytes
      : total.files !== null && total.files > 0
      ? done.files / total.files
      : null;
    if (done.bytes > 0 || total.bytes !== null) {
      parts.push(showSize(done.bytes) + (total.bytes === null ? "" : `/${showSize(total.bytes)}`));
    }
    if (share !== null) parts.push(`${Math.min(100, Math.floor(share * 100))}%`);
    if (done.files > 0 || total.files !== null) {
      parts.push(`${done.files}${total.files === null ? "" : `/${total.files}`} files`);
    }
    if (rate.bytes >= 1) parts.push(`${showSize(rate.bytes)}/s`);
    else if (rate.files >= 1) parts.push(`${Math.round(rate.files)} files/s`);
    const left = total.bytes !== null && rate.bytes >= 1
      ? (total.bytes - done.bytes) / rate.bytes
      : total.files !== null && rate.files > 0
      ? (total.files - done.files) / rate.files
      : null;
    if (left !== null && left > 0) parts.push(`${showDuration(Math.max(1000, left * 1000))} left`);
    if (withItem && item !== "") parts.push(printable(item));
    return parts.join(" ");
  };
  const clear = () => {
    if (drawn) write("\r\x1b[K");
    drawn = false;
  };
  const draw = () => {
    if (columns === null) write(`${line(false)}\n`);
    else {
      write(`\r\x1b[K${fit(line(true), columns - 1)}`);
      drawn = true;
    }
  };
  const stop = options.quiet ? () => {} : clock.every(columns === null ? LINE_MS : REDRAW_MS, draw);
  return {
    add({ bytes = 0, files = 0 }) {
      done.bytes += bytes;
      done.files += files;
    },
    expect({ bytes, files }) {
      if (bytes !== undefined) total.bytes = bytes;
      if (files !== undefined) total.files = files;
    },
    at(next) {
      item = next;
    },
    note(text) {
      const again = drawn;
      clear();
      write(`${text}\n`);
      if (again) draw();
    },
    finish() {
      stop();
      clear();
    },
  };
}
