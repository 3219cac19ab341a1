/**
 * Delivery: brings the journal's records to the server, in order, many under way at once; only chunks the server lacks
 * are sent. A record is done when the server says it is on its disk; until then it can be sent again, and the server
 * applies a request number once. What the server refuses stops the line until it is settled (`settle`).
 */
import { FsError, type FsErrorCode, toFsError } from "../fs/error.ts";
import type { Stat } from "../fs/stat.ts";
import { type Op, removedBy } from "../index/ops.ts";
import type { Applied, ServerLink } from "../remote/protocol.ts";
import { MAX_INLINE_BYTES } from "../remote/protocol.ts";
import { chunkInline } from "../store/chunk_inline.ts";
import type { ChunkPool } from "../store/chunk_pool.ts";
import { chunkStream } from "../store/chunk_stream.ts";
import { hex } from "../store/hash.ts";
import {
  type BuiltManifest,
  decodeManifest,
  encodeManifest,
  ManifestBuilder,
  type SegmentBlob,
} from "../store/manifest.ts";
import { rechunk } from "../store/rechunk.ts";
import { holesOf, zeroBytesOf } from "../store/holes.ts";
import { isZeroChunk } from "../store/zeros.ts";
import { Latch } from "../platform/latch.ts";
import type { Clock } from "../platform/clock.ts";
import type { ContentCache } from "./content_cache.ts";
import { SMALL_CONTENT } from "./content_cache.ts";
import { CarriedChunks } from "./carried_chunks.ts";
import type { DeliveredBase, Journal, JournaledData, JournalPlace } from "./journal.ts";
import type { Layer, LayerStack } from "./layers.ts";
import type { Touched } from "./replica.ts";

/** Requests that are sent before the first is answered. */
const IN_FLIGHT = 256;
/** So many records waiting are a backlog. */
const BACKLOG = 16;
/** Bytes of small contents kept for records on their way; more are prepared when some have arrived. */
const PREPARED_BYTES = 32 * 1024 * 1024;
/** Records, operations and bytes of theirs that travel together in one call; a record by itself may have more. */
const GROUP_RECORDS = 64;
const GROUP_OPS = 1024;
const GROUP_BYTES = MAX_INLINE_BYTES - SMALL_CONTENT;
/** While nobody else looks, records are held until no new one has come for so long, milliseconds. */
const QUIET_MS = 20;
/** But no longer than this, and not more records or bytes than these. */
const HOLD_MS = 5000;
const HOLD_RECORDS = 10_000;
const HOLD_BYTES = 16 * 1024 * 1024;
/** What can't go now is tried again after so long, milliseconds. */
const RETRY_MS = 500;
/** Chunk bytes gathered before they are offered to the server. */
const UPLOAD_BATCH = 4 * 1024 * 1024;
const READ_PIECE = 1024 * 1024;
/** A file with more known zeros than this is not read through to be cut. */
const MANY_ZEROS = 16 * 1024 * 1024;
/** The manifest of an empty file. */
const NOTHING = decodeManifest(encodeManifest([]).blob);
/** What is read at once of a base of which only parts are here. */
const SALVAGE_PIECE = 64 * 1024;

/** The new content of a record's file, ready to be named to the server. */
export interface Prepared {
  readonly content: string | null;
  readonly size: number;
  readonly manifests: readonly Uint8Array[];
  readonly chunks: readonly { hash: Uint8Array; bytes: Uint8Array }[];
  /** Bytes of it that are holes. */
  readonly holes: number;
  /** All bytes of a small content. */
  readonly whole: Uint8Array<ArrayBuffer> | null;
  /** They are in the cache and on the server's disk: they would have to be prepared again to be sent again. */
  readonly letGo?: boolean;
}

/** One record on its way. */
export interface Outgoing {
  request: number;
  ops: readonly Op[];
  /** These three change together, when what copied another file's content is settled as if it had been written. */
  data: JournaledData | null;
  readonly place: JournalPlace;
  stack: LayerStack | null;
  layer: Layer | null;
  readonly touched: Touched;
  state: "queued" | "sent" | "visible" | "refused";
  error: FsError | null;
  prepared: Prepared | null;
  /** A later record of the same file brings the bytes of both: in the same call, or this one was applied before (`had`). */
  mergedInto: Outgoing | null;
  /** The server had applied it when this connection began, and what it made of its file is not known here any more. */
  had: boolean;
  /** It went without its bytes, as its file was removed here. */
  skipped: boolean;
  /** Let go of together with a later record of the same file, whose bytes are newer. */
  superseded: boolean;
  /** It was refused together with others: it goes by itself, to find out which of them it was. */
  alone: boolean;
  /** When it was journaled or read back, milliseconds since 1970. */
  readonly since: number;
  /** The content it may replace though it was not made from it: it was settled so. */
  expect: string | null | undefined;
  /** Its base can't be looked up chunk by chunk any more: all of the file is read and sent. */
  whole: boolean;
  /** The server once lacked a chunk of it. */
  resent: boolean;
  /** Its base is gone for good: what is here of it is sent, zeros for the rest. */
  salvage: boolean;
  /** Somebody gave it up. */
  dropped: boolean;
  /** What it counts for in `pending`, and how much of that its operations bring. */
  bytes: number;
  values: number;
  /** Everybody can see it. */
  readonly visible: Latch;
  /** It is on the server's disk (or was settled otherwise). */
  readonly durable: Latch;
}

/** The record with which the bytes of `out` travel: one that is carried may be carried on with a still later one. */
export function carrierOf(out: Outgoing): Outgoing {
  let carrier = out;
  while (carrier.mergedInto !== null) carrier = carrier.mergedInto;
  return carrier;
}
/** What a record makes of its file, alone or together with the one that carries its bytes; null: nothing, or not known yet. */
export const madeBy = (out: Outgoing): Prepared | null => carrierOf(out).prepared;

export interface DeliveryHooks {
  /** The server applied it; `stats` are the nodes as they are there now. */
  visible(outgoing: Outgoing, stats: readonly Stat[], seq: number): void;
  /** Puts what the replica knows into its database. */
  keep(): void;
  /** What was kept until now survives a power cut when this resolves. */
  kept(): Promise<void>;
  /** What was visible is not any more: it needs its guard again. */
  takenBack(outgoing: Outgoing): void;
  /** Can anybody still want the file's bytes? */
  wanted(ino: number): boolean;
  /** May records wait here until the programs pause? Not when somebody may look for them. */
  mayHold(): boolean;
  /** It is on the server's disk: its local bytes may go. */
  delivered(outgoing: Outgoing): void;
  /** The server had applied it before, in answers that were lost: what is there now has to be asked for. */
  repeated(outgoing: Outgoing): void;
  /**
   * The server refuses these. Resolves with what decides, in one turn, what is to be sent instead of each, null: nothing.
   * Other records may be changed too. Rejects when the server can't be asked: then it is called again.
   */
  settle(refused: readonly Outgoing[]): Promise<() => ReadonlyMap<Outgoing, readonly Op[] | null>>;
  /** It will never be sent: what it touched is as the server says. */
  given(outgoing: Outgoing): void;
  /** What these touched may have to be asked for, also after a crash: they may be given up, and nothing else tells then. */
  doubt(refused: readonly Outgoing[]): void;
  log(message: string): void;
}

/** Why nothing gets on: what the server or the disk says, and since when (milliseconds since 1970). */
export interface Blocked {
  readonly code: string;
  readonly message: string;
  readonly since: number;
}

export class Delivery {
  readonly #journal: Journal;
  readonly #link: ServerLink;
  readonly #pool: ChunkPool;
  readonly #cache: ContentCache;
  readonly #hooks: DeliveryHooks;
  readonly #clock: Clock;
  readonly #urgent: boolean;
  #queue: Outgoing[] = [];
  /** Durable on the server, not yet let go of here. */
  #finished: Outgoing[] = [];
  /** Some of them are being let go of. */
  #retiring: Promise<void> | null = null;
  #cancelRetire: (() => void) | null = null;
  /** Everything before this place in the queue has been sent. */
  #cursor = 0;
  #refusals = 0;
  /** The highest request the server has answered for good, and the one that was sent last. */
  #answeredUpTo = 0;
  #lastSent = 0;
  #blocked: Blocked | null = null;
  /** Chunks sent with earlier requests since sending last began anew: the server works in order, so it has them. */
  readonly #carried = new CarriedChunks();
  #pendingBytes = 0;
  #pendingValues = 0;
  #preparedBytes = 0;
  #durableUpTo = 0;
  #nextRequest: number;
  #up = false;
  #generation = 0;
  #running = false;
  /** Something came while the loop ran. */
  #again = false;
  #hurried = false;
  /** Sending goes on until the queue is empty. */
  #flowing = false;
  #lastAdded = 0;
  #pause: PromiseWithResolvers<void> | null = null;
  #inFlight = 0;
  #stopped = false;
  #idle: PromiseWithResolvers<void> | null = null;

  constructor(options: {
    journal: Journal;
    link: ServerLink;
    pool: ChunkPool;
    cache: ContentCache;
    hooks: DeliveryHooks;
    clock: Clock;
    firstRequest: number;
    /** Programs wait for the server's disk (write policy `through`). */
    urgent: boolean;
  }) {
    this.#journal = options.journal;
    this.#link = options.link;
    this.#pool = options.pool;
    this.#cache = options.cache;
    this.#hooks = options.hooks;
    this.#clock = options.clock;
    this.#nextRequest = options.firstRequest;
    this.#urgent = options.urgent;
  }

  /** The number for the next record. */
  takeRequest(): number {
    return this.#nextRequest++;
  }
  /** The number the next record will have, or a lower one. */
  get nextRequest(): number {
    return this.#nextRequest;
  }
  get pending(): { records: number; bytes: number } {
    return { records: this.#queue.length, bytes: this.#pendingBytes };
  }
  /** Bytes of extended attributes and link targets that wait in memory; file bytes wait on the disk. */
  get pendingValues(): number {
    return this.#pendingValues;
  }
  list(): readonly Outgoing[] {
    return this.#queue;
  }
  /** The highest request number that the server said is on its disk. */
  get durableUpTo(): number {
    return this.#durableUpTo;
  }
  /** Null: it goes on, or there is only no connection. */
  get blocked(): Blocked | null {
    return this.#queue.length === 0 ? null : this.#blocked;
  }
  /** Gives a record up, at the next chance to tell what depends on it. Throws not_found, conflict when it has been sent already. */
  drop(request: number): void {
    const out = this.#queue.find((each) => each.request === request);
    if (out === undefined) throw new FsError("not_found", `nothing with the number ${request} waits in the journal`);
    if (out.state === "sent" || out.state === "visible") {
      throw new FsError("conflict", `number ${request} has been sent already`);
    }
    const made = new Set<number>();
    for (const each of this.#queue.slice(this.#queue.indexOf(out))) {
      // What was done to a file that is not made is given up with it.
      const { state, ops, data } = each;
      const depends = (data !== null && made.has(data.ino)) ||
        ops.some((op) =>
          made.has(op.ino) || ("parent" in op && made.has(op.parent)) || (op.t === "rename" && made.has(op.newParent))
        );
      if (each !== out && (!depends || state === "sent" || state === "visible")) continue;
      for (const op of ops) if (op.t === "create") made.add(op.ino);
      each.dropped = true;
      if (state !== "refused") this.#refusals++;
      each.state = "refused";
      each.error = new FsError("cancelled", "it was given up");
    }
    this.#kick();
  }
  #stuck(error: FsError): void {
    if (error.message === this.#blocked?.message) return;
    this.#blocked = { code: error.code, message: error.message, since: this.#clock.now() };
    if (error.code !== "unavailable") {
      this.#hooks.log(`delivery waits: ${error.message}; what is written here is kept and tried again`);
    }
  }

  /** A journaled record, in order of its request number. */
  add(
    record: Pick<Outgoing, "request" | "ops" | "data" | "place" | "stack" | "layer" | "touched">,
  ): Outgoing {
    const out: Outgoing = {
      ...record,
      state: "queued",
      error: null,
      prepared: null,
      mergedInto: null,
      had: false,
      skipped: false,
      superseded: false,
      alone: false,
      since: this.#clock.now(),
      expect: undefined,
      whole: false,
      resent: false,
      salvage: false,
      dropped: false,
      visible: new Latch(),
      durable: new Latch(),
      bytes: 0,
      values: 0,
    };
    this.#queue.push(out);
    this.#weigh(out);
    this.#lastAdded = this.#clock.monotonic();
    if (this.#pause !== null && this.#pendingBytes >= HOLD_BYTES) this.#pause.resolve();
    this.#kick();
    return out;
  }

  #weigh(out: Outgoing): void {
    this.#unweigh(out);
    out.values = valueBytes(out.ops);
    out.bytes = (out.layer?.extents.total ?? 0) + out.values;
    this.#pendingBytes += out.bytes;
    this.#pendingValues += out.values;
  }
  #unweigh(out: Outgoing): void {
    this.#pendingBytes -= out.bytes;
    this.#pendingValues -= out.values;
  }

  /**
   * Connected again, before anything the server says is believed: what everybody could see but a crash of the server took
   * back is ours alone again, and has to be told anew.
   */
  takenBack(lastRequest: number): void {
    for (const out of this.#queue) {
      if (out.state !== "visible" || out.request <= lastRequest) continue;
      this.#forgetHad(out);
      requeue(out);
      this.#hooks.takenBack(out);
    }
  }
  /** Connected: the server has applied our requests up to `lastRequest`. */
  up(lastRequest: number): void {
    this.#generation++;
    this.#inFlight = 0;
    if (lastRequest >= this.#nextRequest) this.#nextRequest = lastRequest + 1;
    for (const out of this.#queue) {
      if (out.state === "refused" || (out.request <= lastRequest && out.state === "visible")) continue;
      this.#forgetHad(out);
      requeue(out);
      unmerge(out);
      if (out.prepared?.letGo === true) this.#unprepare(out);
      if (out.request > lastRequest) continue;
      // The server has it: it goes by itself, to hear what became of it.
      out.alone = true;
      out.had = out.prepared === null;
    }
    // What those made of their files is not known: their bytes travel once more, with those of the next record.
    const next = new Map<LayerStack, Outgoing>();
    for (const out of this.#queue.toReversed()) {
      if (out.stack === null || out.state !== "queued") continue;
      const later = next.get(out.stack);
      if (out.had && later !== undefined) out.mergedInto = later;
      else next.set(out.stack, out);
    }
    this.#rewind(lastRequest);
    this.#up = true;
    this.#kick();
  }
  /** The server may not have it any more. */
  #forgetHad(out: Outgoing): void {
    if (!out.had) return;
    out.had = false;
    this.#unprepare(out);
    unmerge(out);
  }
  /** Sending begins again with the first record that is not visible. */
  #rewind(answeredUpTo = this.#answeredUpTo): void {
    this.#answeredUpTo = answeredUpTo;
    this.#lastSent = answeredUpTo;
    this.#cursor = 0;
    this.#carried.clear();
  }
  down(): void {
    this.#up = false;
    this.#generation++;
    this.#flowing = false;
  }
  /** The server has these on its disk. */
  durable(request: number): void {
    this.#durableUpTo = Math.max(this.#durableUpTo, request);
    this.#shift();
  }
  #shift(): void {
    let done = 0;
    for (const out of this.#queue) {
      if (out.request > this.#durableUpTo || out.state !== "visible") break;
      // Its bytes are safe there when those are with which they travelled.
      const carrier = carrierOf(out);
      if (carrier.state !== "visible" || carrier.request > this.#durableUpTo) break;
      done++;
    }
    if (done === 0) return;
    const finished = this.#queue.splice(0, done);
    this.#cursor = Math.max(0, this.#cursor - done);
    for (const out of finished) {
      this.#unweigh(out);
      this.#finished.push(out);
      out.durable.open();
    }
    if (!this.#emptied()) this.#cancelRetire ??= this.#clock.after(50, () => void this.#retire(), true);
  }
  /** Nothing waits any more: whoever waits for that is told. */
  #emptied(): boolean {
    if (this.#queue.length > 0) return false;
    this.#blocked = null;
    const idle = this.#idle;
    if (idle === null) return false;
    this.#idle = null;
    void this.#retire().then(idle.resolve);
    return true;
  }
  /** Lets go of what is delivered, as far as the disk allows it now. Never rejects. */
  async #retire(): Promise<void> {
    this.#cancelRetire?.();
    this.#cancelRetire = null;
    try {
      await this.#letGo();
      // Their bytes may have been what the next ones waited for.
      this.#kick();
    } catch (error) {
      // A full disk: until there is room, the records are done again after a crash, which the server sees through.
      this.#hooks.log(`delivery: what was delivered can't be marked: ${toFsError(error).message}`);
      if (!this.#stopped) this.#cancelRetire ??= this.#clock.after(1000, () => void this.#retire(), true);
    }
  }
  /** Everything that is delivered now is let go of. */
  async #letGo(): Promise<void> {
    // What came while others were let go of waits for the next turn.
    const last = this.#finished.at(-1);
    while (last !== undefined && this.#finished.includes(last)) {
      this.#retiring ??= this.#letGoOnce().finally(() => this.#retiring = null);
      await this.#retiring;
    }
  }
  /**
   * What they did is on the disk in the replica first, then the journal is told that they need not be done again, then
   * their bytes go. A crash or a power cut at any point leaves either the record or its effect.
   */
  async #letGoOnce(): Promise<void> {
    const count = this.#finished.length;
    this.#hooks.keep();
    await this.#hooks.kept();
    const finished = this.#finished.slice(0, count);
    const last = finished.at(-1);
    if (last === undefined) return;
    const waiting = [...this.#finished.slice(count), ...this.#queue];
    const bases = basesOf(finished, waiting);
    this.#journal.acknowledge(last.request, bases);
    giveBases(bases, waiting);
    this.#finished.splice(0, count);
    const newest = new Map(finished.map((out) => [out.stack, out]));
    for (const out of finished) {
      out.superseded = newest.get(out.stack) !== out;
      this.#finish(out);
    }
  }
  #finish(out: Outgoing): void {
    this.#preparedBytes -= out.prepared?.whole?.length ?? 0;
    this.#hooks.delivered(out);
    this.#journal.release(out.place.file);
    out.visible.open();
    out.durable.open();
  }

  /** Resolves when everything added so far was delivered. */
  drained(): Promise<void> {
    this.hurry();
    if (this.#queue.length === 0) return this.#retire();
    this.#idle ??= Promise.withResolvers();
    return this.#idle.promise;
  }
  async stop(): Promise<void> {
    this.#stopped = true;
    this.down();
    await this.#retire();
  }

  #kick(): void {
    if (!this.#up || this.#stopped) return;
    if (this.#running) {
      this.#again = true;
      return;
    }
    this.#running = true;
    this.#again = false;
    this.#run().catch((error) => {
      this.#hooks.log(`delivery: ${toFsError(error).message}`);
    }).finally(() => {
      this.#running = false;
      if (this.#again) this.#kick();
    });
  }

  /**
   * While nobody else looks, delivery waits for the programs to pause: they have the processor and the disk to themselves,
   * and what they remove or write again soon need not travel. Bounded in time, records and bytes.
   */
  async #hold(): Promise<void> {
    // At least what is journaled in this turn of the event loop.
    await Promise.resolve();
    const first = this.#clock.monotonic();
    while (!this.#hurried && !this.#stopped && this.#up && this.#hooks.mayHold()) {
      const now = this.#clock.monotonic();
      const quiet = this.#lastAdded + QUIET_MS - now;
      if (quiet <= 0 || now - first >= HOLD_MS) break;
      if (this.#queue.length - this.#cursor >= HOLD_RECORDS || this.#pendingBytes >= HOLD_BYTES) break;
      this.#pause = Promise.withResolvers();
      const cancel = this.#clock.after(Math.max(1, quiet), this.#pause.resolve, true);
      await this.#pause.promise;
      cancel();
      this.#pause = null;
    }
    this.#hurried = false;
  }
  /** Somebody waits. */
  hurry(): void {
    this.#hurried = true;
    this.#pause?.resolve();
    this.#kick();
  }

  /** Everything that is in the queue now is visible to others afterwards, or it can't be at present. */
  async shown(): Promise<void> {
    this.hurry();
    const last = this.#queue.at(-1);
    if (last === undefined || last.state === "visible" || !this.#up) return;
    await last.visible.opened;
  }

  async #run(): Promise<void> {
    if (!this.#flowing) await this.#hold();
    this.#flowing = true;
    while (this.#up && !this.#stopped) {
      if (this.#refusals > 0) {
        if (this.#inFlight > 0) return;
        const generation = this.#generation;
        try {
          await this.#settle();
        } catch (error) {
          if (generation !== this.#generation) return;
          this.#stuck(toFsError(error));
          this.#later();
          return;
        }
        continue;
      }
      while (this.#cursor < this.#queue.length && this.#queue[this.#cursor]?.state !== "queued") this.#cursor++;
      if (this.#inFlight >= IN_FLIGHT) return;
      if (this.#preparedBytes >= PREPARED_BYTES) {
        if (this.#willLetGo()) return;
        this.#letGoOfBytes();
      }
      if (this.#cursor >= this.#queue.length) {
        this.#flowing = false;
        return;
      }
      const generation = this.#generation;
      const group = await this.#collect(generation);
      if (generation !== this.#generation) return;
      if (group.length > 0) this.#send(group, generation);
    }
  }

  /**
   * Will what is ahead let go of the bytes it holds by itself? Then this runs again. Not when the first of it waits for a
   * later record that carries its bytes: that has to be sent first.
   */
  #willLetGo(): boolean {
    if (this.#inFlight > 0 || this.#finished.length > 0) return true;
    const [first] = this.#queue;
    return this.#cursor > 0 && first !== undefined && carrierOf(first).state === "visible";
  }

  /** What the server has on its disk, but has to wait here for what comes before it, does not have to wait in memory. */
  #letGoOfBytes(): void {
    for (const out of this.#queue) {
      if (out.request > this.#durableUpTo || out.state !== "visible") break;
      const { prepared } = out;
      if (prepared === null || prepared.whole === null || prepared.content === null) continue;
      this.#cache.putSmall(prepared.content, prepared.whole);
      this.#preparedBytes -= prepared.whole.length;
      out.prepared = { ...prepared, chunks: [], whole: null, letGo: true };
    }
  }

  /**
   * The next records to go together, prepared. Of several that bring bytes of one file only the last one's are prepared:
   * nobody can see what was in between. Empty: there was trouble, or sending began anew.
   */
  async #collect(generation: number): Promise<Outgoing[]> {
    const group = this.#choose();
    const last = new Map(group.map((out) => [out.stack, out]));
    for (const [i, out] of group.entries()) {
      // What was removed again before it was sent need not travel: on a full server it may be what has to go first.
      if (out.data === null || (out.had && out.mergedInto !== null)) continue;
      const unwanted = !this.#hooks.wanted(out.data.ino) && !await this.#isElsewhere(out, out.data.ino);
      if (generation !== this.#generation) return [];
      out.skipped = unwanted;
      if (unwanted) {
        this.#unprepare(out);
        out.mergedInto = null;
        continue;
      }
      const brings = last.get(out.stack) ?? out;
      out.mergedInto = brings === out ? null : brings;
      if (brings !== out) {
        this.#unprepare(out);
        continue;
      }
      if (out.prepared !== null) continue;
      try {
        const prepared = await (out.had ? this.#asApplied(out) : this.#prepare(out));
        if (generation !== this.#generation) return [];
        out.prepared = prepared;
        this.#preparedBytes += prepared?.whole?.length ?? 0;
      } catch (error) {
        for (const each of group) {
          if (each.mergedInto !== null && group.includes(each.mergedInto)) each.mergedInto = null;
        }
        if (generation !== this.#generation) return [];
        // What comes before it can go.
        if (i > 0 && !group.slice(0, i).some((each) => each.stack === out.stack)) {
          out.alone = true;
          return await this.#collect(generation);
        }
        await this.#trouble(out, toFsError(error));
        return [];
      }
    }
    return group;
  }
  /** Have others given the file, which was removed here, another name? */
  async #isElsewhere(out: Outgoing, ino: number): Promise<boolean> {
    // Nobody else can have seen it. What is under way may be applied there already, perhaps since an earlier connection.
    for (let at = this.#cursor; at < this.#queue.length; at++) {
      const each = this.#queue[at];
      if (each?.ops.some((op) => op.t === "create" && op.ino === ino) === true) return false;
      if (each === out) break;
    }
    // Others may do it at any time, also after they were asked about: only a full server, which can't take the bytes, is.
    if (this.#blocked?.code !== "no_space") return true;
    let ours = 0;
    for (const { state, ops } of this.#queue) {
      if (state === "visible") continue;
      for (const op of ops) {
        if (op.t === "link" && op.ino === ino) ours--;
        if (removedBy(op) === ino && state === "queued") ours++;
      }
    }
    try {
      const there = await this.#link.call("stat", { ino });
      return there !== null && there.nlink > ours;
    } catch {
      return true;
    }
  }
  /**
   * What a record that the server has made of its file: which records travelled together, and so how the bytes were cut into
   * chunks, is not known here. When others changed the file since, it is made once more, as what theirs is in conflict with.
   */
  async #asApplied(out: Outgoing): Promise<Prepared | null> {
    if (out.data === null) return null;
    const there = await this.#link.call("writtenByMe", { ino: out.data.ino });
    if (there !== null) {
      const { content, size, holes = 0 } = there;
      return { content, size, manifests: [], chunks: [], holes, whole: null };
    }
    return await this.#prepare(out).catch((error) => {
      if (!isLost(toFsError(error))) throw error;
      return null;
    });
  }
  #choose(): Outgoing[] {
    const group: Outgoing[] = [];
    const stacks = new Set<LayerStack>();
    let bytes = 0;
    let ops = 0;
    // With a backlog, or while nobody looks, what counts is to be through soon, not who is visible first.
    const patient = this.#queue.length - this.#cursor > BACKLOG || this.#hooks.mayHold();
    while (group.length < GROUP_RECORDS && bytes < GROUP_BYTES) {
      const next = this.#queue[this.#cursor + group.length];
      if (next === undefined || next.state !== "queued" || (next.alone && group.length > 0)) break;
      ops += next.ops.length;
      bytes += valueBytes(next.ops);
      if (group.length > 0 && (ops > GROUP_OPS || bytes > GROUP_BYTES)) break;
      const { stack, data } = next;
      if (stack !== null && data !== null && !stacks.has(stack)) {
        // An upload takes its time: what came before it need not wait.
        if (data.size > SMALL_CONTENT && group.length > 0 && !patient) break;
        stacks.add(stack);
        // Large contents are uploaded by themselves.
        if (data.size <= SMALL_CONTENT) bytes += data.size;
      }
      group.push(next);
      if (next.alone) break;
    }
    return group;
  }
  #unprepare(out: Outgoing): void {
    this.#preparedBytes -= out.prepared?.whole?.length ?? 0;
    out.prepared = null;
  }

  #send(group: readonly Outgoing[], generation: number): void {
    const last = group.at(-1);
    if (last === undefined) return;
    const ops: Op[] = [];
    const chunks: { hash: Uint8Array; bytes: Uint8Array }[] = [];
    const manifests: Uint8Array[] = [];
    for (const out of group) {
      const { prepared, data } = out;
      ops.push(...out.ops);
      if (prepared !== null && data !== null && out.mergedInto === null) {
        chunks.push(...prepared.chunks);
        manifests.push(...prepared.manifests);
        ops.push({
          t: "content",
          ino: data.ino,
          base: null,
          ...this.#baseOf(out),
          content: prepared.content,
          size: prepared.size,
          ...(prepared.holes === 0 ? {} : { holes: prepared.holes }),
          time: data.time,
        });
      }
      if (data?.attr !== undefined && madeBy(out) !== null) {
        ops.push({ t: "attr", ino: data.ino, ...data.attr, time: data.time });
      }
      out.state = "sent";
    }
    this.#inFlight += group.length;
    const previous = this.#lastSent;
    this.#lastSent = last.request;
    this.#link.call("apply", {
      request: last.request,
      previous,
      group: group.length > 1,
      urgent: this.#urgent,
      chunks: this.#carried.lacking(chunks),
      manifests,
      ops,
    }, { timeoutMs: 60_000 }).then(
      (applied) => {
        if (generation === this.#generation) this.#answered(group, applied);
      },
      (error) => {
        if (generation === this.#generation) this.#refused(group, toFsError(error));
      },
    ).catch((error) => this.#hooks.log(`delivery: request ${last.request}: ${toFsError(error).message}`));
  }
  /** The content the server must still have for a record to be right: what the record before it made of the file. */
  #baseOf(out: Outgoing): { baseContent?: string | null } {
    const { stack, layer } = out;
    const expected = expectedBy(out);
    if (expected !== undefined) return { baseContent: expected };
    if (stack === null || layer === null || stack.unresolved) return {};
    // A new file beside the one it was made from.
    if (out.ops.some((op) => op.t === "create" && op.ino === out.data?.ino)) return {};
    for (let at = stack.layers.indexOf(layer); at > 0; at--) {
      const below = stack.layers[at - 1];
      if (below?.givenUp === true) continue;
      const before = this.#queue.find((other) => other.layer === below && other.stack === stack) ??
        this.#finished.find((other) => other.layer === below && other.stack === stack);
      if (before === undefined) return {};
      if (carrierOf(before) !== out && !before.skipped) {
        const made = madeBy(before);
        return made === null ? {} : { baseContent: made.content };
      }
      if (before.ops.some((op) => op.t === "create" && op.ino === out.data?.ino)) return {};
      const settled = expectedBy(before);
      if (settled !== undefined) return { baseContent: settled };
    }
    return { baseContent: stack.base };
  }
  #answered(group: readonly Outgoing[], applied: Applied): void {
    this.#inFlight -= group.length;
    this.#blocked = null;
    const told = statsByRecord(group, applied.stats);
    group.forEach((out, i) => {
      out.state = "visible";
      this.#answeredUpTo = Math.max(this.#answeredUpTo, out.request);
      if (applied.repeated) this.#hooks.repeated(out);
      this.#hooks.visible(out, told[i] ?? [], applied.seq);
      out.visible.open();
    });
    // The news of durability may have come first.
    if ((this.#queue[0]?.request ?? Infinity) <= this.#durableUpTo) this.#shift();
    this.#kick();
  }
  #refused(group: readonly Outgoing[], error: FsError): void {
    this.#inFlight -= group.length;
    // What came with a refused request may not have been kept.
    this.#carried.clear();
    const passing = isPassing(error);
    const [first] = group;
    if (first === undefined) return;
    const again = error.code === "conflict" && /send it again/.test(error.message);
    // It named what the server had then, and there are no bytes with it to be sent: it is settled by what is here.
    const forgotten = again && group.length === 1 && /^content .* not stored/.test(error.message) &&
      first.ops.some((op) => op.t === "content");
    if (!forgotten && (passing || group.length > 1 || again)) {
      // Cut off or overloaded: the connection's next start begins again at what the server has. Out of turn, or the server
      // lacks a chunk we did not send: everything is offered anew.
      for (const out of group) {
        requeue(out);
        out.alone = group.length > 1 && !passing;
        // What the base lends may be gone with the base: at the second time all of the file is offered.
        if (again && group.length === 1) [out.whole, out.resent] = [out.resent, true];
        if (!passing || error.code === "internal" || error.code === "corrupt") this.#unprepare(out);
      }
      if (passing || again) this.#stuck(error);
      // One by one they can go at once: that finds out which of them it was.
      this.#later(passing || again ? RETRY_MS : 0);
      return;
    }
    first.state = "refused";
    // The server doesn't remember what it asks to be sent again.
    if (!forgotten) this.#answeredUpTo = Math.max(this.#answeredUpTo, first.request);
    this.#refusals++;
    first.error = error;
    this.#kick();
  }
  #later(ms = RETRY_MS): void {
    this.#up = false;
    const generation = this.#generation;
    this.#clock.after(ms, () => {
      if (generation !== this.#generation || !this.#link.connected || this.#stopped) return;
      for (const out of this.#queue) if (out.state === "sent") requeue(out);
      this.#generation++;
      this.#inFlight = 0;
      this.#rewind();
      this.#up = true;
      this.#kick();
    }, true);
  }
  async #trouble(out: Outgoing, error: FsError): Promise<void> {
    this.#stuck(error);
    const lost = isLost(error);
    if (!lost && isPassing(error) && error.code !== "internal") {
      this.#later();
      return;
    }
    this.#unprepare(out);
    if (lost && !out.whole) {
      // Perhaps all bytes are here though the server has forgotten the content they were.
      for (const other of this.#queue) if (other.stack === out.stack) other.whole = true;
      return;
    }
    if (lost && !out.salvage) {
      this.#hooks.log(`delivery: what request ${out.request} was made from is gone from the server: ${error.message}`);
      for (const other of this.#queue) if (other.stack === out.stack) other.salvage = true;
      out.state = "refused";
      out.error = new FsError("conflict", "the content this was made from is neither here nor on the server any more");
      this.#refusals++;
      return;
    }
    this.#hooks.log(`delivery: request ${out.request} can't be prepared: ${error.message}; trying again`);
    await this.#clock.sleep(1000);
  }

  /** Nothing is under way: what was refused is replaced, and all that is not visible gets new numbers, in one journal record. */
  async #settle(): Promise<void> {
    const refused = this.#queue.filter((out) => out.state === "refused");
    /** What was applied of a file before a refused record of it that would bring its bytes once more. */
    const applied = new Map<Outgoing, Prepared | null>();
    for (const earlier of this.#queue) {
      const later = earlier.mergedInto;
      if (later === null || later.state !== "refused") continue;
      if (earlier.had) {
        applied.set(later, await this.#asApplied(earlier));
        continue;
      }
      // They did not travel together, then: the server knows what each made of the file.
      const prepared = await this.#prepare(earlier).catch((error) => {
        if (isPassing(toFsError(error))) throw error;
        return null;
      });
      if (earlier.mergedInto !== later) continue;
      this.#preparedBytes += prepared?.whole?.length ?? 0;
      Object.assign(earlier, { prepared, mergedInto: null });
    }
    const decide = await this.#hooks.settle(refused);
    // The journal forgets all that was there before what it is told next: what was delivered of that as well.
    while (this.#finished.length > 0) await this.#letGo();
    this.#hooks.doubt(refused);
    // From here to the journal record nothing waits: a record that is added meanwhile would get a number out of order,
    // and after a crash the replica would have what the journal has not.
    const answers = decide();
    const given: Outgoing[] = [];
    const keep: Outgoing[] = [];
    for (const out of this.#queue) {
      const answer = answers.get(out);
      if (answer === null) {
        given.push(out);
        continue;
      }
      if (answer !== undefined) {
        out.ops = answer;
        this.#weigh(out);
      }
      if (out.state !== "visible") {
        out.request = this.takeRequest();
        out.state = "queued";
        out.alone = false;
        this.#forgetHad(out);
        unmerge(out);
        out.error = null;
      }
      keep.push(out);
    }
    for (const out of given) giveExpectation(out, keep);
    // What is applied there already keeps its number, and comes before what gets a new one.
    keep.sort((a, b) => a.request - b.request);
    const place = this.#journal.replaceAll(
      this.takeRequest(),
      keep.map((out) => ({ record: { request: out.request, ops: out.ops, data: out.data }, place: out.place })),
    );
    // What was decided is in the database together with the record that says it: a kill finds both.
    try {
      this.#hooks.keep();
    } catch (error) {
      this.#hooks.log(`delivery: what was settled can't be written yet: ${toFsError(error).message}`);
    }
    this.#queue = keep;
    this.#rewind();
    this.#refusals = 0;
    for (const out of keep) {
      const later = out.mergedInto;
      if (later === null || !given.includes(later)) continue;
      out.mergedInto = null;
      out.prepared = applied.get(later) ?? null;
    }
    for (const out of given) {
      this.#unweigh(out);
      // What was prepared is not what the file is.
      this.#unprepare(out);
      this.#hooks.given(out);
    }
    // The replacing record must stay as long as the journal has the replaced ones.
    void this.drained().then(() => this.#journal.release(place.file));
    await this.#journal.sync();
    for (const out of given) this.#finish(out);
    // What is durable already may have waited behind these.
    this.#shift();
    this.#emptied();
  }

  // --- contents ---

  /** Reads the file as it was when the record was flushed. */
  async #read(out: Outgoing, offset: number, length: number): Promise<Uint8Array<ArrayBuffer>> {
    const { stack, layer } = out;
    if (stack === null || layer === null) throw new FsError("internal", "a record without its bytes");
    for (;;) {
      const into = new Uint8Array(length);
      const lowest = stack.layers[0];
      const { base, baseSize } = stack;
      const sources = stack.sources(offset, offset + length, stack.layers.indexOf(layer) + 1);
      // What lies below may become the base while we wait for bytes of the base: the layers first, then see.
      for (const source of sources) {
        if (source.kind === "layer") {
          source.layer.read(source.start, into.subarray(source.start - offset, source.end - offset));
        }
      }
      for (const source of sources) {
        if (source.kind !== "base" || base === null) continue;
        const step = out.salvage ? SALVAGE_PIECE : READ_PIECE;
        for (let at = source.start; at < source.end; at += step) {
          const n = Math.min(step, source.end - at);
          const bytes = await this.#cache.read(base, baseSize, at, n).catch((error) => {
            // Zeros for what nobody has any more.
            const { code } = toFsError(error);
            if (!out.salvage || (code !== "not_found" && code !== "corrupt")) throw error;
            return null;
          });
          if (bytes !== null) into.set(bytes, at - offset);
        }
      }
      if (stack.layers[0] === lowest || stack.base === base) return into;
    }
  }

  async #prepare(out: Outgoing): Promise<Prepared> {
    const { data, stack, layer } = out;
    if (data === null || stack === null || layer === null) throw new FsError("internal", "a record without its bytes");
    const size = data.size;
    if (size === 0) return { content: null, size, manifests: [], chunks: [], holes: 0, whole: null };
    if (size <= SMALL_CONTENT) {
      const whole = await this.#read(out, 0, size);
      const spans = chunkInline(whole);
      const built = encodeManifest(spans);
      const chunks = spans.filter((span) => !isZeroChunk(span.hash, span.length))
        .map((span) => ({ hash: span.hash, bytes: whole.subarray(span.offset, span.offset + span.length) }));
      return { content: hex(built.hash), size, manifests: [built.blob], chunks, holes: zeroBytesOf(spans), whole };
    }
    const upload = new Uploader(this.#link);
    const segments: SegmentBlob[] = [];
    const onSegment = (segment: SegmentBlob) => {
      segments.push(segment);
    };
    let built: BuiltManifest;
    const count = stack.layers.indexOf(layer) + 1;
    const { dirty, baseValid } = stack.changes(count);
    const { sparse } = stack;
    if ((stack.base !== null && !out.whole && !dirty.covers(0, size)) || this.#zeros(stack, size, count) > MANY_ZEROS) {
      // Known zeros are not read: a file of a terabyte with a few bytes in it takes no longer than those.
      const base = stack.base === null ? NOTHING : await this.#cache.manifest(stack.base);
      built = await rechunk({
        base,
        loadSegment: (hash) => this.#cache.segment(hash),
        dirty,
        size,
        baseValid,
        readNew: (offset, length) => this.#read(out, offset, length),
        onChunk: (chunk) => upload.add({ hash: chunk.hash, bytes: chunk.bytes.slice() }),
        onSegment,
      });
    } else {
      const builder = new ManifestBuilder({ onSegment });
      for await (const batch of chunkStream(this.#stream(out, size), this.#pool)) {
        for (const ref of batch.refs) {
          builder.add(ref.hash, ref.length);
          if (isZeroChunk(ref.hash, ref.length)) continue;
          await upload.add({ hash: ref.hash, bytes: batch.bytes.subarray(ref.offset, ref.offset + ref.length) });
        }
      }
      built = builder.finish();
    }
    // With it the cache can tell later whether its copy is still right.
    this.#cache.keepManifest(built.hash, built.blob);
    for (const { hash, blob } of [...segments, ...built.segments]) this.#cache.keepManifest(hash, blob);
    await upload.end();
    for (const segment of [...segments, ...built.segments]) await this.#link.call("putSegment", { blob: segment.blob });
    const view = decodeManifest(built.blob);
    let holes = 0;
    if (sparse) {
      const fresh = new Map([...segments, ...built.segments].map((segment) => [hex(segment.hash), segment.blob]));
      holes = (await holesOf(view, (hash) => fresh.get(hex(hash)) ?? this.#cache.segment(hash))).total;
    }
    return { content: hex(built.hash), size: view.size, manifests: [built.blob], chunks: [], holes, whole: null };
  }
  /** Bytes of a file, as its lowest `count` layers make it, that are known to be zeros. */
  #zeros(stack: LayerStack, size: number, count: number): number {
    if (!stack.sparse) return 0;
    let zeros = 0;
    for (const { kind, start, end } of stack.sources(0, size, count)) if (kind === "zero") zeros += end - start;
    return zeros;
  }

  #stream(out: Outgoing, size: number): ReadableStream<Uint8Array> {
    let at = 0;
    return new ReadableStream<Uint8Array>({
      pull: async (controller) => {
        const length = Math.min(READ_PIECE, size - at);
        if (length <= 0) {
          controller.close();
          return;
        }
        const bytes = await this.#read(out, at, length);
        at += length;
        controller.enqueue(bytes);
      },
    }, { highWaterMark: 2 });
  }
}

/** What delivered records made of files of which later ones wait. */
function basesOf(finished: readonly Outgoing[], waiting: readonly Outgoing[]): DeliveredBase[] {
  const made = new Map<LayerStack, DeliveredBase>();
  for (const out of finished) {
    const { stack, data } = out;
    const done = madeBy(out);
    if (stack === null || data === null || done === null) continue;
    made.set(stack, { ino: data.ino, content: done.content, size: done.size });
  }
  if (made.size === 0) return [];
  const stacks = new Set(waiting.map(({ stack }) => stack));
  return [...made].flatMap(([stack, base]) => stacks.has(stack) ? [base] : []);
}
/** The same here as the journal does with its mark: what is journaled anew in a settlement must say it too. */
function giveBases(bases: readonly DeliveredBase[], waiting: readonly Outgoing[]): void {
  if (bases.length === 0) return;
  const left = new Map(bases.map((base) => [base.ino, base]));
  for (const { data } of waiting) {
    const base = data === null ? undefined : left.get(data.ino);
    if (base === undefined || data === null) continue;
    Object.assign(data, { base: base.content, baseSize: base.size });
    left.delete(base.ino);
    if (left.size === 0) return;
  }
}

/**
 * A record of a file is given up: the next one of the file, which would have replaced what it made, replaces what it would
 * have replaced. Without that it would be written over whatever the server has by then.
 */
function giveExpectation(given: Outgoing, keep: readonly Outgoing[]): void {
  const { data, stack, request } = given;
  if (data === null || data.base === undefined) return;
  const next = keep.find((out) => out.stack === stack && out.data?.ino === data.ino && out.request > request);
  if (next?.data == null || next.data.base !== undefined) return;
  const { base, baseSize, expect } = data;
  Object.assign(next.data, { base, baseSize, ...(expect === undefined ? {} : { expect }) });
}

/** Which nodes' attributes are told with which record of a group: the last that touched the node. */
function statsByRecord(group: readonly Outgoing[], stats: readonly Stat[]): Stat[][] {
  const told: Stat[][] = group.map(() => []);
  if (group.length === 1) return [[...stats]];
  const last = new Map<number, number>();
  group.forEach(({ touched, data }, i) => {
    for (const ino of touched.nodes) last.set(ino, i);
    for (const { ino } of touched.entries) last.set(ino, i);
    if (data !== null) last.set(data.ino, i);
  });
  for (const stat of stats) told[last.get(stat.ino) ?? group.length - 1]?.push(stat);
  return told;
}

/** It has to be sent (again). */
function requeue(out: Outgoing): void {
  out.state = "queued";
  // What the server has already stays as it was told: only a new connection knows better.
  if (!out.alone) unmerge(out);
}
function unmerge(out: Outgoing): void {
  if (out.mergedInto === null) return;
  out.mergedInto = null;
  out.prepared = null;
}

/** Can what a content was made from not be read any more? */
const isLost = (error: FsError): boolean => error.code === "not_found" || error.code === "corrupt";
/** Bytes that operations bring themselves: values of extended attributes, targets of links. */
function valueBytes(ops: readonly Op[]): number {
  let bytes = 0;
  for (const op of ops) {
    if (op.t === "setxattr") bytes += op.value.length;
    else if (op.t === "create") bytes += op.target?.length ?? 0;
  }
  return bytes;
}

/** What the record replaces on the server, when that is not what it was made from. */
const expectedBy = ({ expect, data, ops }: Outgoing): string | null | undefined =>
  expect === undefined && ops.length === 0 ? data?.expect : expect;
/** The copy of another file's content (copy_file_range) that the record is, or was before it was settled as a write. */
export function copyIn(out: Pick<Outgoing, "ops" | "data">): Op & { t: "content" } | null {
  const op = out.ops.at(-1);
  return op?.t === "content" && (out.data === null || out.data.ino === op.ino) ? op : null;
}

/** What is settled otherwise; all else (cut off, overloaded, full, a broken server) is tried again as it is. */
const FINAL: ReadonlySet<FsErrorCode> = new Set([
  "conflict",
  "not_found",
  "already_exists",
  "not_a_directory",
  "is_a_directory",
  "directory_not_empty",
  "invalid_input",
  "name_too_long",
  "too_many_links",
  "permission_denied",
  "not_supported",
]);
const isPassing = (error: FsError): boolean => !FINAL.has(error.code);

/** Sends chunks the server lacks, in batches, with one batch under way while the next is filled. */
class Uploader {
  readonly #link: ServerLink;
  #batch: { hash: Uint8Array; bytes: Uint8Array }[] = [];
  #bytes = 0;
  #sending: Promise<void>[] = [];

  constructor(link: ServerLink) {
    this.#link = link;
  }
  async add(chunk: { hash: Uint8Array; bytes: Uint8Array }): Promise<void> {
    this.#batch.push(chunk);
    this.#bytes += chunk.bytes.length;
    if (this.#bytes >= UPLOAD_BATCH) await this.#flush();
  }
  async #flush(): Promise<void> {
    const batch = this.#batch;
    this.#batch = [];
    this.#bytes = 0;
    if (batch.length === 0) return;
    const sending = this.#offer(batch);
    sending.catch(() => {});
    this.#sending.push(sending);
    if (this.#sending.length > 2) await this.#sending.shift();
  }
  async #offer(batch: { hash: Uint8Array; bytes: Uint8Array }[]): Promise<void> {
    const missing = await this.#link.call("missing", {
      chunks: batch.map(({ hash, bytes }) => ({ hash, length: bytes.length })),
    });
    const lacking = missing.flatMap((i) => batch[i] ?? []);
    if (lacking.length > 0) await this.#link.putChunks(lacking);
  }
  async end(): Promise<void> {
    await this.#flush();
    for (const sending of this.#sending) await sending;
    this.#sending = [];
  }
}

/** What fits into one call. */
export const INLINE_BYTES = MAX_INLINE_BYTES;
