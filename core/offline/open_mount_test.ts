/** A client opened anew on what it keeps learns what happened while it was away, however long the opening takes. */
import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { ROOT_INO } from "../index/ops.ts";
import { systemClock } from "../platform/clock.ts";
import { systemRandom } from "../platform/random.ts";
import { serveRemote } from "../remote/server.ts";
import { openMemoryCore } from "../remote/testing/memory_core.ts";
import { openMount } from "./open_mount.ts";

const caller = { uid: 1000, gid: 1000, pid: 1 };

Deno.test({
  name: "what others changed before a client was opened again is seen, and that nobody else is there is known",
  sanitizeResources: false,
  sanitizeOps: false,
}, async () => {
  const core = openMemoryCore();
  const server = await serveRemote(core, { hostname: "127.0.0.1", port: 0, version: "test" });
  const folder = Deno.makeTempDirSync({ prefix: "anyfs-open-" });
  const open = (name: string) =>
    openMount({
      url: server.url,
      token: null,
      dir: `/${name}`,
      cacheDir: `${folder}/${name}`,
      cacheBytes: 1e9,
      policy: "back",
      conflict: "keep-both",
      readOnly: false,
      passthrough: false,
      prefetch: true,
      offline: false,
      host: name,
      clock: systemClock,
      random: systemRandom,
      log: () => {},
    });
  const text = (words: string) => new TextEncoder().encode(words);
  const write = { killSuidgid: false, fromCache: false };
  try {
    const first = await open("first");
    const made = await first.fs.create(ROOT_INO, "f", 0o644, 2, caller);
    const { ino } = made.stat;
    await first.fs.write(ino, made.open.fh, 0, text("old"), write);
    await first.fs.flush(ino, made.open.fh, 0n);
    first.fs.release(ino, made.open.fh, 0n, false);
    await first.fs.readdir(ROOT_INO, null, 100);
    assert.ok(await first.close(10_000));
    // Opening takes longer than connecting: the bytes kept are of another version's format, and go.
    const database = new DatabaseSync(`${first.folder}/content/cache.db`);
    database.exec("PRAGMA user_version = 0");
    database.close();
    for (let i = 0; i < 5000; i++) Deno.writeTextFileSync(`${first.folder}/content/big/${i}`, "");

    const other = await open("other");
    const handle = await other.fs.open(ino, 2, caller);
    await other.fs.write(ino, handle.fh, 0, text("new"), write);
    await other.fs.flush(ino, handle.fh, 0n);
    other.fs.release(ino, handle.fh, 0n, false);
    await other.fs.mkdir(ROOT_INO, "g", 0o755, caller);
    assert.ok(await other.close(10_000));

    const again = await open("first");
    for (let waited = 0;; waited++) {
      const reading = await again.fs.open(ino, 0, caller);
      const buffer = new Uint8Array(3);
      const got = await again.fs.read(ino, reading.fh, 0, buffer);
      again.fs.release(ino, reading.fh, 0n, false);
      if (new TextDecoder().decode(typeof got === "number" ? buffer : got) === "new") break;
      assert.ok(waited < 100, "the old bytes are read for ever");
      await systemClock.sleep(20);
    }
    assert.deepEqual((await again.fs.readdir(ROOT_INO, null, 100)).map(({ name }) => name).sort(), ["f", "g"]);
    assert.equal(again.fs.status().other_clients, 0);
    await again.close(10_000);
  } finally {
    await server.close();
    await core.close();
    Deno.removeSync(folder, { recursive: true });
  }
});
