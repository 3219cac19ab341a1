/** A folder whose calls never end, as those of a NAS that hangs: named pipes that nobody writes to. */
import assert from "node:assert/strict";
import type { FsError } from "../../core/fs/error.ts";
import { LocalObjectStore } from "./object_store.ts";

/** More than the runtime has threads for calls that wait. */
const CALLS = 40;

Deno.test({
  name: "a folder that hangs does not take the threads that others' calls need, and is used again when it answers",
  sanitizeOps: false,
  sanitizeResources: false,
}, async () => {
  const folder = Deno.makeTempDirSync();
  const pipes = Array.from({ length: CALLS }, (_, i) => `pipe${i}`);
  await new Deno.Command("mkfifo", { args: pipes.map((name) => `${folder}/${name}`) }).output();
  Deno.writeTextFileSync(`${folder}/object`, "bytes");
  const store = new LocalObjectStore({ folder, stepTimeoutMs: 100 });
  const timedOut = (error: FsError) => error.code === "timeout";
  // Each of them by a store of its own: who could not open one tries it anew.
  const again = () => new LocalObjectStore({ folder, stepTimeoutMs: 100 });
  await Promise.all(pipes.map((key) => assert.rejects(again().get(key), timedOut)));
  const aborted = AbortSignal.timeout(10);
  await assert.rejects(store.get("object", { signal: aborted }), timedOut);
  await assert.rejects(store.get("object"), timedOut);

  const patience = Promise.withResolvers<string>();
  const timer = setTimeout(() => patience.resolve("nothing, for 5 s"), 5000);
  assert.equal(await Promise.race([Deno.readTextFile(`${folder}/object`), patience.promise]), "bytes");
  clearTimeout(timer);

  // Opening both ends waits for nobody, and lets go who waits for a writer.
  const ends = pipes.map((name) => Deno.openSync(`${folder}/${name}`, { read: true, write: true }));
  const got = async (): Promise<Uint8Array> => await store.get("object").catch(() => got());
  assert.deepEqual(await got(), new TextEncoder().encode("bytes"));
  for (const end of ends) end.close();
  Deno.removeSync(folder, { recursive: true });
});
