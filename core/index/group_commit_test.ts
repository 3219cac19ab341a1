/** GroupCommit: the order of disk waits, who is told what, and what a failure takes back. */
import assert from "node:assert/strict";
import { FsError, hasCode } from "../fs/error.ts";
import { type Database, openDatabase } from "../platform/sqlite.ts";
import { type CommitHooks, GroupCommit } from "./group_commit.ts";

function set(overrides: Partial<CommitHooks> = {}) {
  const events: string[] = [];
  const db: Database = openDatabase(":memory:");
  db.exec("CREATE TABLE t(x INTEGER PRIMARY KEY) STRICT");
  const exec = db.exec.bind(db);
  db.exec = (sql: string) => {
    if (/^(COMMIT|ROLLBACK)$/.test(sql)) events.push(sql);
    exec(sql);
  };
  let unsynced = false;
  let later = () => {};
  const group = new GroupCommit(db, {
    after: (_ms, callback) => {
      later = callback;
      return () => later = () => {};
    },
    hasUnsyncedData: () => unsynced,
    syncData() {
      events.push("data");
      unsynced = false;
      return Promise.resolve();
    },
    syncLog() {
      events.push("log");
      return Promise.resolve();
    },
    rolledBack: (error) => void events.push(`rolled back: ${error.message}`),
    ...overrides,
  });
  const insert = (x: number) => () => void db.prepare("INSERT INTO t VALUES(?)").run(x);
  const rows = () => db.prepare("SELECT x FROM t ORDER BY x").all().map((row) => Number(row["x"]));
  return { db, group, events, insert, rows, touch: () => void (unsynced = true), timePasses: () => later() };
}

Deno.test("pack bytes are on the disk before the commit that refers to them, the log after it, then the writer is told", async () => {
  const { group, events, insert, touch } = set();
  touch();
  const { durable } = await group.write(insert(1));
  durable.then(() => events.push("told"));
  await durable;
  await Promise.resolve();
  assert.deepEqual(events, ["data", "COMMIT", "log", "told"]);
});

Deno.test("a change is visible at once, and writers that come together share one commit", async () => {
  const { group, events, insert, rows } = set();
  const written = await Promise.all([1, 2, 3].map((x) => group.write(insert(x))));
  assert.deepEqual(rows(), [1, 2, 3]);
  await Promise.all(written.map((w) => w.durable));
  assert.deepEqual(events, ["COMMIT", "log"]);
});

Deno.test("a change that throws takes back only its own effects", async () => {
  const { group, insert, rows } = set();
  const good = group.write(insert(1));
  const bad = group.write(() => {
    insert(2)();
    throw new FsError("conflict", "no");
  });
  await assert.rejects(bad, (e) => hasCode(e, "conflict"));
  await (await good).durable;
  assert.deepEqual(rows(), [1]);
});

Deno.test("when pack bytes can't be put on the disk, nothing that refers to them is committed and every writer hears of it", async () => {
  let broken = true;
  let unsynced = true;
  const { group, events, insert, rows } = set({
    hasUnsyncedData: () => unsynced,
    syncData() {
      unsynced = false;
      return broken ? Promise.reject(new FsError("internal", "the disk broke")) : Promise.resolve();
    },
  });
  const written = await Promise.all([group.write(insert(1)), group.write(insert(2))]);
  for (const { durable } of written) await assert.rejects(durable, /the disk broke/);
  assert.deepEqual(rows(), []);
  assert.deepEqual(events, ["ROLLBACK", "rolled back: the disk broke"]);
  broken = false;
  await (await group.write(insert(3))).durable;
  assert.deepEqual(rows(), [3]);
});

Deno.test("when the log can't be put on the disk, nothing is acknowledged any more", async () => {
  const { group, insert } = set({ syncLog: () => Promise.reject(new FsError("internal", "fsync failed")) });
  const { durable } = await group.write(insert(1));
  await assert.rejects(durable, (e) => hasCode(e, "unavailable"));
  await assert.rejects(group.write(insert(2)), /fsync failed/);
});

Deno.test("a change made while the log of the group before is failing is refused too", async () => {
  const hold = Promise.withResolvers<void>();
  const { group, insert } = set({ syncLog: () => hold.promise });
  const first = await group.write(insert(1));
  await new Promise((resolve) => setTimeout(resolve, 0));
  const second = await group.write(insert(2));
  hold.reject(new FsError("internal", "fsync failed"));
  await assert.rejects(first.durable);
  await assert.rejects(second.durable);
  await assert.rejects(group.write(insert(3)));
});

Deno.test("when SQLite gives up the whole group by itself, all its writers hear of it and the next group works", async () => {
  const { db, group, events, insert, rows } = set();
  const good = group.write(insert(1));
  const bad = group.write(() => {
    insert(2)();
    // What a full disk does.
    db.exec("ROLLBACK");
    throw new Error("database or disk is full");
  });
  await assert.rejects(bad, (e) => hasCode(e, "no_space"));
  await assert.rejects((await good).durable, (e) => hasCode(e, "no_space"));
  assert.deepEqual(rows(), []);
  assert.equal(events.filter((e) => e.startsWith("rolled back")).length, 1);
  await (await group.write(insert(3))).durable;
  assert.deepEqual(rows(), [3]);
});

Deno.test("bytes that arrive while the disk is busy are waited for by the same commit", async () => {
  let unsynced = 1;
  const events: string[] = [];
  const hold = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const { group, insert } = set({
    hasUnsyncedData: () => unsynced > 0,
    async syncData() {
      const mine = hold.shift();
      unsynced = 0;
      await mine?.promise;
      events.push("data");
    },
    syncLog: () => {
      events.push("log");
      return Promise.resolve();
    },
  });
  const [first, second] = [hold[0], hold[1]];
  const a = await group.write(insert(1));
  await Promise.resolve();
  await Promise.resolve();
  unsynced = 1;
  const b = await group.write(insert(2));
  first?.resolve();
  await Promise.resolve();
  second?.resolve();
  await Promise.all([a.durable, b.durable]);
  assert.deepEqual(events, ["data", "data", "log"]);
});

Deno.test("settle waits for all that was written", async () => {
  const { group, insert, events } = set();
  await group.write(insert(1));
  await group.settle();
  assert.ok(events.includes("log"));
});

Deno.test("a change nobody waits for shares the disk wait of what comes within a few milliseconds", async () => {
  const { group, events, insert, timePasses } = set();
  const first = await group.write(insert(1), { lazy: true });
  const second = await group.write(insert(2), { lazy: true });
  for (let i = 0; i < 20; i++) await Promise.resolve();
  assert.deepEqual(events, []);
  timePasses();
  await Promise.all([first.durable, second.durable]);
  assert.deepEqual(events, ["COMMIT", "log"]);
  const third = await group.write(insert(3), { lazy: true });
  await (await group.write(insert(4))).durable;
  await third.durable;
  assert.deepEqual(events, ["COMMIT", "log", "COMMIT", "log"]);
});
