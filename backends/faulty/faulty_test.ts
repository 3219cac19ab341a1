/** The faulty doubles do what their script says, to the calls it names, and the same again for the same seed. */
import assert from "node:assert/strict";
import { FsError, hasCode } from "../../core/fs/error.ts";
import { openMemoryBackend } from "../memory/backend.ts";
import { openMemoryObjectStore } from "../memory/object_store.ts";
import { faultyBackend } from "./backend.ts";
import { FaultyObjectStore } from "./object_store.ts";
import { FaultScript } from "./script.ts";

const bytes = new Uint8Array(1000).fill(7);
const all = async (stream: ReadableStream<Uint8Array>) =>
  (await Array.fromAsync(stream)).reduce((sum, part) => sum + part.length, 0);
const code = (wanted: FsError["code"]) => (error: unknown) => hasCode(error, wanted);

async function filled() {
  const script = new FaultScript();
  const below = openMemoryBackend();
  await below.write("/a", bytes);
  await below.write("/b", bytes);
  return { script, below, fs: faultyBackend(below, script) };
}

Deno.test("an error hits the operations and paths it names, so many times, after so many calls", async () => {
  const { script, fs } = await filled();
  script.add({ operations: ["read"], path: "/a", skip: 1, times: 2, kind: { error: "unavailable" } });
  await fs.read("/a");
  await fs.read("/b");
  await assert.rejects(fs.read("/a"), code("unavailable"));
  await fs.stat("/a");
  await assert.rejects(fs.read("/a"), code("unavailable"));
  await fs.read("/a");
  assert.deepEqual(script.calls.map((c) => `${c.operation} ${c.path} ${c.faults.length}`), [
    "read /a 0",
    "read /b 0",
    "read /a 1",
    "stat /a 0",
    "read /a 1",
    "read /a 0",
  ]);
  const end = script.add({ path: /^\/b$/, kind: { error: "no_space" } });
  await assert.rejects(fs.append("/b", bytes), code("no_space"));
  await assert.rejects(Array.fromAsync(fs.readDir("/b")), code("no_space"));
  end();
  await fs.append("/b", bytes);
});

Deno.test("a lost answer leaves the work done", async () => {
  const { script, fs, below } = await filled();
  script.add({ operations: ["removeFile"], kind: { error: "timeout", after: true } });
  await assert.rejects(fs.removeFile("/a"), code("timeout"));
  assert.equal(await below.exists("/a"), false);
});

Deno.test("a call that hangs ends with the caller's signal, or with the script's release", async () => {
  const { script, fs } = await filled();
  script.add({ operations: ["read"], kind: { hang: true } });
  const controller = new AbortController();
  const first = fs.read("/a", { signal: controller.signal });
  const second = fs.read("/b");
  assert.equal(script.hanging, 2);
  controller.abort();
  await assert.rejects(first, code("cancelled"));
  assert.equal(script.hanging, 1);
  script.clear();
  await assert.rejects(second, code("unavailable"));
  assert.equal((await fs.read("/a")).length, 1000);
});

Deno.test("short reads, torn writes and flipped bits do to bytes what they say", async () => {
  const { script, fs, below } = await filled();
  script.add({ operations: ["read", "openRead"], path: "/a", kind: { shortRead: 10 } });
  assert.equal((await fs.read("/a")).length, 990);
  assert.equal(await all(await fs.openRead("/a")), 990);

  script.add({ operations: ["write", "append", "openWrite"], path: "/torn", kind: { tornWrite: 0.25 } });
  await assert.rejects(fs.write("/torn", bytes), code("unavailable"));
  assert.equal((await below.stat("/torn")).size, 250);
  await assert.rejects(fs.append("/torn", bytes), code("unavailable"));
  assert.equal((await below.stat("/torn")).size, 500);
  const writer = await fs.openWrite("/torn2");
  const sink = writer.writable.getWriter();
  await sink.write(bytes);
  await assert.rejects(sink.close());
  await assert.rejects(writer.done, code("unavailable"));
  assert.equal((await below.stat("/torn2")).size, 250);

  script.add({ operations: ["read", "write"], path: "/b", kind: { flipBit: true } });
  const wrongBits = (read: Uint8Array) =>
    read.reduce((sum, byte) => sum + (byte ^ 7).toString(2).replaceAll("0", "").length, 0);
  assert.equal(wrongBits(await fs.read("/b")), 1);
  assert.equal(wrongBits(await below.read("/b")), 0);
  await fs.write("/b", bytes);
  assert.equal(wrongBits(await below.read("/b")), 1);
});

Deno.test("the same seed gives the same faults", async () => {
  const run = async (seed: number) => {
    const script = new FaultScript({ seed });
    const fs = faultyBackend(openMemoryBackend(), script);
    script.add({ probability: 0.3, kind: { error: "unavailable" } });
    for (let i = 0; i < 200; i++) await fs.exists("/").catch(() => {});
    return script.calls.map((call) => call.faults.length).join("");
  };
  const first = await run(42);
  assert.equal(await run(42), first);
  assert.notEqual(await run(43), first);
  const hits = first.split("1").length - 1;
  assert(hits > 30 && hits < 90, `${hits} of 200`);
});

Deno.test("an object store goes wrong in the same ways", async () => {
  const script = new FaultScript();
  const below = openMemoryObjectStore();
  const store = new FaultyObjectStore(below, script);
  await store.put("a", bytes);
  script.add({ operations: ["get", "getStream"], kind: { shortRead: 1 } });
  assert.equal((await store.get("a")).length, 999);
  assert.equal(await all(store.getStream("a")), 999);
  script.add({ operations: ["put"], path: "torn", times: 1, kind: { tornWrite: 0.5 } });
  await assert.rejects(store.put("torn", bytes), code("unavailable"));
  assert.equal((await below.head("torn"))?.size, 500);
  script.add({ operations: ["put"], path: "flip", kind: { flipBit: true } });
  await store.put("flip", bytes);
  assert.notDeepEqual(await below.get("flip"), bytes);
  script.add({ operations: ["head", "list", "check", "delete"], kind: { error: "access_denied" } });
  await assert.rejects(store.head("a"), code("access_denied"));
  await assert.rejects(Array.fromAsync(store.list("")), code("access_denied"));
  await assert.rejects(store.check(), code("access_denied"));
  await assert.rejects(store.delete("a"), code("access_denied"));
});
