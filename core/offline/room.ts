/**
 * Room: the client's disk, watched. A part of it is held in reserve, so that what has to be written on a full disk (the
 * replica's transaction, marks of delivery, removals) still can be, while new bytes are refused with ENOSPC. SQLite rolls a
 * transaction back by itself when its disk is full (sqlite3VdbeHalt), so that must not happen at all.
 */
import { FsError } from "../fs/error.ts";
import type { Clock } from "../platform/clock.ts";
import { closeFd, fallocateFd, ftruncateFd, O_CREAT, O_RDWR, openFd, statVfs } from "../platform/posix.ts";

/** Bytes held in reserve. */
const RESERVE = 8 * 1024 * 1024;
/** With less than so many bytes free (the reserve apart) new bytes are refused. */
const SHORT = 1024 * 1024;
/** A look at the disk is good for so long, milliseconds. */
const FRESH_MS = 50;

export class Room {
  readonly #folder: string;
  readonly #clock: Clock;
  readonly #log: (message: string) => void;
  #held = 0;
  #given = false;
  #lookedAt = -Infinity;
  #free = Infinity;

  constructor(folder: string, clock: Clock, log: (message: string) => void = () => {}) {
    this.#folder = folder;
    this.#clock = clock;
    this.#log = log;
    this.refill();
  }

  #look(): number {
    const now = this.#clock.monotonic();
    if (now - this.#lookedAt < FRESH_MS) return this.#free;
    this.#lookedAt = now;
    try {
      this.#free = statVfs(this.#folder).free;
    } catch {
      // The folder is gone: another's concern.
      this.#free = Infinity;
    }
    return this.#free;
  }

  /** Throws no_space when the client's disk has no room for new bytes. */
  need(bytes: number): void {
    // The reserve is for others. Once given away it has to come back first.
    if (this.#look() >= SHORT + bytes + (this.#given ? RESERVE : 0)) return;
    throw new FsError("no_space", `the disk of ${this.#folder} is full: free some room there`, {
      path: this.#folder,
      usage: this.#free,
      requested: bytes,
    });
  }

  /** Before something that must not fail is written: gives the reserve away when the disk is full. */
  release(): void {
    if (this.#held === 0 || this.#look() >= SHORT) return;
    this.#resize(0);
    this.#given = true;
    this.#log(`the disk of ${this.#folder} is full: programs are told so until there is room again`);
  }

  /** Takes the reserve (again) when there is room for it. To be called now and then. */
  refill(): void {
    if (this.#held === RESERVE || this.#look() < RESERVE + 2 * SHORT) return;
    this.#resize(RESERVE);
    if (this.#held > 0) this.#given = false;
  }

  #resize(bytes: number): void {
    try {
      const fd = openFd(`${this.#folder}/reserve`, O_RDWR | O_CREAT);
      try {
        ftruncateFd(fd, bytes);
        if (bytes > 0) fallocateFd(fd, 0, 0, bytes);
        this.#held = bytes;
      } finally {
        closeFd(fd);
      }
    } catch {
      // Without a reserve a full disk is met where it is met.
      this.#held = 0;
    }
    this.#lookedAt = -Infinity;
  }
}
