/** How many files the process may have open, and the descriptors that it keeps only so that a file need not be opened again. */
import { fileLimit, setFileLimit } from "./posix.ts";

/**
 * Lets the process have as many files open as the system allows it (setrlimit(2), RLIMIT_NOFILE): shells begin programs with
 * a soft limit of 1024 for those that call select(2). To be called once, at the start.
 */
export function raiseOpenFileLimit(): void {
  const { soft, hard } = fileLimit();
  if (soft < hard) setFileLimit({ soft: hard, hard });
}

/** What has a file open and can open it again. */
export interface Reopenable {
  /** Closes the file; the next use opens it again. */
  letGo(): void;
}

/** The files used last stay open, so many; the others are let go of. */
export class DescriptorPool {
  readonly #limit: () => number;
  /** The one used longest ago first. */
  readonly #open = new Set<Reopenable>();
  #last: Reopenable | null = null;

  /** `limit` is asked each time a file is added. */
  constructor(limit: () => number) {
    this.#limit = limit;
  }
  get size(): number {
    return this.#open.size;
  }
  /** The file is open and about to be used. Another one may be let go of. */
  use(file: Reopenable): void {
    if (file === this.#last) return;
    this.#last = file;
    const known = this.#open.delete(file);
    this.#open.add(file);
    if (known || this.#open.size <= this.#limit()) return;
    for (const oldest of this.#open) {
      if (oldest === file) return;
      this.#open.delete(oldest);
      oldest.letGo();
      if (this.#open.size <= this.#limit()) return;
    }
  }
  /** It is closed, or kept open for another reason. */
  remove(file: Reopenable): void {
    this.#open.delete(file);
    if (this.#last === file) this.#last = null;
  }
}

/** Each open file takes a KiB or two of the kernel's memory. */
const MOST_WAITING = 4096;
let limit = 0;
/** For files with bytes that wait for delivery: half of what may be open, the rest is for what programs work with. */
export const waitingFiles = new DescriptorPool(
  () => limit ||= Math.max(1, Math.min(MOST_WAITING, Math.floor(fileLimit().soft / 2))),
);
