/** The control sockets of mounts: who is found, what is passed on, what is left out. */
import assert from "node:assert/strict";
import { hasCode } from "../fs/error.ts";
import { serveHttp } from "../platform/net.ts";
import { runningMounts } from "./mount_control.ts";

async function mountFolder(cacheDir: string, name: string, dir: string, pid: number): Promise<string> {
  const folder = `${cacheDir}/mounts/${name}`;
  await Deno.mkdir(folder, { recursive: true });
  await Deno.writeTextFile(`${folder}/mount.json`, JSON.stringify({ url: "http://server", dir, pid }));
  return folder;
}

Deno.test("a running mount is found and asked; one that ended, and one whose process number is another's, are not", async () => {
  const cacheDir = await Deno.makeTempDir();
  const living = await mountFolder(cacheDir, "living", "/mnt/a", Deno.pid);
  await mountFolder(cacheDir, "ended", "/mnt/b", 2 ** 22 + 1);
  await mountFolder(cacheDir, "another", "/mnt/c", Deno.pid);
  const asked: unknown[] = [];
  const server = await serveHttp({
    path: `${living}/control.sock`,
    handler: async (request) => {
      const { id, method, params } = await request.json() as { id: number; method: string; params: unknown };
      asked.push([method, params]);
      if (method === "cache.clear") return Response.json({ jsonrpc: "2.0", id, error: { code: -1, message: "busy" } });
      return Response.json({ jsonrpc: "2.0", id, result: { freed: 7 } });
    },
  });
  try {
    const found = await runningMounts(cacheDir);
    assert.deepEqual(found.map(({ dir }) => dir), ["/mnt/a"]);
    assert.deepEqual(await found[0]?.call("drain", { timeoutMs: 5 }), { freed: 7 });
    assert.deepEqual(asked, [["status", {}], ["drain", { timeoutMs: 5 }]]);
    await assert.rejects(async () => await found[0]?.call("cache.clear"), (error) => {
      assert.match(String(error), /\/mnt\/a: busy/);
      return hasCode(error, "internal");
    });
  } finally {
    await server.shutdown(0);
    await server.finished;
    await Deno.remove(cacheDir, { recursive: true });
  }
});

Deno.test("without a cache folder there are no mounts", async () => {
  assert.deepEqual(await runningMounts("/nonexistent/cache"), []);
});
