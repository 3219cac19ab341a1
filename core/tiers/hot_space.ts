/** HotSpace: keeps room on the hot disk, so that the index can always commit and a full disk harms nothing acknowledged. */
import { FsError } from "../fs/error.ts";
import { statVfsAsync } from "../platform/dir.ts";
import type { Clock } from "../platform/clock.ts";

export interface HotSpaceOptions {
  readonly folder: string;
  /** Bytes that must stay free; null: 256 MiB, but not more than a twentieth of the disk. */
  readonly reserveBytes: number | null;
  /** Tries to free room by letting packs leave. */
  readonly relieve: () => Promise<void>;
  readonly clock: Clock;
  /** Free and total bytes of a folder's disk; a test gives its own. */
  readonly statFs?: (folder: string) => Promise<{ total: number; free: number }>;
}

/** How long a measurement holds, milliseconds, and for how many written bytes. */
const VALID_MS = 2000;
const VALID_BYTES = 64 * 1024 * 1024;
const DEFAULT_RESERVE = 256 * 1024 * 1024;
/** Between two attempts to free room, milliseconds. */
const RELIEVE_INTERVAL = 10_000;

export class HotSpace {
  readonly #o: HotSpaceOptions;
  #free = 0;
  #kept = 0;
  #measuredAt = -Infinity;
  #since = 0;
  #relievedAt = -Infinity;

  constructor(options: HotSpaceOptions) {
    this.#o = options;
  }

  async measure(): Promise<{ total: number; free: number }> {
    const { total, free } = await (this.#o.statFs ?? statVfsAsync)(this.#o.folder);
    this.#free = free;
    this.#kept = this.#o.reserveBytes ?? Math.min(DEFAULT_RESERVE, Math.floor(total / 20));
    this.#measuredAt = this.#o.clock.monotonic();
    this.#since = 0;
    return { total, free };
  }
  /** What may still be written: the reserve is nobody's. */
  async available(): Promise<{ total: number; free: number }> {
    const { total, free } = await this.measure();
    return { total, free: Math.max(0, free - this.#kept) };
  }

  /** Is there room for so many bytes beside the reserve? */
  async hasRoom(bytes: number): Promise<boolean> {
    const old = this.#o.clock.monotonic() - this.#measuredAt > VALID_MS || this.#since > VALID_BYTES;
    if (old || this.#free - this.#since - bytes < 2 * this.#kept) await this.measure();
    return this.#free - this.#since - bytes >= this.#kept;
  }

  /** Notes that so many bytes are about to be written. Throws no_space when the reserve would be touched. */
  async reserve(bytes: number): Promise<void> {
    if (!await this.hasRoom(bytes)) {
      const now = this.#o.clock.monotonic();
      if (now - this.#relievedAt >= RELIEVE_INTERVAL) {
        this.#relievedAt = now;
        await this.#o.relieve();
        await this.measure();
      }
      if (!await this.hasRoom(bytes)) {
        throw new FsError(
          "no_space",
          `the disk of ${this.#o.folder} has ${this.#free} bytes free, and ${this.#kept} of them are kept for ` +
            "the index: free some room there, or configure a colder tier so that data can leave",
          { operation: "write", requested: bytes, usage: this.#free, limit: this.#kept },
        );
      }
    }
    this.#since += bytes;
  }
}
