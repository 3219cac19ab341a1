/** A stack of layers, and the faulty backend without faults, pass the suites as what they wrap does. */
import assert from "node:assert/strict";
import { faultyBackend } from "../../backends/faulty/backend.ts";
import { FaultScript } from "../../backends/faulty/script.ts";
import { openMemoryBackend } from "../../backends/memory/backend.ts";
import { hasLinks, hasPermissions, hasStats, hasSync, hasTimes, hasXattr } from "../../core/fs/capability.ts";
import type { Fs } from "../../core/fs/contract.ts";
import { forward, type Layer, stack } from "../../core/fs/stack.ts";
import { readOnly } from "../../core/layers/read_only.ts";
import { rejects, text, utf8 } from "../support/expect.ts";
import { testBackend } from "./backend.ts";
import { testFileStorage } from "./file_storage.ts";

const open = (wrap: (fs: ReturnType<typeof openMemoryBackend>) => Fs) => () =>
  Promise.resolve({
    traits: openMemoryBackend().traits,
    open: () => Promise.resolve({ fs: wrap(openMemoryBackend()), dispose: () => Promise.resolve() }),
  });
const nothing: Layer = (inner) => forward(inner, {});

testBackend("faulty without faults", open((fs) => faultyBackend(fs, new FaultScript())));
testFileStorage("faulty without faults", open((fs) => faultyBackend(fs, new FaultScript())));
testBackend("three layers that do nothing", open((fs) => stack(fs, nothing, nothing, nothing)));

const capabilities = (fs: Fs) =>
  [hasLinks, hasPermissions, hasTimes, hasXattr, hasSync, hasStats].map((has) => has(fs));

Deno.test("a layer keeps the capabilities of what it wraps, and adds none", async () => {
  const full = openMemoryBackend();
  assert.deepEqual(capabilities(stack(full, readOnly())), [true, true, true, true, true, true]);
  assert.equal(stack(full, readOnly()).traits, full.traits);
  const { traits: _, ...bare } = forward(full, {});
  const { symlink: _1, hardLink: _2, chmod: _3, utimes: _4, setXattr: _5, sync: _6, statFs: _7, ...few } = bare;
  const wrapped = stack(few as Fs, readOnly());
  assert.deepEqual(capabilities(wrapped), [false, false, false, false, false, false]);
  assert.equal("symlink" in wrapped, false);
  await rejects("read_only", wrapped.createDir("/x"));
});

Deno.test("the types of a stack say what it can do", async () => {
  // Compiles only while Wrapped keeps them.
  const fs = stack(openMemoryBackend(), readOnly());
  await rejects("read_only", fs.symlink("a", "/b"));
  await rejects("read_only", fs.setXattr("/", "user.a", utf8("x")));
  assert((await fs.statFs()).total > 0);
  await fs.close();
});

Deno.test("readOnly refuses every change, naming the victim, and lets every look through", async () => {
  const below = openMemoryBackend();
  await below.createDir("/d");
  await below.write("/d/f", utf8("x"));
  await below.symlink("f", "/d/l");
  const before = JSON.stringify(await Array.fromAsync(below.readDir("/d")));
  const fs = stack(below, readOnly());
  const time = { sec: 1, nsec: 0 };
  const changes: readonly Promise<unknown>[] = [
    fs.write("/d/f", utf8("y")),
    fs.append("/d/f", utf8("y")),
    fs.openWrite("/d/f"),
    fs.truncate("/d/f", 0),
    fs.copy("/d/f", "/d/g"),
    fs.rename("/d/f", "/d/g"),
    fs.removeFile("/d/f"),
    fs.createDir("/e"),
    fs.createDirAll("/e/f"),
    fs.removeDir("/d"),
    fs.removeDirAll("/d"),
    fs.hardLink("/d/f", "/d/h"),
    fs.chmod("/d/f", 0o600),
    fs.chown("/d/f", 1, 1),
    fs.utimes("/d/f", time, time),
    fs.setXattr("/d/f", "user.a", utf8("1")),
    fs.removeXattr("/d/f", "user.a"),
  ];
  for (const change of await Promise.allSettled(changes)) assert.equal(change.status, "rejected");
  for (const change of changes) await rejects("read_only", change);
  const { message, errno } = await rejects("read_only", fs.symlink("target", "/d/victim"));
  assert(message.includes("/d/victim"), message);
  assert.equal(errno, 30);
  assert.equal(JSON.stringify(await Array.fromAsync(below.readDir("/d"))), before);
  assert.equal(text(await fs.read("/d/f")), "x");
  assert.equal(await fs.readLink("/d/l"), "f");
  assert.equal((await fs.stat("/d/f")).size, 1);
  assert.equal(await fs.exists("/d"), true);
});

Deno.test("calls meet the last layer of a stack first", async () => {
  const order: string[] = [];
  const named = (name: string): Layer => (inner) =>
    forward(inner, {
      exists: (path, options) => {
        order.push(name);
        return inner.exists(path, options);
      },
    });
  assert.equal(await stack(openMemoryBackend(), named("a"), named("b")).exists("/"), true);
  assert.deepEqual(order, ["b", "a"]);
});
