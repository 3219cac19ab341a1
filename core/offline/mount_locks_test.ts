/** The locks of mounts against the server's, over connections that delay and break: what they protect, and what is told. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { handClock, turns } from "../../tests/support/hand_clock.ts";
import { FsError } from "../fs/error.ts";
import type { LockRequest } from "../fs/inode_fs.ts";
import type { Calls, Method, Pushes, PushKind, ServerLink, Welcome } from "../remote/protocol.ts";
import { SharedLocks } from "../remote/shared_locks.ts";
import { MountLocks } from "./mount_locks.ts";

const never = new AbortController().signal;

/** Numbers that look random, the same for the same seed. */
function dice(seed: number): (below: number) => number {
  let x = seed | 1;
  return (below) => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return (x >>> 0) % below;
  };
}

class World {
  readonly clock = handClock();
  readonly links = new Map<number, Line>();
  /** What everybody sees of each file: here a file is a number. */
  readonly files = new Map<number, number>();
  readonly log: string[] = [];
  readonly locks: SharedLocks;
  constructor(readonly roll: (below: number) => number, leaseMs = 1e9) {
    this.locks = new SharedLocks({
      clock: this.clock,
      run: "run",
      leaseMs,
      memory: { load: () => Promise.resolve({ runs: [], devices: [] }), save: () => Promise.resolve() },
      recall: (device, ino) => this.links.get(device)?.push("recall", { ino }) ?? false,
      log: (message) => this.log.push(message),
    });
  }
}

/** A connection: both directions keep their order, take their time, and lose what is on the way when they break. */
class Line implements ServerLink {
  check(): void {}
  pause(): void {}
  resume(): void {}
  connected = false;
  calls = 0;
  resumeFrom = () => ({ after: null, epoch: null });
  #ended = new AbortController();
  #there: Promise<void> = Promise.resolve();
  #back: Promise<void> = Promise.resolve();
  #recall: (value: Pushes["recall"]) => void = () => {};
  constructor(readonly world: World, readonly device: number) {
    world.links.set(device, this);
  }
  async #delay(): Promise<void> {
    for (let i = 20 + this.world.roll(30); i > 0; i--) await null;
  }
  #inOrder(which: "#there" | "#back", signal: AbortSignal, deliver: () => void): void {
    const after = (which === "#there" ? this.#there : this.#back).then(() => this.#delay()).then(() => {
      if (!signal.aborted) deliver();
    });
    if (which === "#there") this.#there = after;
    else this.#back = after;
  }
  push<K extends PushKind>(_kind: K, value: Pushes[K]): boolean {
    if (!this.connected) return false;
    this.#inOrder("#back", this.#ended.signal, () => this.#recall(value as Pushes["recall"]));
    return true;
  }
  call<M extends Method>(method: M, params: Calls[M]["params"]): Promise<Calls[M]["result"]> {
    this.calls++;
    const { signal } = this.#ended;
    const { locks } = this.world;
    const cut = () => new FsError("unavailable", "cut");
    if (!this.connected) return Promise.reject(cut());
    return new Promise((resolve, reject) => {
      signal.addEventListener("abort", () => reject(cut()), { once: true });
      const handlers: Partial<Record<Method, (p: never) => unknown>> = {
        lock: (p: Calls["lock"]["params"]) => locks.lock(this.device, p, signal),
        cancelLock: (p: Calls["cancelLock"]["params"]) => locks.cancel(this.device, p.ticket),
        unlock: (p: Calls["unlock"]["params"]) => locks.unlock(this.device, p),
        testLock: (p: Calls["testLock"]["params"]) => locks.test(this.device, p, signal),
        claimLocks: (p: Calls["claimLocks"]["params"]) => locks.claim(this.device, p),
        giveBackLocks: (p: Calls["giveBackLocks"]["params"]) => locks.giveBack(this.device, p),
      };
      this.#inOrder("#there", signal, () => {
        Promise.resolve(handlers[method]?.(params as never)).then(
          (result) => this.#inOrder("#back", signal, () => resolve((result ?? null) as Calls[M]["result"])),
          (error) => this.#inOrder("#back", signal, () => reject(error)),
        );
      });
    });
  }
  connect(): void {
    this.connected = true;
    this.#ended = new AbortController();
    this.world.locks.arrived(this.device);
  }
  cut(): void {
    this.connected = false;
    this.#ended.abort();
    this.world.locks.left(this.device);
  }
  putChunks = () => Promise.resolve();
  readContent = () => Promise.reject(new Error("not here"));
  onUp(_listener: (welcome: Welcome) => void): void {}
  onDown(): void {}
  onPush<K extends PushKind>(_kind: K, listener: (value: Pushes[K]) => void): void {
    this.#recall = listener as (value: Pushes["recall"]) => void;
  }
  close = () => Promise.resolve();
}

/** A mount whose files are numbers: written here, delivered in order, read anew when its locks say so. */
class Mount {
  readonly link: Line;
  readonly locks: MountLocks;
  readonly files = new Map<number, number>();
  readonly #journal: { ino: number; value: number; visible: PromiseWithResolvers<void> }[] = [];
  #delivering = false;
  /** Nothing of it gets through. */
  stuck = false;
  /** Connections so far, to tell whether one was lost in between. */
  cuts = 0;
  constructor(readonly world: World, device: number) {
    this.link = new Line(world, device);
    this.locks = new MountLocks({
      link: this.link,
      clock: world.clock,
      log: (message) => world.log.push(message),
      isBehind: () => this.#journal.length > 0,
      isDirty: (ino) => this.#journal.some((each) => each.ino === ino),
      settle: () => Promise.resolve({ visible: this.#journal.at(-1)?.visible.promise ?? Promise.resolve() }),
      refresh: (ino) => {
        if (!this.#journal.some((each) => each.ino === ino)) this.files.set(ino, world.files.get(ino) ?? 0);
        return Promise.resolve();
      },
      alone: () => false,
    });
  }
  write(ino: number, value: number): void {
    this.files.set(ino, value);
    this.#journal.push({ ino, value, visible: Promise.withResolvers() });
    void this.#deliver();
  }
  async #deliver(): Promise<void> {
    if (this.#delivering) return;
    this.#delivering = true;
    for (;;) {
      for (let i = this.world.roll(120); i > 0; i--) await null;
      const next = this.#journal[0];
      if (next === undefined || !this.link.connected || this.stuck) break;
      this.world.files.set(next.ino, next.value);
      this.#journal.shift();
      next.visible.resolve();
    }
    this.#delivering = false;
  }
  connect(): void {
    this.link.connect();
    this.locks.up("run");
    void this.#deliver();
  }
  cut(): void {
    if (!this.link.connected) return;
    this.cuts++;
    this.link.cut();
    this.locks.down();
  }
}

const request = (owner: number, type: LockRequest["type"], start = 0, end = Number.MAX_SAFE_INTEGER): LockRequest => ({
  owner: BigInt(owner),
  start,
  end,
  type,
  pid: owner,
  flock: false,
});
async function errnoOf(work: () => unknown): Promise<number> {
  try {
    await work();
    return 0;
  } catch (error) {
    assert.ok(error instanceof FsError, String(error));
    return error.errno;
  }
}
async function many(n = 40): Promise<void> {
  for (let i = 0; i < n; i++) await turns();
}

Deno.test("counters under locks: no addition is lost, whatever connections break and whoever owns the file", async () => {
  await fc.assert(
    fc.asyncProperty(fc.integer(), fc.integer({ min: 2, max: 4 }), fc.boolean(), async (seed, devices, breaks) => {
      const roll = dice(seed);
      const world = new World(roll);
      await world.locks.start();
      const mounts = Array.from({ length: devices }, (_, i) => new Mount(world, i + 1));
      for (const mount of mounts) mount.connect();
      const INOS = [7, 8];
      const added = new Map(INOS.map((ino) => [ino, 0]));
      const inside = new Map<number, string>();
      const program = async (mount: Mount, owner: number) => {
        for (let i = 0; i < 8; i++) {
          for (let n = roll(200); n > 0; n--) await null;
          const ino = INOS[roll(2)] ?? 7;
          const wait = roll(3) > 0;
          const { cuts } = mount;
          const online = mount.link.connected;
          const errno = await errnoOf(() => mount.locks.setlk(ino, owner, request(owner, "write"), wait, never));
          if (errno !== 0) {
            assert.equal(errno, 11);
            continue;
          }
          // What was given without a connection may turn out to be another's: such a program would be told with EIO.
          if (online && cuts === mount.cuts) {
            const who = `${mount.link.device}/${owner}`;
            assert.equal(inside.get(ino), undefined, `${who} is let in while another is`);
            inside.set(ino, who);
            const value = mount.files.get(ino) ?? 0;
            for (let n = roll(300); n > 0; n--) await null;
            mount.write(ino, value + 1);
            added.set(ino, (added.get(ino) ?? 0) + 1);
            inside.delete(ino);
          }
          await errnoOf(() => mount.locks.setlk(ino, owner, request(owner, "unlock"), false, never));
        }
      };
      let over = false;
      const trouble = (async () => {
        for (let round = 0; !over; round++) {
          if (round > 3000) {
            throw new Error(
              `somebody waits for ever: ${JSON.stringify([world.locks.stats(), mounts.map((m) => m.locks.status())])}`,
            );
          }
          for (let n = 200 + roll(2000); n > 0; n--) await null;
          await world.clock.move(roll(4) === 0 ? 11_000 : 10);
          if (!breaks) continue;
          const mount = mounts[roll(mounts.length)];
          if (mount === undefined || roll(2) === 0) continue;
          mount.cut();
          for (let n = roll(600); n > 0; n--) await null;
          mount.connect();
        }
      })();
      const programs = mounts.flatMap((mount) => [1, 2].map((n) => program(mount, mount.link.device * 10 + n)));
      await Promise.race([Promise.all(programs), trouble]);
      over = true;
      await trouble;
      await many(60);
      await world.clock.move(3000);
      for (const ino of INOS) assert.equal(world.files.get(ino) ?? 0, added.get(ino), `counter ${ino}`);
      assert.ok(
        !world.log.some((line) => /lost/.test(line) && !/without a connection/.test(line)),
        world.log.join("\n"),
      );
      for (const mount of mounts) mount.locks.close();
    }),
    {
      numRuns: Number(Deno.env.get("RUNS") ?? 100),
      // A recall that overtook the answer that left the file to the mount was not heeded.
      examples: [[1839010134, 3, false]],
    },
  );
});

Deno.test("a mount alone with a file asks the server once, however often its programs lock", async () => {
  const world = new World(dice(3));
  await world.locks.start();
  const [a, b] = [new Mount(world, 1), new Mount(world, 2)];
  a.connect();
  b.connect();
  await many();
  const before = a.link.calls;
  for (let i = 0; i < 100; i++) {
    await a.locks.setlk(7, 1, request(1, "write"), false, never);
    await a.locks.setlk(7, 1, request(1, "unlock"), false, never);
  }
  assert.equal(a.link.calls, before + 1);
  const taken = a.locks.setlk(7, 1, request(1, "write", 0, 9), true, never);
  assert.equal(taken, undefined, "answered at once");
  assert.equal(await errnoOf(() => b.locks.setlk(7, 2, request(2, "write"), false, never)), 11);
  assert.equal(await errnoOf(() => b.locks.setlk(7, 2, request(2, "write", 10, 19), false, never)), 0);
  assert.equal(await errnoOf(() => a.locks.setlk(7, 1, request(1, "write", 0, 10), false, never)), 11);
  a.locks.close();
  b.locks.close();
});

Deno.test("what is on its way for long holds up no lock of a file that was left alone meanwhile", async () => {
  const world = new World(dice(5));
  const looks: (() => void)[] = [];
  Object.assign(world.clock, { every: (_ms: number, look: () => void) => (looks.push(look), () => {}) });
  await world.locks.start();
  const a = new Mount(world, 1);
  a.connect();
  await many();
  await a.locks.setlk(7, 1, request(1, "write"), false, never);
  await a.locks.setlk(7, 1, request(1, "unlock"), false, never);
  a.stuck = true;
  a.write(8, 1);
  await world.clock.move(60_000);
  for (const look of looks) look();
  await many();
  assert.equal(a.locks.setlk(7, 1, request(1, "write"), false, never), undefined, "answered at once");
  await a.locks.setlk(7, 1, request(1, "unlock"), false, never);
  a.stuck = false;
  a.write(8, 2);
  await many();
  await world.clock.move(60_000);
  for (const look of looks) look();
  await many();
  assert.equal(a.locks.status().owned, 0, "given back when all is there");
  a.locks.close();
});

Deno.test("a lock that another got meanwhile: EIO for its program until it unlocks or closes, and a line in the log", async () => {
  const world = new World(dice(5), 30_000);
  await world.locks.start();
  const [a, b] = [new Mount(world, 1), new Mount(world, 2)];
  a.connect();
  b.connect();
  await a.locks.setlk(7, 100, request(1, "write"), false, never);
  await a.locks.setlk(8, 101, request(1, "write"), false, never);
  a.cut();
  await world.clock.move(31_000);
  await b.locks.setlk(7, 1, request(2, "write"), false, never);
  await b.locks.setlk(7, 1, request(2, "unlock"), false, never);
  a.connect();
  await many();
  assert.ok(world.log.some((line) => /process 1 has lost its record lock on inode 7/.test(line)), world.log.join("\n"));
  assert.ok(a.locks.isLost(100));
  assert.ok(!a.locks.isLost(101));
  assert.equal(await errnoOf(() => a.locks.setlk(7, 100, request(1, "read"), false, never)), 5);
  assert.equal(await errnoOf(() => a.locks.setlk(7, 100, request(1, "unlock"), false, never)), 5);
  assert.ok(!a.locks.isLost(100));
  assert.equal(await errnoOf(() => a.locks.setlk(7, 100, request(1, "write"), false, never)), 0);
  assert.equal(await errnoOf(() => b.locks.setlk(8, 2, request(2, "write"), false, never)), 11, "the other one stands");
  a.locks.close();
  b.locks.close();
});

Deno.test("what waits here goes on waiting at the server when the connection is back, and the other way round", async () => {
  const world = new World(dice(9));
  await world.locks.start();
  const [a, b] = [new Mount(world, 1), new Mount(world, 2)];
  a.connect();
  b.connect();
  await b.locks.setlk(7, 1, request(20, "write"), false, never);
  a.cut();
  await a.locks.setlk(7, 1, request(10, "read", 0, 5), false, never);
  const waits = a.locks.setlk(7, 2, request(11, "write", 0, 5), true, never);
  a.connect();
  await many();
  assert.equal(await errnoOf(() => a.locks.setlk(7, 1, request(10, "unlock"), false, never)), 5, "b was first");
  let got = false;
  void Promise.resolve(waits).then(() => got = true);
  await many();
  assert.ok(!got);
  await b.locks.setlk(7, 1, request(20, "unlock"), false, never);
  await waits;
  const again = b.locks.setlk(7, 1, request(20, "write"), true, never);
  await many();
  b.cut();
  await again;
  const stop = new AbortController();
  const aborted = a.locks.setlk(7, 3, request(12, "write"), true, stop.signal);
  await many();
  stop.abort();
  assert.equal(await errnoOf(() => aborted), 4);
  a.locks.close();
  b.locks.close();
});
