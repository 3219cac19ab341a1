/** Delivery to a server that hears but does not answer, or refuses for the moment: nothing leaves the journal too early. */
import assert from "node:assert/strict";
import { FakeServer } from "../../tests/support/fake_server.ts";
import type { FakeLink } from "../../tests/support/fake_server.ts";
import { FsError } from "../fs/error.ts";
import type { Caller } from "../fs/inode_fs.ts";
import { systemClock } from "../platform/clock.ts";
import { systemRandom } from "../platform/random.ts";
import { ChunkPool } from "../store/chunk_pool.ts";
import { MountFs } from "./mount_fs.ts";

const caller: Caller = { uid: 1000, gid: 1000, pid: 1 };
const unchecked = { sanitizeResources: false, sanitizeOps: false };
const pool = new ChunkPool({ workers: 1 });

async function open(server: FakeServer, folder: string): Promise<{ fs: MountFs; link: FakeLink }> {
  const link = server.link("d");
  const fs = await MountFs.open({
    folder,
    cacheBytes: 1e9,
    link,
    pool,
    clock: systemClock,
    random: systemRandom,
    host: "d",
    policy: "back",
    readOnly: false,
    log: () => {},
  });
  return { fs, link };
}
async function close(fs: MountFs, folder: string): Promise<void> {
  await fs.destroy();
  await fs.close();
  Deno.removeSync(folder, { recursive: true });
}
/** Creates the file, writes and fsyncs it: from here on it must not be lost. */
async function acknowledge(fs: MountFs, name: string, text: string): Promise<number> {
  const { stat, open } = await fs.create(1, name, 0o644, 2, caller);
  const bytes = new TextEncoder().encode(text);
  await fs.write(stat.ino, open.fh, 0, bytes, { killSuidgid: false, fromCache: false });
  await fs.fsync(stat.ino, open.fh, false);
  fs.release(stat.ino, open.fh, 0n, false);
  return stat.ino;
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
  const folder = Deno.makeTempDirSync();
  const { fs, link } = await open(server, folder);
  await link.connect();
  await fs.lookup(1, "none", caller);
  const sent = Promise.withResolvers<void>();
  let applies = 0;
  link.before = (method) => {
    if (method !== "apply") return Promise.resolve();
    // The creation and the bytes.
    if (++applies === 2) sent.resolve();
    return new Promise(() => {});
  };
  await acknowledge(fs, "f", "acknowledged");
  await sent.promise;
  // A crash: what is on the disk at this moment is all there is.
  const copy = Deno.makeTempDirSync();
  await new Deno.Command("cp", { args: ["-a", `${folder}/.`, copy] }).output();
  const next = await open(server, copy);
  await next.link.connect();
  assert.ok(await next.fs.drain(5000));
  assert.equal(await onServer(server, "f"), "acknowledged");
  link.disconnect();
  await close(next.fs, copy);
  await fs.close();
  Deno.removeSync(folder, { recursive: true });
});

for (const code of ["rate_limited", "no_space", "timeout"] as const) {
  Deno.test({
    name: `bug 8: what the server refuses for the moment (${code}) is sent again, and what waits behind it too`,
    ...unchecked,
  }, async () => {
    const server = new FakeServer();
    const folder = Deno.makeTempDirSync();
    const { fs, link } = await open(server, folder);
    await link.connect();
    let refusals = 3;
    link.before = (method) =>
      method === "apply" && refusals-- > 0 ? Promise.reject(new FsError(code, "not now")) : Promise.resolve();
    await acknowledge(fs, "first", "one");
    await acknowledge(fs, "second", "two");
    // The filesystem's own timers do not keep a process alive.
    const alive = setInterval(() => {}, 1000);
    assert.ok(await fs.drain(10_000));
    clearInterval(alive);
    assert.equal(await onServer(server, "first"), "one");
    assert.equal(await onServer(server, "second"), "two");
    await close(fs, folder);
  });
}

Deno.test("close the pool", () => pool.close());
