/**
 * Layers: the undelivered bytes of one file, over the content it had. Each flush freezes the top layer (its bytes are
 * then in the journal or in a synced staging file and never change), and the next write begins a new one: so what is
 * delivered is exactly what was flushed, in order, while the program goes on writing.
 */
import { FsError, toFsError } from "../fs/error.ts";
import type { ByteRange } from "../store/extents.ts";
import { Extents } from "../store/extents.ts";
import {
  closeFd,
  O_CREAT,
  O_RDWR,
  openFd,
  preadFd,
  pwriteFd,
  startWriteback,
  syncFd,
  unlinkPath,
} from "../platform/posix.ts";
import { type DescriptorPool, type Reopenable, waitingFiles } from "../platform/open_files.ts";
import type { Journal, JournaledAttr, JournaledData, JournalPlace } from "./journal.ts";

/** Bytes a layer may hold in memory before they move to a staging file. */
const MEMORY_LIMIT = 256 * 1024;
/** Each time so many bytes were added at the end, the disk begins with them: the flush has to wait for what is left. */
const WRITEBACK_BYTES = 16 * 1024 * 1024;

/** Where the next bytes of a range come from. */
export type Source =
  | { readonly kind: "layer"; readonly layer: Layer; readonly start: number; readonly end: number }
  | { readonly kind: "base"; readonly start: number; readonly end: number }
  | { readonly kind: "zero"; readonly start: number; readonly end: number };

export class Layer implements Reopenable {
  /** The staging files of frozen layers that are open. */
  static waiting: DescriptorPool = waitingFiles;
  readonly extents: Extents;
  /** Ranges that read as zeros whatever lies below. Disjoint from `extents`. */
  readonly holes = new Extents();
  /** Bytes of what lies below that stay visible. */
  floor: number;
  /** File size with this layer on top. */
  size: number;
  /** Were zeros put into the file that nobody wrote? */
  sparse = false;
  frozen = false;
  /** The record was given up; the bytes stay for those who have the removed file open. */
  givenUp = false;
  /** Number of the journal record that holds it, once frozen. */
  request = 0;
  #memory: Uint8Array<ArrayBuffer> | null = new Uint8Array(0);
  #memoryStart = 0;
  /** Of the staging file, when it is open: until the layer is frozen, and then while there are descriptors for it. */
  #fd = -1;
  /** The staging file that has all bytes; null: they are in memory, or in the journal. */
  #path: string | null = null;
  /** From here on nothing was said to the disk yet. */
  #unsent = 0;
  #place: JournalPlace | null = null;
  #placeRanges: ByteRange[] = [];
  #journal: Journal | null = null;

  constructor(size: number, floor: number) {
    this.extents = new Extents();
    this.size = size;
    this.floor = floor;
  }

  /** A layer read back from the journal at start. */
  static fromJournal(
    data: Pick<JournaledData, "size" | "floor" | "ranges" | "holes" | "staging">,
    request: number,
    place: JournalPlace,
    journal: Journal,
    stagingFolder: string,
  ): Layer {
    const layer = new Layer(data.size, data.floor);
    for (let i = 0; i + 1 < data.ranges.length; i += 2) layer.extents.add(data.ranges[i] ?? 0, data.ranges[i + 1] ?? 0);
    const { holes = [] } = data;
    for (let i = 0; i + 1 < holes.length; i += 2) layer.holes.add(holes[i] ?? 0, holes[i + 1] ?? 0);
    layer.sparse = holes.length > 0 || !layer.extents.covers(data.floor, data.size);
    layer.#memory = null;
    layer.frozen = true;
    layer.request = request;
    if (data.staging === null) layer.#attach(place, journal);
    else {
      layer.#path = `${stagingFolder}/${data.staging}`;
      void layer.stagingFd;
    }
    return layer;
  }
  #attach(place: JournalPlace, journal: Journal): void {
    this.#place = place;
    this.#journal = journal;
    this.#placeRanges = [...this.extents].slice();
    journal.retain(place.file);
  }

  /** The staging file's name, when the bytes are in one. */
  get staging(): string | null {
    return this.#path === null ? null : this.#path.slice(this.#path.lastIndexOf("/") + 1);
  }
  get stagingPath(): string | null {
    return this.#path;
  }
  /** The staging file's descriptor; it may be closed in the next turn. Throws internal when the file is gone. */
  get stagingFd(): number {
    if (this.#fd < 0) this.#fd = this.#reopen();
    if (this.frozen) Layer.waiting.use(this);
    return this.#fd;
  }
  #reopen(): number {
    const path = this.#path;
    if (path === null) throw new FsError("internal", "the layer has no staging file");
    try {
      return openFd(path, O_RDWR);
    } catch (error) {
      const { code, message } = toFsError(error);
      // Not "not found", which is what a lost content of the server is.
      if (code === "not_found") throw new FsError("internal", `what waits for delivery in ${path} is gone`, { path });
      throw new FsError(code, message, { path, cause: error });
    }
  }
  letGo(): void {
    if (this.#fd >= 0) closeFd(this.#fd);
    this.#fd = -1;
  }

  /** Puts bytes at `offset`; `stage` names a new staging file when they get too many for memory. */
  write(offset: number, data: Uint8Array, stage: () => string): void {
    if (this.#path === null) {
      if (this.#fitsMemory(offset, data.length)) {
        this.#writeMemory(offset, data);
        this.#cover(offset, data.length);
        return;
      }
      this.#spill(stage);
    }
    pwriteFd(this.#fd, data as Uint8Array<ArrayBuffer>, offset);
    this.#cover(offset, data.length);
    if (offset + data.length < this.#unsent + WRITEBACK_BYTES) return;
    startWriteback(this.#fd, this.#unsent);
    this.#unsent = offset + data.length;
  }
  #cover(offset: number, length: number): void {
    if (offset > this.size) this.sparse = true;
    if (!this.holes.isEmpty) this.holes.subtract(offset, offset + length);
    this.extents.add(offset, offset + length);
    if (offset + length > this.size) this.size = offset + length;
  }
  #fitsMemory(offset: number, length: number): boolean {
    if (this.extents.isEmpty) return length <= MEMORY_LIMIT;
    const start = Math.min(this.#memoryStart, offset);
    const end = Math.max(this.extents.end, offset + length);
    return end - start <= MEMORY_LIMIT;
  }
  #writeMemory(offset: number, data: Uint8Array): void {
    if (this.extents.isEmpty) this.#memoryStart = offset;
    let memory = this.#memory ?? new Uint8Array(0);
    const start = Math.min(this.#memoryStart, offset);
    const end = Math.max(this.#memoryStart + memory.length, offset + data.length);
    if (start < this.#memoryStart || end - start > memory.length) {
      const used = end - start;
      const grown = new Uint8Array(start < this.#memoryStart ? used : Math.min(MEMORY_LIMIT, Math.max(used, used * 2)));
      grown.set(memory.subarray(0, Math.min(memory.length, used)), this.#memoryStart - start);
      memory = grown;
      this.#memoryStart = start;
    }
    memory.set(data, offset - start);
    this.#memory = memory;
  }
  #spill(stage: () => string): void {
    const path = stage();
    const fd = openFd(path, O_RDWR | O_CREAT);
    try {
      for (const { start, end } of this.extents) pwriteFd(fd, this.#slice(start, end), start);
    } catch (error) {
      closeFd(fd);
      unlinkPath(path);
      throw error;
    }
    this.#fd = fd;
    this.#path = path;
    this.#memory = null;
  }
  #slice(start: number, end: number): Uint8Array<ArrayBuffer> {
    return (this.#memory ?? new Uint8Array(0)).subarray(start - this.#memoryStart, end - this.#memoryStart);
  }

  /** Cuts or extends (with zeros) the file at this layer. */
  truncate(size: number): void {
    if (size < this.floor) this.floor = size;
    if (size > this.size) this.sparse = true;
    this.extents.truncate(size);
    this.holes.truncate(size);
    if (this.extents.isEmpty && this.#path === null) this.#memory = new Uint8Array(0);
    this.size = size;
  }
  /** Makes [start, end) a hole, as far as the file reaches. */
  punch(start: number, end: number): void {
    const to = Math.min(end, this.size);
    if (start >= to) return;
    this.sparse = true;
    this.extents.subtract(start, to);
    this.holes.add(start, to);
    if (this.extents.isEmpty && this.#path === null) this.#memory = new Uint8Array(0);
  }
  /** Does it change nothing of what lies below? Its size aside. */
  get isUntouched(): boolean {
    return this.extents.isEmpty && this.holes.isEmpty && this.floor === Number.MAX_SAFE_INTEGER;
  }
  /** The ranges whose bytes are not those below: written, or punched. */
  get changed(): Extents {
    if (this.holes.isEmpty) return this.extents;
    const all = this.extents.clone();
    for (const { start, end } of this.holes) all.add(start, end);
    return all;
  }

  /** The pieces to journal, in order; only while they are in memory. */
  pieces(): Uint8Array[] | null {
    if (this.#path !== null) return null;
    return [...this.extents].map(({ start, end }) => this.#slice(start, end));
  }
  /** Puts a staging file's bytes on the disk. */
  async sync(): Promise<void> {
    if (this.#fd >= 0) await syncFd(this.#fd);
  }
  /** The record is in the journal: from now on the bytes are read there, and never change. */
  freeze(request: number, place: JournalPlace, journal: Journal): void {
    this.frozen = true;
    this.request = request;
    if (this.#path === null) {
      this.#attach(place, journal);
      this.#memory = null;
    } else Layer.waiting.use(this);
  }

  /** Fills `into` with the bytes from `start` on, all of which the layer has. */
  read(start: number, into: Uint8Array<ArrayBuffer>): void {
    if (into.length === 0) return;
    if (this.#path !== null) {
      const n = preadFd(this.stagingFd, into, start);
      // A hole at the end of a staging file that was extended with zeros.
      if (n < into.length) into.fill(0, n);
      return;
    }
    if (this.#place !== null) {
      let base = this.#place.dataOffset;
      for (const range of this.#placeRanges) {
        if (start >= range.start && start + into.length <= range.end) {
          if (preadFd(this.#place.file.fd, into, base + start - range.start) < into.length) break;
          return;
        }
        base += range.end - range.start;
      }
      throw new FsError("corrupt", "the journal doesn't hold the bytes it should");
    }
    if (this.#memory === null) throw new FsError("internal", "the layer was delivered meanwhile");
    into.set(this.#slice(start, start + into.length));
  }

  /** The file was delivered or given up. `keepFile`: the staging file has become something else. */
  dispose(keepFile = false): void {
    if (this.#path !== null) {
      Layer.waiting.remove(this);
      this.letGo();
      if (!keepFile) unlinkPath(this.#path);
      this.#path = null;
    }
    if (this.#place !== null) this.#journal?.release(this.#place.file);
    this.#place = null;
    this.#memory = null;
  }
}

/** The layers of one file, oldest first, over its base content. */
export class LayerStack {
  layers: Layer[] = [];
  /** Content below all layers; null: none. */
  base: string | null;
  baseSize: number;
  /** Bytes of the base that are holes. */
  baseHoles: number;
  /** Attributes to be set with the open layer's bytes. */
  attr: JournaledAttr | null = null;
  /** After a restart: the base is what the server has from an earlier record; ask before reading. */
  unresolved = false;

  constructor(base: string | null, baseSize: number, baseHoles = 0) {
    this.base = base;
    this.baseSize = baseSize;
    this.baseHoles = baseHoles;
  }
  /** May there be holes in the file? */
  get sparse(): boolean {
    return this.baseHoles > 0 || this.layers.some((layer) => layer.sparse);
  }
  get size(): number {
    return this.layers.at(-1)?.size ?? this.baseSize;
  }
  get isEmpty(): boolean {
    return this.layers.length === 0;
  }
  /** The layer that takes writes. */
  top(): Layer {
    const last = this.layers.at(-1);
    if (last !== undefined && !last.frozen) return last;
    const layer = new Layer(this.size, Number.MAX_SAFE_INTEGER);
    // An array that is pushed to has room for 17.
    if (this.layers.length === 0) this.layers = [layer];
    else this.layers.push(layer);
    return layer;
  }
  /** The writable layer if there is one. */
  get open(): Layer | null {
    const last = this.layers.at(-1);
    return last !== undefined && !last.frozen ? last : null;
  }

  /**
   * What the lowest `count` layers make of the base: the ranges that are not as in it, and how many of its bytes still
   * show where nothing was changed. What is neither is zeros.
   */
  changes(count: number): { dirty: Extents; baseValid: number } {
    let dirty = new Extents();
    let baseValid = this.baseSize;
    for (const layer of this.layers.slice(0, count)) {
      // What lay above its floor is gone; its own bytes come on top.
      dirty.truncate(layer.floor);
      baseValid = Math.min(baseValid, layer.floor);
      if (dirty.isEmpty) dirty = layer.changed.clone();
      else for (const { start, end } of layer.changed) dirty.add(start, end);
    }
    return { dirty, baseValid };
  }

  /** Where the bytes [start, end) come from, in order; `count`: only the lowest so many layers. */
  sources(start: number, end: number, count = this.layers.length): Source[] {
    const out: Source[] = [];
    // From the top down: what a layer lacks is looked for below it. There may be thousands (a log that is synced line by
    // line while the server is away), so this is a loop.
    let wanted: ByteRange[] = start < end ? [{ start, end }] : [];
    for (let at = count - 1; at >= 0 && wanted.length > 0; at--) {
      const layer = this.layers[at];
      if (layer === undefined) continue;
      const below: ByteRange[] = [];
      const fallThrough = (from: number, to: number) => {
        if (!layer.holes.isEmpty) {
          for (const hole of layer.holes.intersect(from, to)) {
            fallDeeper(from, hole.start);
            out.push({ kind: "zero", start: hole.start, end: hole.end });
            from = hole.end;
          }
        }
        fallDeeper(from, to);
      };
      const fallDeeper = (from: number, to: number) => {
        const cut = Math.min(to, Math.max(from, layer.floor));
        if (from < cut) below.push({ start: from, end: cut });
        if (cut < to) out.push({ kind: "zero", start: cut, end: to });
      };
      for (const range of wanted) {
        let position = range.start;
        for (const covered of layer.extents.intersect(range.start, range.end)) {
          fallThrough(position, covered.start);
          out.push({ kind: "layer", layer, start: covered.start, end: covered.end });
          position = covered.end;
        }
        fallThrough(position, range.end);
      }
      wanted = below;
    }
    for (const range of wanted) {
      const middle = this.base === null ? range.start : Math.min(range.end, Math.max(range.start, this.baseSize));
      if (range.start < middle) out.push({ kind: "base", start: range.start, end: middle });
      if (middle < range.end) out.push({ kind: "zero", start: middle, end: range.end });
    }
    return out.sort((a, b) => a.start - b.start);
  }
}
