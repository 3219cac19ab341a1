/** The wall clock jumps, as after a flat battery or a wrong time server: nothing waits, nothing is lost, order stays. */
import assert from "node:assert/strict";
import { startFaultProxy } from "../../tests/support/fault_proxy.ts";
import type { Caller } from "../fs/inode_fs.ts";
import { type Clock, systemClock } from "../platform/clock.ts";
import { systemRandom } from "../platform/random.ts";
import { connectRemote } from "../remote/client.ts";
import { serveRemote } from "../remote/server.ts";
import { openMemoryCore } from "../remote/testing/memory_core.ts";
import { ChunkPool } from "../store/chunk_pool.ts";
import { MountFs } from "./mount_fs.ts";

const caller: Caller = { uid: 1000, gid: 1000, pid: 1 };
const YEAR = 365 * 86_400_000;

Deno.test({
  name: "a client whose clock jumps by years in either direction goes on writing, reading, delivering and reconnecting",
  sanitizeResources: false,
  sanitizeOps: false,
}, async () => {
  let ahead = 0;
  const clock: Clock = { ...systemClock, now: () => Date.now() + ahead };
  const core = openMemoryCore();
  const server = await serveRemote(core, { hostname: "127.0.0.1", port: 0, version: "test" });
  await using proxy = startFaultProxy(server.url);
  const folder = Deno.makeTempDirSync();
  const pool = new ChunkPool({ workers: 1 });
  const link = connectRemote({
    url: `http://127.0.0.1:${proxy.port}`,
    token: null,
    device: systemRandom.uuid(),
    host: "d",
    clock,
  });
  const fs = await MountFs.open({
    folder,
    cacheBytes: 1e9,
    link,
    pool,
    clock,
    random: systemRandom,
    host: "d",
    policy: "back",
    readOnly: false,
    log: () => {},
  });
  await fs.connectedOnce;
  await fs.readdir(1, null, 100);
  const text = (n: number) => new TextEncoder().encode(`version ${n}`);
  const jumps = [0, 10 * YEAR, -20 * YEAR, -60 * YEAR, 5 * YEAR];
  for (const [n, jump] of jumps.entries()) {
    ahead = jump;
    // A cut in between: reconnecting must not wait for a time that never comes.
    proxy.refuse();
    const { stat, open } = await fs.create(1, `f${n}`, 0o644, 2, caller);
    await fs.write(stat.ino, open.fh, 0, text(n), { killSuidgid: false, fromCache: false });
    await fs.flush(stat.ino, open.fh, 0n);
    fs.release(stat.ino, open.fh, 0n, false);
    // The socket closes only after a while.
    for (let open = false; !open;) {
      await systemClock.sleep(10);
      try {
        proxy.pass();
        open = true;
      } catch (error) {
        if (!(error instanceof Deno.errors.AddrInUse)) throw error;
      }
    }
    const alive = setInterval(() => {}, 1000);
    assert.ok(await fs.drain(10_000), `after a jump of ${jump} ms everything is delivered`);
    clearInterval(alive);
    const here = await fs.getattr(stat.ino, undefined);
    assert.ok(Math.abs(here.mtimeSec - clock.now() / 1000) < 60, "a file has the time of the clock as it was");
  }
  const names = (await fs.readdir(1, null, 100)).map(({ name }) => name).sort();
  assert.deepEqual(names, jumps.map((_, n) => `f${n}`));
  for (const [n] of jumps.entries()) {
    const stat = await fs.lookup(1, `f${n}`, caller);
    assert.ok(stat);
    const { fh } = await fs.open(stat.ino, 0, caller);
    const into = new Uint8Array(stat.size);
    const got = await fs.read(stat.ino, fh, 0, into);
    assert.deepEqual(typeof got === "number" ? into.subarray(0, got) : got, text(n));
    fs.release(stat.ino, fh, 0n, false);
  }
  await fs.destroy();
  await link.close();
  await fs.close();
  pool.close();
  await server.close(500);
  await core.close();
  Deno.removeSync(folder, { recursive: true });
});
