/** Delivery to a server that hears but does not answer, or refuses for the moment: nothing leaves the journal too early. */
import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { FakeServer } from "../../tests/support/fake_server.ts";
import { caller, SimDevice } from "../../tests/support/sim_device.ts";
import { FsError } from "../fs/error.ts";
import type { Calls } from "../remote/protocol.ts";
import { ChunkPool } from "../store/chunk_pool.ts";
import { MountFs } from "./mount_fs.ts";
import { Replica } from "./replica.ts";

const unchecked = { sanitizeResources: false, sanitizeOps: false };
const pool = new ChunkPool({ workers: 1 });

/** Creates the file, writes and fsyncs it: from here on it must not be lost. */
async function acknowledge(fs: MountFs, name: string, text: string): Promise<number> {
  const { stat, open } = await fs.create(1, name, 0o644, 2, caller);
  const bytes = new TextEncoder().encode(text);
  await fs.write(stat.ino, open.fh, 0, bytes, { killSuidgid: false, fromCache: false });
  await fs.fsync(stat.ino, open.fh, false);
  fs.release(stat.ino, open.fh, 0n, false);
  return stat.ino;
}
/** A device that has delivered a file, and a copy of its folder: what is on its disk when the power goes. */
async function aboutToLosePower(name: string, text: string) {
  const server = new FakeServer();
  const d = await SimDevice.open({ server, name: "d", pool });
  await acknowledge(d.fs, name, text);
  // The filesystem's own timers do not keep a process alive.
  const alive = setInterval(() => {}, 1000);
  assert.ok(await d.fs.drain(5000));
  await d.names();
  // The replica writes what it has within a tenth of a second.
  await new Promise((resolve) => setTimeout(resolve, 300));
  const disk = Deno.makeTempDirSync();
  await new Deno.Command("cp", { args: ["-a", `${d.folder}/.`, disk] }).output();
  return { server, d, disk, alive };
}
async function onServer(server: FakeServer, name: string): Promise<string> {
  const stat = await server.index.lookup(1, name);
  assert.ok(stat, `${name} is on the server`);
  return new TextDecoder().decode(await server.content(stat.content));
}

Deno.test({
  name: "bug 8: what was sent and never answered is in the journal of the next start, and goes out then",
  ...unchecked,
}, async () => {
  const server = new FakeServer();
  const d = await SimDevice.open({ server, name: "d", pool });
  const { fs, link } = d;
  await fs.lookup(1, "none", caller);
  const sent = Promise.withResolvers<void>();
  link.before = (method, params) => {
    if (method !== "apply") return Promise.resolve();
    if ((params as Calls["apply"]["params"]).ops.some((op) => op.t === "content")) sent.resolve();
    return new Promise(() => {});
  };
  // The filesystem's own timers do not keep a process alive.
  const alive = setInterval(() => {}, 1000);
  await acknowledge(fs, "f", "acknowledged");
  await sent.promise;
  clearInterval(alive);
  // A crash: what is on the disk at this moment is all there is.
  const next = await d.crash(true);
  assert.ok(await next.fs.drain(5000));
  assert.equal(await onServer(server, "f"), "acknowledged");
  await next.stop();
});

for (const code of ["rate_limited", "no_space", "timeout"] as const) {
  Deno.test({
    name: `bug 8: what the server refuses for the moment (${code}) is sent again, and what waits behind it too`,
    ...unchecked,
  }, async () => {
    const server = new FakeServer();
    const d = await SimDevice.open({ server, name: "d", pool });
    const { fs, link } = d;
    let refusals = 3;
    link.before = (method) =>
      method === "apply" && refusals-- > 0 ? Promise.reject(new FsError(code, "not now")) : Promise.resolve();
    await acknowledge(fs, "first", "one");
    await acknowledge(fs, "second", "two");
    const alive = setInterval(() => {}, 1000);
    assert.ok(await fs.drain(10_000));
    clearInterval(alive);
    assert.equal(await onServer(server, "first"), "one");
    assert.equal(await onServer(server, "second"), "two");
    await d.stop();
  });
}

Deno.test({
  name: "a log synced line by line is whole after a kill, however many of its lines the server had taken together",
  ...unchecked,
}, async () => {
  const lines = (from: number, to: number) =>
    Array.from({ length: to - from }, (_, i) => `line ${1000 + from + i}\n`).join("");
  const alive = setInterval(() => {}, 1000);
  for (const applies of [1, 2, 3]) {
    const server = new FakeServer();
    const d = await SimDevice.open({ server, name: "d", pool });
    const ino = await acknowledge(d.fs, "log", lines(0, 1));
    assert.ok(await d.fs.drain(5000));
    d.link.disconnect();
    for (let n = 1; n < 900; n++) await d.patch(ino, n * 10, new TextEncoder().encode(lines(n, n + 1)));
    const stuck = Promise.withResolvers<void>();
    let applied = 0;
    // The answers are lost: the device does not know what the server has.
    d.link.after = (method) => {
      if (method !== "apply") return;
      if (++applied === applies) stuck.resolve();
      return new Promise(() => {});
    };
    d.link.before = (method) => method === "apply" && applied >= applies ? new Promise(() => {}) : Promise.resolve();
    await d.link.connect();
    await stuck.promise;
    const next = await d.crash(false);
    // What the server had is let go of before the rest is made ready, and long before that is on the server's disk.
    next.link.before = (method) =>
      method === "apply" ? new Promise((resolve) => setTimeout(resolve, 70)) : Promise.resolve();
    next.link.holdDurable = true;
    await next.link.connect();
    await new Promise((resolve) => setTimeout(resolve, 500));
    next.link.holdDurable = false;
    await next.link.settled();
    assert.ok(await next.fs.drain(60_000));
    assert.equal(await next.text("log"), lines(0, 900));
    assert.equal(await onServer(server, "log"), lines(0, 900));
    await next.stop();
  }
  clearInterval(alive);
});

Deno.test({
  name: "after a cut with as many small contents under way as may be, delivery goes on",
  ...unchecked,
}, async () => {
  const server = new FakeServer();
  const d = await SimDevice.open({ server, name: "d", pool });
  await d.names();
  // Nothing is answered until all that may be is on its way.
  d.link.before = (method) => method === "apply" ? new Promise(() => {}) : Promise.resolve();
  const bytes = new Uint8Array(250_000);
  for (let n = 0; n < 150; n++) await d.write(1, `f${n}`, bytes.fill(n));
  const alive = setInterval(() => {}, 1000);
  await new Promise((resolve) => setTimeout(resolve, 500));
  d.link.disconnect();
  d.link.before = () => Promise.resolve();
  await d.link.connect();
  assert.ok(await d.fs.drain(10_000));
  clearInterval(alive);
  for (const n of [0, 149]) {
    const stat = await server.index.lookup(1, `f${n}`);
    assert.deepEqual(await server.content(stat?.content ?? null), bytes.fill(n));
  }
  await d.stop();
});

Deno.test({
  name: "what was sent and taken by a power cut here is seen again, and its numbers are not given to anything else",
  ...unchecked,
}, async () => {
  const { server, d, disk, alive } = await aboutToLosePower("before", "before");
  for (const name of ["a", "b", "c"]) await d.fs.mkdir(1, name, 0o755, caller);
  assert.ok(await d.fs.drain(5000));
  d.link.disconnect();
  await d.stop();
  const database = new DatabaseSync(`${disk}/replica.db`);
  database.exec("UPDATE meta SET value = 'the boot before' WHERE key = 'boot'");
  database.close();
  const next = await SimDevice.open({ server, name: "d", pool, folder: disk, online: false });
  await acknowledge(next.fs, "after", "after");
  await next.link.connect();
  assert.ok(await next.fs.drain(5000));
  assert.equal(await onServer(server, "after"), "after");
  assert.deepEqual((await next.names()).sort(), ["a", "after", "b", "before", "c"]);
  assert.equal(await next.text("after"), "after");
  clearInterval(alive);
  await next.stop();
});

Deno.test({
  name: "after a power cut that took the database back further than the journal, all is asked for anew",
  ...unchecked,
}, async () => {
  const { server, d, disk, alive } = await aboutToLosePower("f", "first");
  await d.write(1, "f", new TextEncoder().encode("second"));
  await d.fs.mkdir(1, "new", 0o755, caller);
  assert.ok(await d.fs.drain(5000));
  d.link.disconnect();
  await new Deno.Command("sh", { args: ["-c", 'rm -r "$2/journal"; cp -a "$1/journal" "$2"', "", d.folder, disk] })
    .output();
  await d.stop();
  const next = await SimDevice.open({ server, name: "d", pool, folder: disk });
  assert.equal(await next.text("f"), "second");
  assert.deepEqual((await next.names()).sort(), ["f", "new"]);
  clearInterval(alive);
  await next.stop();
});

Deno.test({
  name: "the journal has what is delivered until the database with it is on the disk: a power cut shows nothing older",
  ...unchecked,
}, async () => {
  const { server, d, disk, alive } = await aboutToLosePower("f", "first");
  const { sync } = Replica.prototype;
  const onDisk = Promise.withResolvers<void>();
  Replica.prototype.sync = () => onDisk.promise;
  try {
    await d.write(1, "f", new TextEncoder().encode("second"));
    while (await onServer(server, "f") !== "second") await new Promise((resolve) => setTimeout(resolve, 5));
    // Longer than it takes to let go of what is delivered.
    await new Promise((resolve) => setTimeout(resolve, 300));
    await new Deno.Command("sh", { args: ["-c", 'rm -r "$2/journal"; cp -a "$1/journal" "$2"', "", d.folder, disk] })
      .output();
  } finally {
    Replica.prototype.sync = sync;
    onDisk.resolve();
  }
  assert.ok(await d.fs.drain(5000));
  await d.stop();
  const next = await SimDevice.open({ server, name: "d", pool, folder: disk, online: false });
  assert.equal(await next.text("f"), "second");
  await next.link.connect();
  assert.ok(await next.fs.drain(5000));
  assert.equal(await next.text("f"), "second");
  assert.deepEqual(next.log.filter((line) => /conflict/.test(line)), []);
  clearInterval(alive);
  await next.stop();
});

Deno.test({ name: "a removal that is given up leaves the file whole", ...unchecked }, async () => {
  const server = new FakeServer();
  const d = await SimDevice.open({ server, name: "d", pool });
  await d.names();
  d.link.disconnect();
  await acknowledge(d.fs, "f", "acknowledged");
  await d.fs.unlink(1, "f", caller);
  const removal = d.fs.journal().items.find(({ what }) => what === "unlink");
  assert.ok(removal);
  d.fs.dropJournal(removal.id);
  await d.link.connect();
  const alive = setInterval(() => {}, 1000);
  assert.ok(await d.fs.drain(5000));
  clearInterval(alive);
  assert.equal(await onServer(server, "f"), "acknowledged");
  assert.equal(await d.text("f"), "acknowledged");
  await d.stop();
});

Deno.test({
  name: "bytes that travel with a much later record hold up nothing, however much lies in between",
  ...unchecked,
}, async () => {
  const server = new FakeServer();
  const d = await SimDevice.open({ server, name: "d", pool });
  // The filesystem's own timers do not keep a process alive.
  const alive = setInterval(() => {}, 1000);
  await d.names();
  const ino = await d.write(1, "log", new TextEncoder().encode("first"));
  const applied = Promise.withResolvers<void>();
  // The server has it, and the answer is lost.
  d.link.after = (method) => {
    if (method !== "apply") return;
    applied.resolve();
    return new Promise(() => {});
  };
  d.fs.drain(1).catch(() => {});
  await applied.promise;
  d.link.disconnect();
  for (let i = 0; i < 180; i++) await d.write(1, `f${i}`, new Uint8Array(250_000).fill(i));
  await d.write(1, "log", new TextEncoder().encode("first and last"));
  const again = await d.crash(false);
  await again.link.connect();
  assert.ok(await again.fs.drain(30_000), "it drains");
  assert.equal(await again.read(ino).then((bytes) => new TextDecoder().decode(bytes)), "first and last");
  assert.equal(await onServer(server, "log"), "first and last");
  clearInterval(alive);
  await again.stop();
  await server.index.close();
});

Deno.test({ name: "close the pool", sanitizeOps: false, sanitizeResources: false }, () => pool.close());
