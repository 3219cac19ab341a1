/** Nothing done through the local backend reaches beyond its folder, and crashed writers leave nothing that shows. */
import assert from "node:assert/strict";
import { hasCode } from "../../core/fs/error.ts";
import { O_PATH, openFolder, openFolderBeneath, walkBeneath } from "../../core/platform/dir.ts";
import { O_DIRECTORY } from "../../core/platform/posix.ts";
import { openLocalBackend } from "./backend.ts";

async function withFolder(body: (base: string) => Promise<void>) {
  const base = await Deno.makeTempDir();
  try {
    await body(base);
  } finally {
    await Deno.remove(base, { recursive: true });
  }
}
const bytes = new TextEncoder().encode("x");
const names = async (fs: Awaited<ReturnType<typeof openLocalBackend>>, path: string) =>
  (await Array.fromAsync(fs.readDir(path))).map((e) => e.name);

Deno.test("links that lead out of the folder lead nowhere, whatever is done through them", () =>
  withFolder(async (base) => {
    await Deno.mkdir(`${base}/root/d`, { recursive: true });
    await Deno.mkdir(`${base}/outside`);
    await Deno.writeTextFile(`${base}/outside/secret`, "secret");
    await Deno.chmod(`${base}/outside/secret`, 0o644);
    await Deno.symlink(`${base}/outside`, `${base}/root/abs`);
    await Deno.symlink("../outside", `${base}/root/rel`);
    await Deno.symlink("../outside/secret", `${base}/root/file`);
    await Deno.symlink("/proc/self/root", `${base}/root/magic`);
    const fs = await openLocalBackend({ root: `${base}/root` });
    const time = { sec: 1, nsec: 0 };
    for (const dir of ["/abs", "/rel", "/magic", "/abs/.", "/d/../../outside"]) {
      const attempts: readonly (() => Promise<unknown>)[] = [
        () => fs.read(`${dir}/secret`),
        () => fs.stat(`${dir}/secret`),
        () => fs.write(`${dir}/new`, bytes),
        () => fs.append(`${dir}/secret`, bytes),
        () => fs.openWrite(`${dir}/new`),
        () => fs.truncate(`${dir}/secret`, 0),
        () => fs.removeFile(`${dir}/secret`),
        () => fs.createDir(`${dir}/new`),
        () => fs.createDirAll(`${dir}/new/er`),
        () => fs.symlink("x", `${dir}/new`),
        () => fs.hardLink(`${dir}/secret`, "/stolen"),
        () => fs.rename(`${dir}/secret`, "/stolen"),
        () => fs.rename("/d", `${dir}/d`),
        () => fs.copy(`${dir}/secret`, "/stolen"),
        () => fs.chmod(`${dir}/secret`, 0o777),
        () => fs.utimes(`${dir}/secret`, time, time),
        () => fs.setXattr(`${dir}/secret`, "user.a", bytes),
        () => fs.sync(`${dir}/secret`),
        () => Array.fromAsync(fs.readDir(dir)),
      ];
      for (const attempt of attempts) {
        await assert.rejects(
          attempt(),
          (e) => hasCode(e, "not_a_directory") || hasCode(e, "invalid_input") || hasCode(e, "already_exists"),
        );
      }
    }
    const followed = (error: unknown) => hasCode(error, "too_many_links");
    await assert.rejects(fs.read("/file"), followed);
    await assert.rejects(fs.write("/file", bytes), followed);
    await assert.rejects(fs.append("/file", bytes), followed);
    await assert.rejects(fs.truncate("/file", 0), followed);
    await assert.rejects(fs.chmod("/file", 0o777), (e) => hasCode(e, "not_supported"));
    await fs.utimes("/file", time, time);
    await fs.removeDirAll("/");
    assert.deepEqual(await names(fs, "/"), []);
    assert.equal(await Deno.readTextFile(`${base}/outside/secret`), "secret");
    const stat = await Deno.stat(`${base}/outside/secret`);
    assert.equal((stat.mode ?? 0) & 0o777, 0o644);
    assert.notEqual(stat.mtime?.getTime(), 1000);
    assert.deepEqual((await Array.fromAsync(Deno.readDir(`${base}/outside`))).map((e) => e.name), ["secret"]);
    await fs.close();
  }));

Deno.test("the walk without openat2 is as strict as openat2", () =>
  withFolder(async (base) => {
    await Deno.mkdir(`${base}/root/a/b`, { recursive: true });
    await Deno.mkdir(`${base}/outside`);
    await Deno.symlink("../outside", `${base}/root/out`);
    await Deno.symlink("a", `${base}/root/in`);
    await Deno.writeTextFile(`${base}/root/file`, "");
    using root = await openFolder(`${base}/root`);
    const flags = O_PATH | O_DIRECTORY;
    for (const open of [openFolderBeneath, (fd: typeof root, path: string) => walkBeneath(fd, path, flags)]) {
      for (const good of ["", "a", "a/b"]) (await open(root, good))[Symbol.dispose]();
      for (const bad of ["out", "out/x", "in", "in/b", "file", "file/x"]) {
        await assert.rejects(open(root, bad), (e) => hasCode(e, "not_a_directory"), bad);
      }
      for (const missing of ["none", "a/none/x"]) {
        await assert.rejects(open(root, missing), (e) => hasCode(e, "not_found"), missing);
      }
    }
  }));

Deno.test("a folder swapped for a link while it is used never lets a write out", () =>
  withFolder(async (base) => {
    await Deno.mkdir(`${base}/root/d`, { recursive: true });
    await Deno.mkdir(`${base}/outside`);
    await Deno.symlink("../outside", `${base}/root/evil`);
    const fs = await openLocalBackend({ root: `${base}/root` });
    let swapping = true;
    const swap = (async () => {
      for (let i = 0; swapping || i % 2 === 1; i++) {
        await Deno.rename(`${base}/root/d`, `${base}/root/tmp`);
        await Deno.rename(`${base}/root/evil`, `${base}/root/d`);
        await Deno.rename(`${base}/root/tmp`, `${base}/root/evil`);
      }
    })();
    let written = 0;
    for (let i = 0; i < 300; i++) {
      try {
        await fs.write(`/d/f${i}`, bytes);
        written++;
      } catch (error) {
        assert(hasCode(error, "not_a_directory") || hasCode(error, "not_found"), String(error));
      }
    }
    swapping = false;
    await swap;
    assert.deepEqual(await Array.fromAsync(Deno.readDir(`${base}/outside`)), [], `${written} writes`);
    await fs.close();
  }));

Deno.test("a crashed writer's file is hidden, removed when it is old, and in nobody's way", () =>
  withFolder(async (base) => {
    await Deno.mkdir(`${base}/d`);
    await Deno.writeTextFile(`${base}/d/.~anyfs-dead`, "half a file");
    await Deno.writeTextFile(`${base}/.~anyfs-young`, "perhaps being written by another process");
    const fs = await openLocalBackend({ root: base });
    assert.deepEqual(await names(fs, "/"), ["d"]);
    assert.deepEqual(await names(fs, "/d"), []);
    assert.equal((await Deno.stat(`${base}/.~anyfs-young`)).isFile, true);
    await assert.rejects(fs.read("/.~anyfs-young"), (e) => hasCode(e, "invalid_input"));
    await Deno.utime(`${base}/.~anyfs-young`, 0, 0);
    await names(fs, "/");
    await assert.rejects(Deno.stat(`${base}/.~anyfs-young`), Deno.errors.NotFound);
    await fs.removeDir("/d");
    assert.deepEqual(await names(fs, "/"), []);
    await fs.close();
  }));

Deno.test("a pipe in the folder makes nobody wait", () =>
  withFolder(async (base) => {
    await new Deno.Command("mkfifo", { args: [`${base}/pipe`] }).output();
    const fs = await openLocalBackend({ root: base });
    await assert.rejects(fs.read("/pipe"), (e) => hasCode(e, "not_supported"));
    await assert.rejects(fs.write("/pipe", bytes), (e) => hasCode(e, "not_supported"));
    await fs.removeFile("/pipe");
    await fs.close();
  }));

Deno.test("a missing root is an unmounted disk, not an empty one", async () => {
  await assert.rejects(openLocalBackend({ root: "/no/such/folder" }), (e) => hasCode(e, "unavailable"));
});
