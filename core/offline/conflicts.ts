/**
 * Conflicts: what becomes of journaled changes that the server refuses because somebody else was first. They are settled
 * by identity (inode numbers), not by path; no version is ever dropped: the one that does not get the name is kept beside
 * it, or in the conflict folder of the tree's root. docs/semantics-offline.md has the table of cases.
 *
 * A round has two halves: the server is asked first; then, in one turn and together with the journal's new record, the
 * replica is changed. So a crash finds either the old state or the new one.
 */
import type { FsError } from "../fs/error.ts";
import type { KernelNotifier } from "../fs/inode_fs.ts";
import { nameByteLength } from "../fs/names.ts";
import { S_IFDIR, S_IFMT, S_IFREG, type Stat } from "../fs/stat.ts";
import { type Op, removedBy, ROOT_INO, type Time } from "../index/ops.ts";
import { blankStat } from "../index/tree.ts";
import { type Clock, splitTime } from "../platform/clock.ts";
import type { ServerLink } from "../remote/protocol.ts";
import type { ConflictKind, ConflictList, ConflictPolicy } from "./conflict_list.ts";
import { copyIn, type Outgoing } from "./delivery.ts";
import type { JournaledData } from "./journal.ts";
import { Layer, LayerStack } from "./layers.ts";
import type { Replica } from "./replica.ts";
import { MAX_XATTR_VALUES, MAX_XATTRS } from "./xattr_rules.ts";

/** Where versions go that lost against another one under a policy that leaves one name. */
export const CONFLICT_FOLDER = ".anyfs-conflicts";

/** What of the mount a settlement works on. */
export interface ConflictScene {
  readonly replica: Replica;
  readonly link: Pick<ServerLink, "call">;
  readonly clock: Clock;
  readonly host: string;
  policy(): ConflictPolicy;
  readonly found: ConflictList;
  readonly stacks: Map<number, LayerStack>;
  readonly log: (message: string) => void;
  /** Undelivered records, oldest first. */
  list(): readonly Outgoing[];
  /** Where a node was before others took its last name. */
  lastName(ino: number): Place | null;
  notifier(): KernelNotifier | null;
  forgetStack(ino: number): void;
  /** The node has a name again. */
  cameBack(ino: number): void;
  /** What this record touched is asked for again when it is delivered. */
  uncertain(out: Outgoing): void;
  /** Bytes that are not flushed yet belong to this node now. */
  moved(ino: number): void;
}

export interface Place {
  readonly parent: number;
  readonly name: string;
}
type Create = Op & { t: "create" };
type Rename = Op & { t: "rename" };
type Copy = Op & { t: "content" };
type Step = () => readonly Op[] | null;
/** New bytes of a file. */
interface Written {
  readonly data: JournaledData;
  readonly stack: LayerStack;
}

/** One round: what has been promised so far. */
interface Round {
  /** Names that were given out: `parent/name`. */
  readonly names: Set<string>;
  /** Folders that come back, or where what was in them goes instead. */
  readonly folders: Map<number, number>;
  attic: number;
  /** Files of which an earlier record is settled: the later ones build on that. */
  readonly stacks: Set<LayerStack>;
  /** Records that an earlier settlement of this round changed: sent as they are now. */
  readonly rewritten: Set<Outgoing>;
}

/** Extended attributes, and bytes of their values, that one record can give a file: what two devices can have set. */
const MAX_ATTRIBUTES = 2 * MAX_XATTRS;
const MAX_ATTRIBUTE_BYTES = 2 * MAX_XATTR_VALUES;

const isDir = (mode: number) => (mode & S_IFMT) === S_IFDIR;

export class Conflicts {
  readonly #s: ConflictScene;

  constructor(scene: ConflictScene) {
    this.#s = scene;
  }

  async settle(refused: readonly Outgoing[]): Promise<() => ReadonlyMap<Outgoing, readonly Op[] | null>> {
    const round: Round = { names: new Set(), folders: new Map(), stacks: new Set(), attic: 0, rewritten: new Set() };
    const steps: [Outgoing, Step][] = [];
    for (const out of refused) steps.push([out, await this.#one(out, round)]);
    return () => {
      const answers = new Map<Outgoing, readonly Op[] | null>();
      for (const [out, step] of steps) {
        const ops = round.rewritten.has(out) ? out.ops : step();
        if (ops !== null) out.ops = ops;
        answers.set(out, ops);
      }
      return answers;
    };
  }

  async #one(out: Outgoing, round: Round): Promise<Step> {
    const error = out.error;
    if (error === null || out.dropped) return () => null;
    this.#s.log(`conflict: ${out.ops.map((op) => op.t).join(", ") || "write"}: ${error.message}`);
    const made = await this.#madeTwice(out, round);
    if (made !== null) return made;
    const step = await this.#anew(out, error, round);
    return () => {
      this.#undo(out);
      return step();
    };
  }
  async #anew(out: Outgoing, error: FsError, round: Round): Promise<Step> {
    const { data, stack } = out;
    if (data !== null && stack !== null) return await this.#content(out, { data, stack }, error, round);
    const copy = copyIn(out);
    if (copy !== null) return await this.#copied(out, copy, error, round);
    const op = out.ops.at(-1);
    if (op === undefined) return () => null;
    const moved = out.ops.at(-2);
    if (moved?.t === "rename" && isWhiteoutOf(op, moved)) {
      // A rename that leaves a whiteout behind (RENAME_WHITEOUT).
      const step = await this.#rename(out, moved, error, round);
      return () => {
        const ops = step();
        return ops === null ? null : [...ops, op];
      };
    }
    const gone = error.code === "not_found" || error.code === "not_a_directory";
    switch (op.t) {
      case "create":
        return await this.#create(out, op, error, round);
      case "link":
        if (error.code === "already_exists" && out.ops.length === 1) return await this.#nameTaken(out, op, round);
        if (gone && this.#createdHere(out, op.ino)) return () => [op];
        if (await this.#stat(op.ino) !== null) return await this.#parentGone(out, op, op.parent, round);
        return () => null;
      case "unlink":
        return error.code === "conflict" ? await this.#removeChanged(out, op, round) : () => null;
      case "rename":
        return await this.#rename(out, op, error, round);
      case "rmdir":
        return () => null;
      default:
        return gone && this.#createdHere(out, op.ino) ? () => [op] : () => null;
    }
  }

  #stat(ino: number): Promise<Stat | null> {
    return this.#s.link.call("stat", { ino });
  }
  #lookup(parent: number, name: string): Promise<Stat | null> {
    return this.#s.link.call("lookup", { parent, name });
  }
  /** Does an earlier record of ours, refused for now, make the node? */
  #createdHere(before: Outgoing, ino: number): boolean {
    const list = this.#s.list();
    return list.slice(0, list.indexOf(before)).some((out) =>
      out.state !== "visible" && out.ops.some((op) => op.t === "create" && op.ino === ino)
    );
  }
  /** Does a later record of ours take the node's last name away, as we knew them? Then nobody here wants it any more. */
  #removedLater(out: Outgoing, ino: number): boolean {
    const list = this.#s.list();
    return this.#s.replica.tree.anyName(ino) === null &&
      list.slice(list.indexOf(out) + 1).some(({ ops }) => ops.some((op) => removedBy(op) === ino && !leavesOthers(op)));
  }
  /** Did the server take a later version of ours, as others had made the file just what that one was made from? */
  #appliedLater(out: Outgoing, ino: number): boolean {
    const list = this.#s.list();
    return list.slice(list.indexOf(out) + 1).some((later) =>
      later.state === "visible" && !later.skipped && (later.data?.ino ?? copyIn(later)?.ino) === ino
    );
  }
  /** Does an earlier record of ours, refused for now, take the node from there? Then the name may become free. */
  #leaves(out: Outgoing, place: Place, ino: number): boolean {
    const list = this.#s.list();
    return list.slice(0, list.indexOf(out)).some(({ ops, state }) =>
      state !== "visible" &&
      ops.some((op) =>
        (op.t === "unlink" || op.t === "rename" || op.t === "rmdir") && op.ino === ino && op.parent === place.parent &&
        op.name === place.name
      )
    );
  }
  #path(place: Place): string {
    const folder = this.#s.replica.tree.pathOf(place.parent);
    return folder === null ? place.name : folder === "/" ? `/${place.name}` : `${folder}/${place.name}`;
  }
  #time(): Time {
    return splitTime(this.#s.clock.now());
  }
  #note(kind: ConflictKind, at: Place, winner: "ours" | "theirs", winnerIno: number, loser: Place, loserIno: number) {
    const { found, clock, log } = this.#s;
    const policy = this.#s.policy();
    const conflict = found.add({
      at: clock.now(),
      kind,
      policy,
      path: this.#path(at),
      winner,
      winnerIno,
      loser: this.#path(loser),
      loserIno,
      open: policy === "manual",
    });
    log(`both versions are kept: ${winner} is ${conflict.path}, the other one ${conflict.loser}`);
  }

  // --- places ---

  /** `name (conflict HOST 2026-11-21 14.03).ext`, free on both sides and not given out in this round. */
  async #freeName(parent: number, name: string, round: Round, partial = false): Promise<string> {
    const dot = name.lastIndexOf(".");
    const stem = dot > 0 ? name.slice(0, dot) : name;
    const extension = dot > 0 && nameByteLength(name.slice(dot)) < 100 ? name.slice(dot) : "";
    const at = new Date(this.#s.clock.now()).toISOString();
    for (let n = 1;; n++) {
      const label = ` (conflict ${this.#s.host} ${at.slice(0, 10)} ${at.slice(11, 13)}.${at.slice(14, 16)}${
        partial ? " partial" : ""
      }${n === 1 ? "" : ` ${n}`})`;
      let cut = extension === "" ? name : stem;
      while (nameByteLength(cut + label + extension) > 255) cut = cut.slice(0, -1);
      const candidate = cut + label + extension;
      if (round.names.has(`${parent}/${candidate}`)) continue;
      if (this.#s.replica.tree.entry(parent, candidate) !== 0) continue;
      if (await this.#lookup(parent, candidate) !== null) continue;
      round.names.add(`${parent}/${candidate}`);
      return candidate;
    }
  }
  /** The conflict folder; `before` makes it when it is not there. */
  async #attic(round: Round): Promise<{ ino: number; before: Create[] }> {
    if (round.attic !== 0) return { ino: round.attic, before: [] };
    const there = await this.#lookup(ROOT_INO, CONFLICT_FOLDER);
    if (there !== null && isDir(there.mode)) {
      round.attic = there.ino;
      return { ino: there.ino, before: [] };
    }
    const name = there === null ? CONFLICT_FOLDER : await this.#freeName(ROOT_INO, CONFLICT_FOLDER, round);
    round.attic = this.#s.replica.allotIno();
    const create = this.#folder({ parent: ROOT_INO, name }, round.attic, null);
    return { ino: round.attic, before: [create] };
  }
  #folder(place: Place, ino: number, like: Stat | null): Create {
    const { mode, uid, gid } = like ?? { mode: S_IFDIR | 0o755, uid: 0, gid: 0 };
    return { t: "create", ...place, ino, mode: S_IFDIR | (mode & 0o7777), uid, gid, rdev: 0, time: this.#time() };
  }
  /** A place in the conflict folder for a file of this name. */
  async #aside(name: string, round: Round, partial = false): Promise<{ place: Place; before: Create[] }> {
    const { ino, before } = await this.#attic(round);
    return { place: { parent: ino, name: await this.#freeName(ino, name, round, partial) }, before };
  }
  /** Where the loser goes when it is ours. */
  async #forOurs(at: Place, round: Round, partial = false): Promise<{ place: Place; before: Create[] }> {
    const beside = this.#s.policy() === "keep-both" || this.#s.policy() === "client-wins" ||
      this.#s.policy() === "newer" &&
        partial;
    if (!beside) return await this.#aside(at.name, round, partial);
    return {
      place: { parent: at.parent, name: await this.#freeName(at.parent, at.name, round, partial) },
      before: [],
    };
  }
  /** The folder, made again when somebody removed it while we put something into it; else the conflict folder. */
  async #revive(out: Outgoing, dir: number, round: Round): Promise<{ ino: number; before: Create[] }> {
    const promised = round.folders.get(dir);
    if (promised !== undefined) return { ino: promised, before: [] };
    if (dir === ROOT_INO || this.#createdHere(out, dir)) return { ino: dir, before: [] };
    const there = await this.#stat(dir);
    if (there !== null) return { ino: dir, before: [] };
    const { replica } = this.#s;
    const known = replica.stat(dir);
    const name = replica.tree.anyName(dir) ?? this.#s.lastName(dir);
    if (known === null || name === null) {
      const attic = await this.#attic(round);
      round.folders.set(dir, attic.ino);
      return attic;
    }
    const parent = await this.#revive(out, name.parent, round);
    const taken = await this.#lookup(parent.ino, name.name);
    if (taken !== null && isDir(taken.mode)) {
      round.folders.set(dir, taken.ino);
      return { ino: taken.ino, before: parent.before };
    }
    const label = taken === null ? name.name : await this.#freeName(parent.ino, name.name, round);
    round.folders.set(dir, dir);
    const create = this.#folder({ parent: parent.ino, name: label }, dir, known);
    return { ino: dir, before: [...parent.before, create] };
  }

  // --- changing what is here; only from a step ---

  /** The record speaks of these now: the server's older news of them is passed over until it is delivered. */
  #regard(out: Outgoing, entries: readonly (Place & { ino: number })[], nodes: readonly number[] = []): void {
    const fresh = nodes.filter((ino) => !out.touched.nodes.includes(ino));
    out.touched.nodes.push(...fresh);
    for (const entry of entries) out.touched.entries.push(entry);
    this.#s.replica.guard({ entries: [...entries], nodes: fresh });
  }
  #tell(place: Place): void {
    this.#s.notifier()?.invalidateEntry(place.parent, place.name);
    this.#s.notifier()?.invalidateInode(place.parent, true);
  }
  #name(out: Outgoing, place: Place, ino: number): void {
    this.#s.replica.touch();
    this.#s.replica.tree.putEntry(place.parent, place.name, ino);
    this.#s.cameBack(ino);
    this.#regard(out, [{ ...place, ino }], [place.parent]);
    this.#tell(place);
  }
  #unname(out: Outgoing, place: Place, ino: number): void {
    this.#s.replica.touch();
    if (this.#s.replica.tree.entry(place.parent, place.name) === ino) {
      this.#s.replica.tree.dropEntry(place.parent, place.name);
    }
    this.#regard(out, [{ ...place, ino: 0 }]);
    this.#tell(place);
  }
  #make(out: Outgoing, creates: readonly Create[]): void {
    const { replica } = this.#s;
    for (const create of creates) {
      replica.touch();
      if (replica.stat(create.ino) === null) {
        replica.tree.put({ ...blankStat(create.ino, create.mode, create.time), nlink: 2 });
        replica.setComplete(create.ino, true);
        replica.learnXattrs(create.ino, []);
      }
      this.#regard(out, [], [create.ino]);
      this.#name(out, create, create.ino);
    }
  }
  /** Do later changes of ours say what has this name? */
  #saidLater(out: Outgoing, place: Place): boolean {
    const list = this.#s.list();
    return list.slice(list.indexOf(out) + 1).some(({ ops, state }) =>
      state !== "visible" &&
      ops.some((op) => namedIn(op).some((n) => n.parent === place.parent && n.name === place.name))
    );
  }
  /** Ours gets the name. What we put into a folder that became another one may not have it there yet. */
  #takeOver(out: Outgoing, place: Place, theirs: number, ours: number): void {
    if (this.#s.replica.tree.entry(place.parent, place.name) !== theirs) return;
    if (this.#saidLater(out, place)) this.#unname(out, place, theirs);
    else this.#name(out, place, ours);
  }
  /** Theirs has this name here too, unless later changes of ours say otherwise. */
  #theirs(out: Outgoing, place: Place, theirs: Stat | null): void {
    if (this.#saidLater(out, place)) return;
    this.#s.replica.touch();
    if (theirs === null) this.#s.replica.tree.dropEntry(place.parent, place.name);
    else {
      this.#take(theirs);
      this.#s.replica.tree.putEntry(place.parent, place.name, theirs.ino);
      this.#s.cameBack(theirs.ino);
    }
    this.#tell(place);
  }
  /** Later changes of ours that speak of the node under its old name, or of a folder under its old number. */
  #rewriteLater(out: Outgoing, round: Round, change: (op: Op) => Op): void {
    const list = this.#s.list();
    for (const later of list.slice(list.indexOf(out) + 1)) {
      if (later.state === "visible") continue;
      let changed = false;
      const ops = later.ops.map((op) => {
        const next = change(op);
        if (next !== op) changed = true;
        return next;
      });
      if (!changed) continue;
      later.ops = ops;
      round.rewritten.add(later);
      this.#regard(later, ops.flatMap((op) => namedIn(op)), ops.flatMap((op) => op.t === "attr" ? [op.ino] : []));
    }
  }
  /** Ours has another name: also what we did later under the old one, to it or to what we put in its place. */
  #moveOurs(out: Outgoing, ino: number, from: Place, to: Place, round: Round): void {
    const { replica } = this.#s;
    const isFrom = (parent: number, name: string) => parent === from.parent && name === from.name;
    // What has the old name after each later change; 0: nothing of this any more.
    let there = ino;
    this.#rewriteLater(out, round, (op) => {
      if (there === 0 || (op.t !== "unlink" && op.t !== "rmdir" && op.t !== "rename")) return op;
      const comes = op.t === "rename" && isFrom(op.newParent, op.newName);
      if (op.ino === there && isFrom(op.parent, op.name)) {
        if (comes) return { ...op, parent: to.parent, name: to.name, newParent: to.parent, newName: to.name };
        there = 0;
        return { ...op, parent: to.parent, name: to.name };
      }
      if (!comes || op.overIno !== there) return op;
      there = op.ino;
      return { ...op, newParent: to.parent, newName: to.name };
    });
    replica.touch();
    if (there !== 0) {
      if (replica.tree.entry(from.parent, from.name) === there) replica.tree.dropEntry(from.parent, from.name);
      replica.tree.putEntry(to.parent, to.name, there);
      this.#s.cameBack(there);
    }
    this.#regard(out, [{ ...from, ino: 0 }, { ...to, ino }], [to.parent]);
    this.#tell(from);
    this.#tell(to);
  }
  /** An earlier settlement of the record did not come through: what it put before it is decided anew. */
  #undo(out: Outgoing): void {
    const before = putBefore(out);
    if (before.length === 0) return;
    const { tree } = this.#s.replica;
    this.#s.replica.touch();
    this.#s.uncertain(out);
    for (const op of before) {
      if (op.t === "create" && op.ino === out.data?.ino) continue;
      for (const { parent, name, ino } of namedIn(op)) {
        if (ino === 0 || tree.entry(parent, name) !== ino) continue;
        tree.dropEntry(parent, name);
        this.#tell({ parent, name });
      }
    }
  }

  // --- cases ---

  /** A folder that a settlement of ours wanted to make first was made by somebody else as well. */
  async #madeTwice(out: Outgoing, round: Round): Promise<Step | null> {
    const before = putBefore(out);
    for (const op of before) {
      if (op.t !== "create" || !isDir(op.mode)) continue;
      const theirs = await this.#lookup(op.parent, op.name);
      if (theirs === null || !isDir(theirs.mode) || theirs.ino === op.ino) continue;
      return () => {
        this.#merge(out, op, theirs, round);
        const ops = out.ops.filter((each) => each !== op).map((each) => inFolder(each, op.ino, theirs.ino));
        this.#regard(out, ops.flatMap((each) => namedIn(each)));
        return ops;
      };
    }
    return null;
  }
  async #create(out: Outgoing, op: Create, error: FsError, round: Round): Promise<Step> {
    if (await this.#stat(op.ino) !== null) return () => out.data === null ? null : [];
    if (await this.#lookup(op.parent, op.name) !== null) return await this.#nameTaken(out, op, round);
    const passing = error.code === "already_exists" || error.code === "not_found" || error.code === "not_a_directory";
    if (!passing && out.ops.length === 1 && out.data === null) return () => null;
    return await this.#parentGone(out, op, op.parent, round);
  }

  /** A name we gave (create, link) was given by somebody else as well. */
  async #nameTaken(out: Outgoing, op: Create | (Op & { t: "link" }), round: Round): Promise<Step> {
    const theirs = await this.#lookup(op.parent, op.name);
    if (theirs === null) return () => [op];
    if (theirs.ino === op.ino) return () => out.data === null ? null : [];
    if (this.#leaves(out, op, theirs.ino)) return () => [op];
    if (op.t === "create" && isDir(op.mode) && isDir(theirs.mode)) return () => this.#merge(out, op, theirs, round);
    const mine = this.#s.replica.stat(op.ino);
    const files = !isDir(theirs.mode) && (op.t === "link" || !isDir(op.mode));
    if (files && this.#oursWins(mine, theirs)) {
      const { place, before } = await this.#aside(op.name, round);
      return () => {
        this.#make(out, before);
        this.#putAside(out, theirs, place);
        this.#takeOver(out, op, theirs.ino, op.ino);
        this.#note("name-name", op, "ours", op.ino, place, theirs.ino);
        return [...before, this.#moveOp(op, theirs.ino, place), op];
      };
    }
    const { place, before } = files
      ? await this.#forOurs(op, round)
      : { place: { parent: op.parent, name: await this.#freeName(op.parent, op.name, round) }, before: [] };
    return () => {
      this.#make(out, before);
      this.#moveOurs(out, op.ino, op, place, round);
      this.#theirs(out, op, theirs);
      this.#note("name-name", op, "theirs", theirs.ino, place, op.ino);
      return [...before, { ...op, ...place }];
    };
  }
  #oursWins(mine: Stat | null, theirs: Stat, time?: Time): boolean {
    if (this.#s.policy() === "client-wins") return true;
    if (this.#s.policy() !== "newer") return false;
    const at = time ?? (mine === null ? null : { sec: mine.mtimeSec, nsec: mine.mtimeNsec });
    if (at === null) return false;
    return at.sec !== theirs.mtimeSec ? at.sec > theirs.mtimeSec : at.nsec > theirs.mtimeNsec;
  }
  #moveOp(from: Place, ino: number, to: Place): Rename {
    return {
      t: "rename",
      parent: from.parent,
      name: from.name,
      newParent: to.parent,
      newName: to.name,
      flags: 0,
      ino,
      overIno: 0,
      time: this.#time(),
    };
  }
  /** The server's attributes, unless ours are newer; without any the node could not be shown. */
  #take(theirs: Stat): void {
    const { replica, stacks } = this.#s;
    replica.touch();
    if (replica.stat(theirs.ino) === null) replica.tree.put(theirs);
    else if (!stacks.has(theirs.ino)) replica.learn(theirs);
    // News may have come since the server was asked.
    replica.missed.addNode(theirs.ino);
  }
  /** Theirs lies at this place afterwards. */
  #putAside(out: Outgoing, theirs: Stat, place: Place): void {
    this.#take(theirs);
    this.#regard(out, [], [theirs.ino]);
    this.#name(out, place, theirs.ino);
  }

  /** Both made a folder of this name: it is one folder, theirs, and what we put into ours goes there. */
  #merge(out: Outgoing, create: Create, theirs: Stat, round: Round): null {
    const { replica } = this.#s;
    const [mine, ino] = [create.ino, theirs.ino];
    this.#s.log(`the folder ${JSON.stringify(create.name)} was made here and there: it is one folder now`);
    round.folders.set(mine, ino);
    this.#rewriteLater(out, round, (op) => inFolder(op, mine, ino));
    replica.touch();
    this.#moveChildren(mine, ino);
    replica.tree.dropEntry(create.parent, create.name);
    replica.tree.dropNode(mine);
    replica.setComplete(mine, false);
    this.#take(theirs);
    replica.setComplete(ino, false);
    replica.tree.putEntry(create.parent, create.name, ino);
    this.#s.cameBack(ino);
    this.#s.notifier()?.invalidateInode(mine, true);
    this.#tell(create);
    return null;
  }

  /** What is in the one folder here is in the other. */
  #moveChildren(from: number, to: number): void {
    const { replica } = this.#s;
    replica.touch();
    for (;;) {
      const page = replica.tree.readDir(from, null, 1000);
      if (page.length === 0) return;
      for (const { name, stat } of page) {
        replica.tree.dropEntry(from, name);
        // What both have is settled with its own record.
        if (replica.tree.entry(to, name) === 0) replica.tree.putEntry(to, name, stat.ino);
        this.#tell({ parent: to, name });
      }
    }
  }
  /** The folder we put something into was removed. */
  async #parentGone(
    out: Outgoing,
    op: Create | (Op & { t: "link" }) | Rename,
    dir: number,
    round: Round,
  ): Promise<Step> {
    const folder = await this.#revive(out, dir, round);
    if (folder.ino === dir && folder.before.length === 0) return () => [op];
    return () => {
      this.#make(out, folder.before);
      if (folder.ino === dir) {
        this.#note("folder-removed", this.#nameOf(dir), "ours", dir, this.#nameOf(dir), 0);
        return [...folder.before, op];
      }
      // It is another folder now: what else we did in it goes there as well.
      const moved = inFolder(op, dir, folder.ino);
      this.#rewriteLater(out, round, (each) => inFolder(each, dir, folder.ino));
      this.#moveChildren(dir, folder.ino);
      const [from, to] = [namedIn(op).at(-1), namedIn(moved).at(-1)];
      if (from !== undefined) this.#regard(out, [{ ...from, ino: 0 }]);
      if (to !== undefined) this.#regard(out, [to], [to.parent]);
      return [...folder.before, moved];
    };
  }
  #nameOf(ino: number): Place {
    return this.#s.replica.tree.anyName(ino) ?? this.#s.lastName(ino) ?? { parent: ROOT_INO, name: `inode ${ino}` };
  }

  /** We removed what somebody else has changed: the changed version lives on. */
  async #removeChanged(out: Outgoing, op: Op & { t: "unlink" }, round: Round): Promise<Step> {
    const theirs = await this.#lookup(op.parent, op.name);
    if (theirs === null || theirs.ino !== op.ino || !this.#oursWins(null, theirs, op.time)) {
      return () => {
        if (theirs !== null && theirs.ino === op.ino) {
          this.#s.log(`${this.#path(op)} was removed here and changed elsewhere: the changed version stays`);
        }
        return null;
      };
    }
    const { place, before } = await this.#aside(op.name, round);
    return () => {
      this.#make(out, before);
      this.#putAside(out, theirs, place);
      this.#note("remove-edit", op, "ours", 0, place, theirs.ino);
      return [...before, this.#moveOp(op, theirs.ino, place)];
    };
  }

  async #rename(out: Outgoing, op: Rename, error: FsError, round: Round): Promise<Step> {
    if (error.code === "not_found" || error.code === "not_a_directory") {
      if (this.#createdHere(out, op.ino)) return () => [op];
      const named = await this.#lookup(op.parent, op.name);
      if (named === null || named.ino !== op.ino) return () => null;
      if (error.code === "not_a_directory") return await this.#replaceChanged(out, op, named, round);
      return op.newParent === op.parent ? () => null : await this.#parentGone(out, op, op.newParent, round);
    }
    const inTheWay = ["conflict", "already_exists", "is_a_directory", "directory_not_empty"].includes(error.code);
    if (!inTheWay || op.flags > 1) return () => null;
    const source = await this.#lookup(op.parent, op.name);
    // Renamed by somebody else first: that name stands.
    if (source === null || source.ino !== op.ino) return () => null;
    return await this.#replaceChanged(out, op, source, round);
  }
  /** Something else has the new name than what we meant to replace. */
  async #replaceChanged(out: Outgoing, op: Rename, source: Stat, round: Round): Promise<Step> {
    const theirs = await this.#lookup(op.newParent, op.newName);
    if (theirs === null) {
      return await this.#stat(op.newParent) === null
        ? await this.#parentGone(out, op, op.newParent, round)
        : () => [{ ...op, overIno: 0 }];
    }
    const target = { parent: op.newParent, name: op.newName };
    if (this.#leaves(out, target, theirs.ino)) return () => [op];
    const files = !isDir(source.mode) && !isDir(theirs.mode);
    if (files && this.#oursWins(this.#s.replica.stat(op.ino) ?? source, theirs)) {
      const { place, before } = await this.#aside(op.newName, round);
      return () => {
        this.#make(out, before);
        this.#putAside(out, theirs, place);
        this.#takeOver(out, target, theirs.ino, op.ino);
        this.#note("replace-edit", target, "ours", op.ino, place, theirs.ino);
        const { overContent: _, overOthers: __, ...rest } = op;
        return [...before, this.#moveOp(target, theirs.ino, place), { ...rest, overIno: 0 }];
      };
    }
    const { place, before } = files
      ? await this.#forOurs(target, round)
      : { place: { parent: target.parent, name: await this.#freeName(target.parent, target.name, round) }, before: [] };
    return () => {
      this.#make(out, before);
      this.#moveOurs(out, op.ino, target, place, round);
      this.#theirs(out, target, theirs);
      this.#note("replace-edit", target, "theirs", theirs.ino, place, op.ino);
      const { overContent: _, overOthers: __, ...rest } = op;
      return [...before, { ...rest, newParent: place.parent, newName: place.name, overIno: 0 }];
    };
  }

  /**
   * What copied another file's content is settled, and from then on is, a write of those bytes: they are read from that
   * content, which is perhaps only here any more.
   */
  async #copied(out: Outgoing, op: Copy, error: FsError, round: Round): Promise<Step> {
    const { ino, content, size, holes = 0, baseContent = null, mode, time } = op;
    if (content === null) return () => null;
    // Ours, perhaps only while the server is asked.
    const replaced = () => {
      const list = this.#s.list();
      return list.slice(list.indexOf(out) + 1).some((each) =>
        !each.dropped && (copyIn(each)?.ino === ino || (each.data?.ino === ino && each.data.expect !== undefined))
      );
    };
    const giveUp = () => {
      this.#expectInstead(out, ino, content, baseContent, round);
      return null;
    };
    if (replaced()) return giveUp;
    const ours = () => {
      const stack = this.#s.stacks.get(ino);
      return stack?.base === content ? stack : null;
    };
    const attr = mode === undefined ? {} : { attr: { mode } };
    const { MAX_SAFE_INTEGER: floor } = Number;
    const base = { base: content, baseSize: size, expect: baseContent };
    const data: JournaledData = { ino, size, floor, ranges: [], staging: null, ...base, time, ...attr };
    const stack = ours() ?? new LayerStack(content, size, holes);
    out.salvage = this.#s.list().some((other) => other.stack === stack && other.salvage);
    const step = await this.#content(out, { data, stack }, error, round);
    return () => {
      if (replaced()) return giveUp();
      const layer = new Layer(size, Number.MAX_SAFE_INTEGER);
      layer.frozen = true;
      layer.request = out.request;
      out.stack = ours() ?? new LayerStack(content, size, holes);
      out.stack.layers.unshift(layer);
      out.layer = layer;
      out.data = data;
      const node = this.#s.replica.stat(ino);
      // A program may write to the file meanwhile, over what it is here.
      if (!this.#s.stacks.has(ino)) {
        this.#s.stacks.set(ino, out.stack);
        if (node !== null) this.#s.replica.keepBefore(node);
      }
      return step();
    };
  }
  /** A change of ours is given up: later ones of ours that reckon with the content it made reckon with what was before it. */
  #expectInstead(out: Outgoing, ino: number, made: string, before: string | null, round: Round): void {
    this.#rewriteLater(out, round, (op) => {
      const counts = (op.t === "content" || op.t === "unlink") && op.ino === ino && op.baseContent === made;
      if (counts) return { ...op, baseContent: before };
      if (op.t === "rename" && op.overIno === ino && op.overContent === made) return { ...op, overContent: before };
      return op;
    });
  }
  /** New bytes of a file that others changed or removed. */
  async #content(out: Outgoing, { data, stack }: Written, error: FsError, round: Round): Promise<Step> {
    const { replica } = this.#s;
    const copy = out.ops.find((op): op is Create => op.t === "create" && op.ino === data.ino);
    if (copy !== undefined) {
      return await this.#create(out, copy, error, round);
    }
    if (this.#createdHere(out, data.ino)) return () => [];
    // Each of the file's records by itself: they all go.
    if (this.#removedLater(out, data.ino)) {
      return () => {
        const { ino, base, expect } = data;
        if (expect !== undefined && base) this.#expectInstead(out, ino, base, expect, round);
        return null;
      };
    }
    // We had replaced it ourselves: sent now, it would come after what replaced it.
    if (this.#appliedLater(out, data.ino)) return () => null;
    if (round.stacks.has(stack)) return () => [];
    round.stacks.add(stack);
    const theirs = await this.#stat(data.ino);
    // Nobody changed it: the server had only forgotten what was copied.
    if (!out.salvage && theirs !== null && data.expect !== undefined && theirs.content === data.expect) {
      return () => {
        out.expect = data.expect;
        return [];
      };
    }
    const node = replica.stat(data.ino) ?? replica.before(data.ino) ??
      blankStat(data.ino, S_IFREG | 0o600, data.time);
    const known = replica.tree.anyName(data.ino) ?? this.#s.lastName(data.ino);
    if (known !== null) return await this.#contentOf(out, data, known, node, theirs, round);
    // Nobody knows any more what it was called.
    const attic = await this.#attic(round);
    const lost = { parent: attic.ino, name: `inode ${data.ino}` };
    const step = await this.#contentOf(out, data, lost, node, theirs, round);
    return () => {
      this.#make(out, attic.before);
      const ops = step();
      return ops === null ? null : [...attic.before, ...ops];
    };
  }
  async #contentOf(
    out: Outgoing,
    data: JournaledData,
    here: Place,
    node: Stat,
    theirs: Stat | null,
    round: Round,
  ): Promise<Step> {
    const { replica } = this.#s;
    if (theirs === null) return await this.#contentRemoved(out, here, node, round);
    if (out.salvage || !this.#oursWins(node, theirs, data.time)) {
      return await this.#contentBeside(out, here, node, theirs, round);
    }
    if (theirs.content === null) {
      // Nothing of theirs to be kept.
      return () => {
        out.expect = null;
        return [];
      };
    }
    const { place, before } = await this.#aside(here.name, round);
    const ino = replica.allotIno();
    return () => {
      this.#make(out, before);
      const create = this.#file(place, ino, theirs);
      replica.touch();
      replica.tree.put({ ...theirs, ino, nlink: 1 });
      replica.learnXattrs(ino, []);
      this.#regard(out, [], [ino]);
      this.#name(out, place, ino);
      this.#note("edit-edit", here, "ours", data.ino, place, ino);
      out.expect = theirs.content;
      const time = { sec: theirs.mtimeSec, nsec: theirs.mtimeNsec };
      const { content, size } = theirs;
      const holes = theirs.holes ? { holes: theirs.holes } : {};
      const copied: Op = { t: "content", ino, base: null, baseContent: null, content, size, ...holes, time };
      return [...before, create, copied];
    };
  }
  #file(place: Place, ino: number, like: Stat): Create {
    const { mode, uid, gid } = like;
    return { t: "create", ...place, ino, mode, uid, gid, rdev: 0, time: this.#time() };
  }
  /** Removed there, changed here: it comes back with the change, as the same file. */
  async #contentRemoved(out: Outgoing, here: Place, node: Stat, round: Round): Promise<Step> {
    const { replica } = this.#s;
    const policy = this.#s.policy();
    const toAttic = policy === "server-wins" || policy === "manual";
    let place: Place;
    let before: Create[];
    if (toAttic) ({ place, before } = await this.#aside(here.name, round));
    else {
      const folder = await this.#revive(out, here.parent, round);
      const taken = await this.#lookup(folder.ino, here.name);
      before = folder.before;
      const local = replica.tree.entry(folder.ino, here.name);
      const free = taken === null && (local === 0 || local === node.ino) &&
        !round.names.has(`${folder.ino}/${here.name}`);
      if (free) round.names.add(`${folder.ino}/${here.name}`);
      place = { parent: folder.ino, name: free ? here.name : await this.#freeName(folder.ino, here.name, round) };
    }
    return () => {
      this.#make(out, before);
      replica.touch();
      if (replica.stat(node.ino) === null) replica.tree.put(node);
      this.#unname(out, here, node.ino);
      this.#name(out, place, node.ino);
      this.#note(
        "edit-remove",
        here,
        toAttic ? "theirs" : "ours",
        toAttic ? 0 : node.ino,
        place,
        toAttic ? node.ino : 0,
      );
      return [...before, this.#file(place, node.ino, node), ...this.#attributes(node.ino, node.ino)];
    };
  }
  /**
   * The extended attributes that `from` has here, as far as they are known, for `to`, which the server makes anew. They travel
   * in one record: what does not fit is left out, and the log says so.
   */
  #attributes(from: number, to: number): Op[] {
    const time = this.#time();
    const attributes = this.#s.replica.tree.xattrs(from);
    const ops: Op[] = [];
    let bytes = 0;
    for (const [name, value] of attributes) {
      if (ops.length >= MAX_ATTRIBUTES || bytes + value.length > MAX_ATTRIBUTE_BYTES) continue;
      bytes += value.length;
      ops.push({ t: "setxattr", ino: to, name, value, flags: 0, time });
    }
    const { length } = attributes;
    if (ops.length < length) {
      this.#s.log(`conflict: ${length - ops.length} of ${length} extended attributes are left out`);
    }
    return ops;
  }
  /** Theirs stays; ours becomes a file of its own beside it. */
  async #contentBeside(out: Outgoing, here: Place, node: Stat, theirs: Stat, round: Round): Promise<Step> {
    const { replica } = this.#s;
    const { place, before } = await this.#forOurs(here, round, out.salvage);
    const ino = replica.allotIno();
    return () => {
      const { data, stack } = out;
      if (data === null || stack === null) return null;
      this.#make(out, before);
      // Ours lives on under a new number; theirs is at the old one.
      if (this.#s.stacks.get(data.ino) === stack) this.#s.forgetStack(data.ino);
      this.#s.stacks.set(ino, stack);
      const old = data.ino;
      for (const later of this.#s.list()) {
        if (later.stack !== stack || later.data === null || later.state === "visible") continue;
        (later.data as { ino: number }).ino = ino;
        this.#regard(later, [], [ino]);
        if (later.state === "refused") round.rewritten.add(later);
      }
      round.rewritten.delete(out);
      replica.touch();
      const attributes = this.#attributes(old, ino);
      replica.tree.put({ ...node, ino, nlink: 1, size: stack.size });
      replica.learnXattrs(ino, attributes.flatMap((op) => op.t === "setxattr" ? [[op.name, op.value] as const] : []));
      this.#name(out, place, ino);
      if (!replica.isPendingNode(old)) replica.learn(theirs);
      else replica.tree.put({ ...theirs, nlink: replica.stat(old)?.nlink ?? theirs.nlink });
      replica.missed.addNode(old);
      this.#note(out.salvage ? "partial" : "edit-edit", here, "theirs", old, place, ino);
      this.#s.notifier()?.invalidateInode(old, true);
      this.#tell(here);
      this.#s.moved(ino);
      return [...before, this.#file(place, ino, node), ...attributes];
    };
  }
}

/** Had the node other names, for all we knew, when this took one? */
const leavesOthers = (op: Op): boolean =>
  (op.t === "unlink" && op.others === true) || (op.t === "rename" && op.overOthers === true);
const isWhiteoutOf = (op: Op, moved: Rename): boolean =>
  op.t === "create" && moved.parent === op.parent && moved.name === op.name;
/** What an earlier settlement put before what the record is about. */
function putBefore(out: Outgoing): readonly Op[] {
  if (out.data !== null) return out.ops;
  const [moved, last] = out.ops.slice(-2);
  const pair = moved?.t === "rename" && last !== undefined && isWhiteoutOf(last, moved);
  return out.ops.slice(0, pair ? -2 : -1);
}
/** The names an operation gives or takes. */
export function namedIn(op: Op): (Place & { ino: number })[] {
  switch (op.t) {
    case "create":
    case "link":
      return [{ parent: op.parent, name: op.name, ino: op.ino }];
    case "unlink":
    case "rmdir":
      return [{ parent: op.parent, name: op.name, ino: 0 }];
    case "rename":
      return [
        { parent: op.parent, name: op.name, ino: 0 },
        { parent: op.newParent, name: op.newName, ino: op.ino },
      ];
    default:
      return [];
  }
}
/** The operation with folder `to` where it says folder `from`. */
function inFolder(op: Op, from: number, to: number): Op {
  switch (op.t) {
    case "create":
    case "link":
    case "unlink":
      return op.parent === from ? { ...op, parent: to } : op;
    case "rmdir":
      if (op.parent !== from && op.ino !== from) return op;
      return { ...op, parent: op.parent === from ? to : op.parent, ino: op.ino === from ? to : op.ino };
    case "rename":
      if (op.parent !== from && op.newParent !== from && op.ino !== from && op.overIno !== from) return op;
      return {
        ...op,
        parent: op.parent === from ? to : op.parent,
        newParent: op.newParent === from ? to : op.newParent,
        ino: op.ino === from ? to : op.ino,
        ...(op.overIno === undefined ? {} : { overIno: op.overIno === from ? to : op.overIno }),
      };
    default:
      return op.ino === from ? { ...op, ino: to } : op;
  }
}
