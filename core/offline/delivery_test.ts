/** Delivery to a server that hears but does not answer, or refuses for the moment: nothing leaves the journal too early. */
import assert from "node:assert/strict";
import { FakeServer } from "../../tests/support/fake_server.ts";
import { caller, SimDevice } from "../../tests/support/sim_device.ts";
import { FsError } from "../fs/error.ts";
import { ChunkPool } from "../store/chunk_pool.ts";
import { MountFs } from "./mount_fs.ts";

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
    // The filesystem's own timers do not keep a process alive.
    const alive = setInterval(() => {}, 1000);
    assert.ok(await fs.drain(10_000));
    clearInterval(alive);
    assert.equal(await onServer(server, "first"), "one");
    assert.equal(await onServer(server, "second"), "two");
    await d.stop();
  });
}

Deno.test("close the pool", () => pool.close());
