/**
 * The pack: an immutable object that holds chunks back to back with a table of contents at its end. While it is being
 * written every chunk is preceded by a record, so that what a crash leaves can be read up to the first torn record.
 * The bytes are described in docs/format.md.
 */
import { crc32 } from "node:zlib";
import { FsError } from "../fs/error.ts";
import { MAX_CHUNK } from "./chunker.ts";
import { FLAG_RAW, FLAG_ZSTD, type PackedChunk, unpackChunk } from "./codec.ts";
import { HASH_LENGTH, hex, sameBytes, sha256 } from "./hash.ts";

export { FLAG_RAW, FLAG_ZSTD, packChunk, type PackedChunk, unpackChunk, verifyChunk } from "./codec.ts";

/**
 * Where the chunks are: "records" is the layout this module writes; "bare" is a file of user data that was adopted as
 * a pack by appending a tail to it: no header, no records, uncompressed chunks from byte 0.
 */
export type PackLayout = "records" | "bare";

/** One chunk in a pack. `offset` is where its stored bytes begin; all in bytes. */
export interface PackEntry {
  readonly hash: Uint8Array;
  readonly offset: number;
  readonly storedLength: number;
  readonly rawLength: number;
  readonly flags: number;
}

/** A pack's table of contents. */
export interface PackToc {
  /** Hexadecimal SHA-256 of the TOC: the name of the pack. */
  readonly name: string;
  readonly layout: PackLayout;
  /** By ascending offset. */
  readonly entries: readonly PackEntry[];
  /** Where the TOC begins, that is, where the chunks end. */
  readonly tocOffset: number;
}

/** Reads exactly `length` bytes at `offset` of the pack. */
export type ReadAt = (offset: number, length: number) => Promise<Uint8Array>;

/** Bytes of the header; the first record begins here. */
export const CHUNK_DATA_START = 16;
/** Bytes of a record's header; the stored bytes of the chunk follow. */
export const RECORD_HEADER_LENGTH = 56;
/** Bytes of the TOC before its first entry. */
export const TOC_PRELUDE_LENGTH = 8;
export const TOC_ENTRY_LENGTH = 49;
export const FOOTER_LENGTH = 60;
export const PACK_VERSION = 1;

const PACK_MAGIC = latin1("AFSPACK1");
const RECORD_MAGIC = latin1("AFSR");
const FOOTER_MAGIC = latin1("AFSPEND1");
/** What `readToc` reads at first: the TOC of a pack of up to 1300 chunks in one request. */
const TAIL_READ = 64 * 1024;
/** What `scanOpenPack` and `verifyPack` read at a time. */
const SCAN_READ = 4 * 1024 * 1024;

function latin1(text: string): Uint8Array {
  return Uint8Array.from(text, (letter) => letter.charCodeAt(0));
}

function corrupt(what: string): FsError {
  return new FsError("corrupt", `${what}; fetch the pack from another tier`);
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function hasAt(bytes: Uint8Array, at: number, magic: Uint8Array): boolean {
  return sameBytes(bytes.subarray(at, at + magic.length), magic);
}

/** The first CHUNK_DATA_START bytes of a pack. */
export function encodeHeader(): Uint8Array<ArrayBuffer> {
  const header = new Uint8Array(CHUNK_DATA_START);
  header.set(PACK_MAGIC);
  header[8] = PACK_VERSION;
  return header;
}

/** The RECORD_HEADER_LENGTH bytes before a chunk's stored bytes. */
export function encodeRecordHeader(hash: Uint8Array, packed: PackedChunk): Uint8Array<ArrayBuffer> {
  const header = new Uint8Array(RECORD_HEADER_LENGTH);
  const view = viewOf(header);
  header.set(RECORD_MAGIC);
  header.set(hash, 4);
  view.setUint32(36, packed.stored.length, true);
  view.setUint32(40, packed.rawLength, true);
  header[44] = packed.flags;
  view.setUint32(48, crc32(packed.stored), true);
  view.setUint32(52, crc32(header.subarray(0, 52)), true);
  return header;
}

interface RecordHeader {
  readonly hash: Uint8Array<ArrayBuffer>;
  readonly storedLength: number;
  readonly rawLength: number;
  readonly flags: number;
  readonly crc: number;
}

/** Undefined when the bytes are no whole, intact record header. */
function decodeRecordHeader(bytes: Uint8Array): RecordHeader | undefined {
  if (bytes.length < RECORD_HEADER_LENGTH || !hasAt(bytes, 0, RECORD_MAGIC)) return undefined;
  const view = viewOf(bytes);
  if (crc32(bytes.subarray(0, 52)) !== view.getUint32(52, true)) return undefined;
  const header = {
    hash: bytes.slice(4, 36),
    storedLength: view.getUint32(36, true),
    rawLength: view.getUint32(40, true),
    flags: view.getUint8(44),
    crc: view.getUint32(48, true),
  };
  return possibleLengths(header) ? header : undefined;
}

function possibleLengths({ storedLength, rawLength, flags }: Omit<PackEntry, "hash" | "offset">): boolean {
  if (rawLength < 1 || rawLength > MAX_CHUNK || storedLength < 1 || storedLength > rawLength) return false;
  return flags === FLAG_ZSTD || (flags === FLAG_RAW && storedLength === rawLength);
}

/** Collects what is in a pack while it is written, and ends it. */
export class PackTocBuilder {
  readonly layout: PackLayout;
  readonly #entries: PackEntry[] = [];
  #position: number;

  constructor(layout: PackLayout = "records") {
    this.layout = layout;
    this.#position = layout === "records" ? CHUNK_DATA_START : 0;
  }

  /** Where the next record begins (layout "bare": where the last chunk ends). */
  get position(): number {
    return this.#position;
  }

  get entries(): readonly PackEntry[] {
    return this.#entries;
  }

  /** Notes a chunk whose stored bytes begin at `offset`. Chunks come by ascending offset. Throws invalid_input. */
  add(hash: Uint8Array, offset: number, storedLength: number, rawLength: number, flags: number): void {
    const entry = { hash, offset, storedLength, rawLength, flags };
    const earliest = this.#position + (this.layout === "records" ? RECORD_HEADER_LENGTH : 0);
    const fits = this.layout === "records" ? offset === earliest : offset >= earliest && flags === FLAG_RAW;
    if (hash.length !== HASH_LENGTH || !possibleLengths(entry) || !fits) {
      throw new FsError(
        "invalid_input",
        `chunk ${
          hex(hash)
        } (${storedLength} of ${rawLength} bytes, flags ${flags}) can't be at offset ${offset} of a pack`,
      );
    }
    this.#entries.push(entry);
    this.#position = offset + storedLength;
  }

  /**
   * Notes a chunk at the current position and returns what to write there: the record's header, then the chunk's
   * stored bytes; `offset` is where the latter begin.
   */
  append(hash: Uint8Array, packed: PackedChunk): { header: Uint8Array<ArrayBuffer>; offset: number } {
    const offset = this.#position + RECORD_HEADER_LENGTH;
    this.add(hash, offset, packed.stored.length, packed.rawLength, packed.flags);
    return { header: encodeRecordHeader(hash, packed), offset };
  }

  /**
   * The bytes to append at `end` to complete the pack, and its name. `end` is the position by default; an adopted file
   * (layout "bare") may go on behind its last chunk, then `end` is its size.
   */
  finish(end: number = this.#position): { tail: Uint8Array<ArrayBuffer>; name: string } {
    if (end !== this.#position && (this.layout === "records" || end < this.#position)) {
      throw new FsError("invalid_input", `a pack whose chunks end at ${this.#position} can't have its tail at ${end}`);
    }
    const tocLength = TOC_PRELUDE_LENGTH + this.#entries.length * TOC_ENTRY_LENGTH;
    const tail = new Uint8Array(tocLength + FOOTER_LENGTH);
    const view = viewOf(tail);
    tail[0] = this.layout === "bare" ? 1 : 0;
    let at = TOC_PRELUDE_LENGTH;
    for (const entry of this.#entries) {
      tail.set(entry.hash, at);
      view.setBigUint64(at + 32, BigInt(entry.offset), true);
      view.setUint32(at + 40, entry.storedLength, true);
      view.setUint32(at + 44, entry.rawLength, true);
      tail[at + 48] = entry.flags;
      at += TOC_ENTRY_LENGTH;
    }
    const name = sha256(tail.subarray(0, tocLength));
    view.setBigUint64(at, BigInt(end), true);
    view.setUint32(at + 8, this.#entries.length, true);
    tail.set(name, at + 16);
    view.setUint32(at + 48, crc32(tail.subarray(at, at + 48)), true);
    tail.set(FOOTER_MAGIC, at + 52);
    return { tail, name: hex(name) };
  }
}

async function readExactly(readAt: ReadAt, offset: number, length: number): Promise<Uint8Array> {
  const bytes = await readAt(offset, length);
  if (bytes.length === length) return bytes;
  throw corrupt(`a pack has ${bytes.length} bytes at ${offset} where ${length} were expected`);
}

/**
 * The table of contents of a complete pack of `size` bytes. Reads the tail only (one read for up to 1300 chunks) and
 * checks it; the chunks and their records are not looked at. Throws corrupt, also for a pack without a tail.
 */
export async function readToc(readAt: ReadAt, size: number): Promise<PackToc> {
  if (size < FOOTER_LENGTH + TOC_PRELUDE_LENGTH) throw corrupt(`a pack of ${size} bytes is too short`);
  const tailStart = Math.max(0, size - TAIL_READ);
  const tail = await readExactly(readAt, tailStart, size - tailStart);
  const footer = tail.subarray(tail.length - FOOTER_LENGTH);
  const view = viewOf(footer);
  if (!hasAt(footer, 52, FOOTER_MAGIC) || crc32(footer.subarray(0, 48)) !== view.getUint32(48, true)) {
    throw corrupt("a pack has no intact footer: it is unfinished or cut off");
  }
  const count = view.getUint32(8, true);
  const tocLength = TOC_PRELUDE_LENGTH + count * TOC_ENTRY_LENGTH;
  const tocOffset = size - FOOTER_LENGTH - tocLength;
  if (view.getBigUint64(0, true) !== BigInt(tocOffset) || view.getUint32(12, true) !== 0) {
    throw corrupt(`a pack of ${size} bytes does not have the size its footer says`);
  }
  const toc = tocOffset >= tailStart
    ? tail.subarray(tocOffset - tailStart, tail.length - FOOTER_LENGTH)
    : await readExactly(readAt, tocOffset, tocLength);
  if (!sameBytes(sha256(toc), footer.subarray(16, 48))) throw corrupt("a pack's table of contents is damaged");
  return { name: hex(footer.subarray(16, 48)), tocOffset, ...decodeToc(toc, count, tocOffset) };
}

function decodeToc(toc: Uint8Array, count: number, tocOffset: number): Pick<PackToc, "layout" | "entries"> {
  const layout = toc[0] === 0 ? "records" : "bare";
  if ((toc[0] ?? 255) > 1 || toc.subarray(1, TOC_PRELUDE_LENGTH).some((byte) => byte !== 0)) {
    throw corrupt("a pack has a layout that this program does not know");
  }
  const gap = layout === "records" ? RECORD_HEADER_LENGTH : 0;
  const view = viewOf(toc);
  const entries: PackEntry[] = [];
  let end = layout === "records" ? CHUNK_DATA_START : 0;
  for (let i = 0; i < count; i++) {
    const at = TOC_PRELUDE_LENGTH + i * TOC_ENTRY_LENGTH;
    const entry = {
      hash: toc.subarray(at, at + HASH_LENGTH),
      offset: Number(view.getBigUint64(at + 32, true)),
      storedLength: view.getUint32(at + 40, true),
      rawLength: view.getUint32(at + 44, true),
      flags: view.getUint8(at + 48),
    };
    const placed = layout === "records" ? entry.offset === end + gap : entry.offset >= end;
    if (!placed || !possibleLengths(entry) || entry.offset + entry.storedLength > tocOffset) {
      throw corrupt(`a pack's table of contents has an impossible entry for chunk ${hex(entry.hash)}`);
    }
    end = entry.offset + entry.storedLength;
    entries.push(entry);
  }
  if (layout === "records" && end !== tocOffset) throw corrupt("a pack has bytes that belong to no chunk");
  return { layout, entries };
}

/** Sequential reads of a pack through a window, so that small reads do not each cost a request. */
class Window {
  readonly #readAt: ReadAt;
  readonly #end: number;
  #start = 0;
  #bytes: Uint8Array = new Uint8Array(0);

  constructor(readAt: ReadAt, end: number) {
    this.#readAt = readAt;
    this.#end = end;
  }

  /** The bytes of [offset, offset + length), fewer at the end; valid until the next call. */
  async at(offset: number, length: number): Promise<Uint8Array> {
    const stop = Math.min(offset + length, this.#end);
    if (stop <= offset) return new Uint8Array(0);
    if (offset < this.#start || stop > this.#start + this.#bytes.length) {
      this.#bytes = await readExactly(
        this.#readAt,
        offset,
        Math.min(Math.max(SCAN_READ, stop - offset), this.#end - offset),
      );
      this.#start = offset;
    }
    return this.#bytes.subarray(offset - this.#start, stop - this.#start);
  }
}

/** A record with its chunk checked against its checksum and its hash, or undefined when it is torn or damaged. */
async function readRecord(window: Window, at: number): Promise<PackEntry | undefined> {
  const record = decodeRecordHeader(await window.at(at, RECORD_HEADER_LENGTH));
  if (record === undefined) return undefined;
  const { hash, storedLength, rawLength, flags, crc } = record;
  const offset = at + RECORD_HEADER_LENGTH;
  const stored = await window.at(offset, storedLength);
  if (stored.length !== storedLength || crc32(stored) !== crc) return undefined;
  try {
    unpackChunk(stored, flags, rawLength, hash);
  } catch {
    return undefined;
  }
  return { hash, offset, storedLength, rawLength, flags };
}

/**
 * What an unfinished pack (or any first part of a pack, layout "records") holds: the chunks up to the first record that
 * is torn or damaged, every one checked. `end` is where the last good record ends: the next one may be written there.
 * A file too short for a header, or with another header, has no chunks and `end` 0.
 */
export async function scanOpenPack(readAt: ReadAt, size: number): Promise<{ entries: PackEntry[]; end: number }> {
  const window = new Window(readAt, size);
  if (!sameBytes(await window.at(0, CHUNK_DATA_START), encodeHeader())) return { entries: [], end: 0 };
  const entries: PackEntry[] = [];
  let end = CHUNK_DATA_START;
  for (;;) {
    const entry = await readRecord(window, end);
    if (entry === undefined) return { entries, end };
    entries.push(entry);
    end = entry.offset + entry.storedLength;
  }
}

/**
 * Reads the whole pack and checks every byte of it: header, records, chunks, table of contents, footer (of a "bare"
 * pack: its chunks and its tail). Throws corrupt with the first thing that is wrong.
 */
export async function verifyPack(readAt: ReadAt, size: number): Promise<PackToc> {
  const toc = await readToc(readAt, size);
  const window = new Window(readAt, toc.tocOffset);
  if (toc.layout === "records" && !sameBytes(await window.at(0, CHUNK_DATA_START), encodeHeader())) {
    throw corrupt(`pack ${toc.name} has a damaged header`);
  }
  for (const entry of toc.entries) {
    if (toc.layout === "bare") {
      unpackChunk(await window.at(entry.offset, entry.storedLength), entry.flags, entry.rawLength, entry.hash);
      continue;
    }
    const found = await readRecord(window, entry.offset - RECORD_HEADER_LENGTH);
    if (found === undefined || !sameEntry(found, entry)) {
      throw corrupt(`pack ${toc.name} has a damaged record of chunk ${hex(entry.hash)} at ${entry.offset}`);
    }
  }
  return toc;
}

function sameEntry(a: PackEntry, b: PackEntry): boolean {
  return sameBytes(a.hash, b.hash) && a.offset === b.offset && a.storedLength === b.storedLength &&
    a.rawLength === b.rawLength && a.flags === b.flags;
}
