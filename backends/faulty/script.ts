/** FaultScript: which calls go wrong and how; written by a test step by step, or drawn from a seed. */
import { FsError, type FsErrorCode, toFsError } from "../../core/fs/error.ts";
import { type Clock, systemClock } from "../../core/platform/clock.ts";

/** What goes wrong. */
export type FaultKind =
  /** Fails; with `after`, only once the work is done: the answer is lost, not the request. */
  | { readonly error: FsErrorCode; readonly after?: boolean }
  /** Takes so much longer; milliseconds. */
  | { readonly delayMs: number }
  /** Never answers, until the caller's signal is aborted or `release` is called. */
  | { readonly hang: true }
  /** A read ends so many bytes early, as if the end were there. */
  | { readonly shortRead: number }
  /** A write stores this share (0..1) of its bytes, visibly, and then fails with `unavailable`. */
  | { readonly tornWrite: number }
  /** One bit of the bytes read, or of the bytes stored, is the other one. */
  | { readonly flipBit: true };

export interface Fault {
  /** Methods it concerns (read, write, get, put ...). @default all */
  readonly operations?: readonly string[];
  /** Paths or keys: all that begin with the text, or match. @default all */
  readonly path?: string | RegExp;
  /** Lets so many matching calls pass first. @default 0 */
  readonly skip?: number;
  /** Ends after so many hits. @default never */
  readonly times?: number;
  /** Share of matching calls that are hit, 0..1. @default 1 */
  readonly probability?: number;
  readonly kind: FaultKind;
}

/** One call that was made. */
export interface Call {
  readonly operation: string;
  readonly path: string;
  /** What was done to it. */
  readonly faults: readonly FaultKind[];
}

interface Active {
  readonly fault: Fault;
  seen: number;
  hits: number;
}

export class FaultScript {
  /** All calls so far, oldest first. */
  readonly calls: Call[] = [];
  readonly #active: Active[] = [];
  readonly #hanging = new Set<() => void>();
  readonly #clock: Clock;
  readonly #unit: () => number;

  /** @param options.seed makes `probability` and the flipped bits repeatable. @default 1 */
  constructor(options: { readonly seed?: number; readonly clock?: Clock } = {}) {
    this.#clock = options.clock ?? systemClock;
    this.#unit = mulberry32(options.seed ?? 1);
  }

  /** From now on; the result ends it. */
  add(fault: Fault): () => void {
    const active = { fault, seen: 0, hits: 0 };
    this.#active.push(active);
    return () => {
      const at = this.#active.indexOf(active);
      if (at >= 0) this.#active.splice(at, 1);
    };
  }
  /** Everything works again; calls that hang fail with `unavailable`. */
  clear(): void {
    this.#active.length = 0;
    this.release();
  }
  /** Calls that hang fail with `unavailable`. */
  release(): void {
    for (const end of this.#hanging) end();
  }
  /** Calls that hang now. */
  get hanging(): number {
    return this.#hanging.size;
  }

  #draw(operation: string, path: string): FaultKind[] {
    const kinds: FaultKind[] = [];
    for (const active of this.#active) {
      const { operations, path: pattern, skip = 0, times = Infinity, probability = 1 } = active.fault;
      if (operations !== undefined && !operations.includes(operation)) continue;
      if (typeof pattern === "string" ? !path.startsWith(pattern) : pattern?.test(path) === false) continue;
      if (active.seen++ < skip || active.hits >= times) continue;
      if (probability < 1 && this.#unit() >= probability) continue;
      active.hits++;
      kinds.push(active.fault.kind);
    }
    return kinds;
  }

  /**
   * Runs one call under the script. `work` gets what it has to do to the bytes; delays, hangs and errors happen here.
   */
  async run<T>(
    operation: string,
    path: string,
    signal: AbortSignal | undefined,
    work: (bytes: ByteFaults) => Promise<T>,
  ): Promise<T> {
    const faults = this.#draw(operation, path);
    this.calls.push({ operation, path, faults });
    const fail = (code: FsErrorCode) => {
      throw new FsError(code, `${operation} ${path}: ${code} (made up by the test)`, { operation, path });
    };
    for (const kind of faults) {
      if ("delayMs" in kind) await this.#clock.sleep(kind.delayMs, signal).catch((reason) => fail(codeOf(reason)));
      if ("hang" in kind) await this.#hang(operation, path, signal);
      if ("error" in kind && kind.after !== true) fail(kind.error);
    }
    const result = await work(this.#bytes(faults));
    for (const kind of faults) if ("error" in kind && kind.after === true) fail(kind.error);
    return result;
  }

  #hang(operation: string, path: string, signal: AbortSignal | undefined): Promise<never> {
    return new Promise((_, reject) => {
      const end = (reason: unknown) => {
        this.#hanging.delete(release);
        signal?.removeEventListener("abort", onAbort);
        reject(toFsError(reason, { operation, path }));
      };
      const onAbort = () => end(signal?.reason);
      const release = () =>
        end(new FsError("unavailable", `${operation} ${path}: the connection was closed`, { path }));
      this.#hanging.add(release);
      signal?.addEventListener("abort", onAbort, { once: true });
      if (signal?.aborted) onAbort();
    });
  }

  #bytes(faults: readonly FaultKind[]): ByteFaults {
    let short = 0;
    let torn: number | undefined;
    let flip = false;
    for (const kind of faults) {
      if ("shortRead" in kind) short += kind.shortRead;
      if ("tornWrite" in kind) torn = kind.tornWrite;
      if ("flipBit" in kind) flip = true;
    }
    const flipped = (bytes: Uint8Array<ArrayBuffer>) => {
      if (!flip || bytes.length === 0) return bytes;
      flip = false;
      const out = bytes.slice();
      const at = Math.floor(this.#unit() * out.length);
      out[at] = (out[at] ?? 0) ^ (1 << Math.floor(this.#unit() * 8));
      return out;
    };
    return { short, torn, flips: flip, flipped };
  }
}

/** What the script does to the bytes of one call. */
export interface ByteFaults {
  /** Bytes that a read loses at its end. */
  readonly short: number;
  /** Share of the bytes that a write stores before it fails; undefined: it works. */
  readonly torn: number | undefined;
  readonly flips: boolean;
  /** The bytes with one bit flipped, once; or as they are. */
  flipped(bytes: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer>;
}

function codeOf(reason: unknown): FsErrorCode {
  return toFsError(reason).code;
}

/** mulberry32 (Tommy Ettinger, public domain): a small seeded generator, for repeatable tests only. */
export function mulberry32(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}
