/** The notification queue against a port whose writes end when the test says so. */
import assert from "node:assert/strict";
import { EXPIRE_ONLY, NOTIFY_INC_EPOCH, NOTIFY_INVAL_ENTRY, NOTIFY_INVAL_INODE } from "./abi.ts";
import { Notifier, QUEUE_LIMIT } from "./notifier.ts";

interface Message {
  readonly code: number;
  readonly length: number;
  readonly ino: number;
  /** Offset of INVAL_INODE as signed, flags of INVAL_ENTRY. */
  readonly extra: number;
  readonly name: string;
}

function testPort(known: number[] = []) {
  const messages: Message[] = [];
  const blocked: (() => void)[] = [];
  /** Numbers of READs without an answer, by node. */
  const reading = new Map<number, number>();
  const timers: { at: number; callback: () => void }[] = [];
  let now = 5000;
  return {
    messages,
    known,
    /** Nodes whose first answer the kernel has not taken in. */
    unheard: new Set<number>(),
    now: () => now,
    after: (ms: number, callback: () => void) => void timers.push({ at: now + ms, callback }),
    /** `ms` go by. */
    pass(ms: number): void {
      now += ms;
      for (const { callback } of timers.splice(0).filter((timer) => timer.at <= now || (timers.push(timer), false))) {
        callback();
      }
    },
    reads: 0,
    isBeingRead: (ino: number, reads: number) => (reading.get(ino) ?? Infinity) <= reads,
    read(ino: number): void {
      reading.set(ino, ++this.reads);
    },
    answer: (ino: number) => reading.delete(ino),
    /** Lets every write that is in flight return. */
    release: () => blocked.splice(0).forEach((end) => end()),
    get inFlight() {
      return blocked.length;
    },
    knownInodes: () => Float64Array.from(known),
    isKnown: (ino: number) => known.includes(ino),
    write(buffer: Uint8Array<ArrayBuffer>, length: number): Promise<number> {
      const view = new DataView(buffer.buffer, buffer.byteOffset);
      const code = view.getInt32(4, true);
      assert.equal(view.getUint32(0, true), length);
      assert.equal(view.getBigUint64(8, true), 0n);
      const named = code === NOTIFY_INVAL_ENTRY;
      const nameLength = named ? view.getUint32(24, true) : 0;
      messages.push({
        code,
        length,
        ino: length > 16 ? Number(view.getBigUint64(16, true)) : 0,
        extra: length > 16 ? (named ? view.getUint32(28, true) : Number(view.getBigInt64(24, true))) : 0,
        name: new TextDecoder("latin1").decode(buffer.subarray(32, 32 + nameLength)),
      });
      const ino = code === NOTIFY_INVAL_INODE ? Number(view.getBigUint64(16, true)) : 0;
      return new Promise((resolve) => blocked.push(() => resolve(this.unheard.has(ino) ? -1 : length)));
    },
  };
}

const nextTurn = () => new Promise((resolve) => setTimeout(resolve, 0));

async function drain(notifier: Notifier, port: ReturnType<typeof testPort>): Promise<void> {
  while (port.inFlight > 0) {
    port.release();
    await new Promise((resolve) => setTimeout(resolve, 0));
  }
  await notifier.settled();
}

Deno.test("messages are laid out as linux/fuse.h says", async () => {
  const port = testPort();
  const notifier = new Notifier(port);
  notifier.start(45, true);
  notifier.invalidateInode(2 ** 40 + 5, true);
  notifier.invalidateInode(6, false);
  notifier.invalidateEntry(1, "na\udcffme");
  await drain(notifier, port);
  assert.deepEqual(port.messages, [
    { code: NOTIFY_INVAL_INODE, length: 40, ino: 2 ** 40 + 5, extra: 0, name: "" },
    { code: NOTIFY_INVAL_INODE, length: 40, ino: 6, extra: -1, name: "" },
    { code: NOTIFY_INVAL_ENTRY, length: 38, ino: 1, extra: EXPIRE_ONLY, name: "na\xffme" },
  ]);
});

Deno.test("few writes are in flight at once; what waits behind them is merged, data wins over attributes", async () => {
  const port = testPort();
  const notifier = new Notifier(port);
  notifier.start(45, true);
  for (let ino = 1; ino <= 20; ino++) notifier.invalidateInode(ino, false);
  const atOnce = port.messages.length;
  assert.ok(atOnce < 20 && atOnce === port.inFlight);
  for (let i = 0; i < 1000; i++) notifier.invalidateInode(20, i === 500);
  assert.equal(notifier.stats().queued, 20 - atOnce);
  await drain(notifier, port);
  assert.equal(port.messages.length, 20);
  assert.equal(port.messages.find((message) => message.ino === 20)?.extra, 0);
});

Deno.test("an invalidation asked for while an equal one is being written is written again", async () => {
  const port = testPort();
  const notifier = new Notifier(port);
  notifier.start(45, true);
  notifier.invalidateInode(7, true);
  assert.equal(port.inFlight, 1);
  notifier.invalidateInode(7, true);
  await drain(notifier, port);
  assert.equal(port.messages.length, 2);
});

Deno.test("a queue that overflows becomes one invalidation of everything the kernel holds", async () => {
  const port = testPort([11, 12]);
  const notifier = new Notifier(port);
  for (let i = 0; i <= QUEUE_LIMIT; i++) notifier.invalidateInode(100 + i, true);
  assert.equal(notifier.stats().all, 1);
  assert.ok(notifier.stats().queued < 10);
  notifier.start(45, true);
  await drain(notifier, port);
  assert.equal(port.messages[0]?.code, NOTIFY_INC_EPOCH);
  assert.deepEqual(port.messages.slice(1).map((message) => message.ino), [1, 11, 12]);
});

Deno.test("told waits for what was asked for before, not for what comes after it", async () => {
  const port = testPort([50]);
  const notifier = new Notifier(port);
  let told = false;
  const next = () => new Promise((resolve) => setTimeout(resolve, 0));
  notifier.start(45, true);
  await notifier.told();
  for (let ino = 1; ino <= 20; ino++) notifier.invalidateInode(ino, true);
  void notifier.told().then(() => told = true);
  // New names go on coming: they must not keep what was asked for before from being written.
  for (let round = 0; round < 20 && !told; round++) {
    for (let i = 0; i < 8; i++) notifier.invalidateEntry(1, `n${round}-${i}`);
    port.release();
    await next();
  }
  assert.ok(told);
  assert.ok(notifier.stats().queued > 0, "others still wait");
  await drain(notifier, port);
  told = false;
  notifier.invalidateInode(3, true);
  notifier.invalidateAll();
  void notifier.told().then(() => told = true);
  await next();
  assert.ok(!told);
  await drain(notifier, port);
  await next();
  assert.ok(told, "everything at once is waited for too");
  assert.ok(port.messages.some(({ ino }) => ino === 50));
});

Deno.test("pages are dropped when those who were reading have their bytes; all else passes meanwhile", async () => {
  const port = testPort();
  const notifier = new Notifier(port);
  const next = () => new Promise((resolve) => setTimeout(resolve, 0));
  notifier.start(45, true);
  port.read(5);
  notifier.invalidateInode(5, true);
  notifier.invalidateInode(5, true);
  for (let ino = 10; ino < 30; ino++) notifier.invalidateInode(ino, true);
  notifier.invalidateEntry(1, "new");
  const seen = new Set<string>();
  void notifier.told().then(() => seen.add("all others"));
  void notifier.told(5).then(() => seen.add("with 5"));
  void notifier.dropPages(5).then((dropped) => seen.add(`5: ${dropped}`));
  for (let i = 0; i < 6; i++) {
    port.release();
    await next();
  }
  assert.deepEqual([...seen], ["all others"]);
  assert.ok(notifier.isDropping(5) && !notifier.isDropping(10));
  assert.ok(!port.messages.some(({ ino }) => ino === 5));
  // One that came later is not waited for: its bytes are of what is there now.
  port.answer(5);
  port.read(5);
  notifier.readAnswered();
  assert.equal(port.messages.filter(({ ino }) => ino === 5).length, 1);
  assert.ok(notifier.isDropping(5), "until the kernel has done it");
  await drain(notifier, port);
  await next();
  assert.deepEqual([...seen], ["all others", "with 5", "5: true"]);
  assert.ok(!notifier.isDropping(5));
});

Deno.test("the kernel is behind of a node until it knows that its attributes are old", async () => {
  const port = testPort([5]);
  const notifier = new Notifier(port);
  assert.equal(notifier.isBehind(5), false);
  notifier.invalidateInode(5, false);
  assert.equal(notifier.isBehind(5), true);
  notifier.start(45, true);
  assert.deepEqual([notifier.isBehind(5), notifier.isBehind(6)], [true, false]);
  port.unheard.add(5);
  port.release();
  await nextTurn();
  assert.equal(notifier.isBehind(5), true);
  port.unheard.delete(5);
  port.pass(1000);
  await drain(notifier, port);
  assert.equal(notifier.isBehind(5), false);
});

Deno.test("until everything has been invalidated any node may be behind; then its pages are dropped before all others", async () => {
  const port = testPort(Array.from({ length: 40 }, (_, i) => 11 + i));
  const notifier = new Notifier(port);
  notifier.start(45, true);
  assert.equal(notifier.isBehind(21), false);
  notifier.invalidateAll();
  assert.equal(notifier.isBehind(21), true);
  let dropped = false;
  void notifier.dropPages(21).then((done) => dropped = done);
  port.release();
  await nextTurn();
  port.release();
  await nextTurn();
  assert.deepEqual([dropped, notifier.isBehind(21)], [true, true]);
  await drain(notifier, port);
  assert.equal(notifier.isBehind(21), false);
});

Deno.test("a kernel without epochs is sent none", async () => {
  const port = testPort([11]);
  const notifier = new Notifier(port);
  notifier.start(43, true);
  notifier.invalidateAll();
  await drain(notifier, port);
  assert.deepEqual(port.messages.map((message) => message.code), [NOTIFY_INVAL_INODE, NOTIFY_INVAL_INODE]);
});

Deno.test("nothing is written before INIT, and nothing after close", async () => {
  const port = testPort();
  const notifier = new Notifier(port);
  notifier.invalidateInode(3, true);
  assert.equal(port.messages.length, 0);
  notifier.start(45, true);
  assert.equal(port.messages.length, 1);
  const closed = notifier.close();
  notifier.invalidateInode(4, true);
  port.release();
  await closed;
  assert.equal(port.messages.length, 1);
});

Deno.test("an answer is outdated only by invalidations of its own node, of everything, or too many to know", () => {
  const notifier = new Notifier(testPort());
  const before = notifier.tick;
  notifier.invalidateInode(5, false);
  notifier.invalidateEntry(6, "name");
  assert.deepEqual([5, 6, 7].map((ino) => notifier.touchedSince(before, ino)), [true, true, false]);
  assert.equal(notifier.touchedSince(notifier.tick, 5), false);
  const later = notifier.tick;
  notifier.invalidateAll();
  assert.equal(notifier.touchedSince(later, 7), true);
  const last = notifier.tick;
  for (let i = 0; i < 300; i++) notifier.invalidateInode(8, false);
  assert.equal(notifier.touchedSince(last, 7), true);
});

Deno.test("what the kernel has been given but not taken in yet is told again until it knows of it", async () => {
  const port = testPort([5]);
  const notifier = new Notifier(port);
  notifier.start(45, true);
  const releaseAll = async () => {
    port.release();
    await nextTurn();
  };
  port.unheard.add(5);
  notifier.invalidateInode(5, true);
  let told = false;
  void notifier.told().then(() => told = true);
  for (let i = 0; i < 20; i++) {
    await releaseAll();
    port.pass(1000);
    assert.equal(notifier.isDropping(5), true);
  }
  await nextTurn();
  assert.deepEqual([told, port.messages.length], [false, 21]);
  notifier.invalidateInode(6, false);
  port.unheard.delete(5);
  await releaseAll();
  assert.deepEqual([told, port.messages.at(-1)?.ino, notifier.isDropping(5)], [true, 6, false]);
  await notifier.settled();
  assert.equal(notifier.stats().again, 20);

  // Not while somebody reads it, nor when it has been forgotten.
  port.unheard.add(5);
  notifier.invalidateInode(5, true);
  port.read(5);
  await releaseAll();
  port.unheard.delete(5);
  const sent = port.messages.length;
  port.pass(1000);
  assert.equal(port.messages.length, sent);
  port.answer(5);
  notifier.readAnswered();
  assert.equal(port.messages.length, sent + 1);
  await releaseAll();
  await notifier.settled();
  port.unheard.add(5);
  notifier.invalidateInode(5, false);
  port.known.length = 0;
  await releaseAll();
  await notifier.settled();
  await notifier.close();
});

Deno.test("a name in a folder where names were looked up a moment ago is expired once more, a little later", async () => {
  const port = testPort();
  const notifier = new Notifier(port);
  notifier.start(45, true);
  notifier.lookedUp(1);
  notifier.invalidateEntry(1, "a");
  notifier.invalidateEntry(2, "b");
  const names = async () => {
    await drain(notifier, port);
    return port.messages.splice(0).map(({ name }) => name);
  };
  assert.deepEqual(await names(), ["a", "b"]);
  port.pass(1000);
  assert.deepEqual(await names(), ["a"]);
  port.pass(1000);
  assert.deepEqual(await names(), []);
  notifier.invalidateEntry(1, "a");
  port.pass(1000);
  assert.deepEqual(await names(), ["a"]);
  for (let parent = 10; parent < 10_000; parent++) notifier.lookedUp(parent);
  notifier.invalidateEntry(3, "c");
  port.pass(1000);
  assert.deepEqual(await names(), ["c", "c"]);
});
