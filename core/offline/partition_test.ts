/**
 * Several devices change one tree through partitions and crashes: afterwards all show the same, and every version that was
 * closed is there, or was replaced or removed by somebody who had it before their eyes.
 * `deno task partitions` runs many more.
 */
import assert from "node:assert/strict";
import fc from "fast-check";
import { FakeServer } from "../../tests/support/fake_server.ts";
import { caller, quiet, serverTree, SimDevice } from "../../tests/support/sim_device.ts";
import { Errno, FsError } from "../fs/error.ts";
import { ChunkPool } from "../store/chunk_pool.ts";
import type { ConflictPolicy } from "./conflict_list.ts";

interface Spot {
  readonly folder: string;
  readonly name: string;
}
type Step =
  | { t: "write"; device: number; at: Spot; size: number }
  | { t: "remove"; device: number; at: Spot }
  | { t: "rename"; device: number; at: Spot; to: Spot }
  | { t: "link"; device: number; at: Spot; to: Spot }
  | { t: "copy"; device: number; at: Spot; to: Spot; remove: boolean }
  | { t: "attribute"; device: number; at: Spot; name: string; value: number }
  | { t: "mkdir"; device: number; name: string }
  | { t: "rmdir"; device: number; name: string }
  | { t: "move"; device: number; name: string; to: string }
  | { t: "cut"; device: number }
  | { t: "heal"; device: number }
  | { t: "crash"; device: number }
  | { t: "quiet" };

const device = fc.integer({ min: 0, max: 2 });
const folder = fc.constantFrom("", "", "p", "q");
const at: fc.Arbitrary<Spot> = fc.record({ folder, name: fc.constantFrom("x", "y", "X") });
const name = fc.constantFrom("p", "q");
const just = <T extends string>(t: T) => fc.constant(t);
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({ t: just("write"), device, at, size: fc.oneof(fc.nat(50), fc.nat(400_000)) }),
  },
  { weight: 3, arbitrary: fc.record({ t: just("remove"), device, at }) },
  { weight: 4, arbitrary: fc.record({ t: just("rename"), device, at, to: at }) },
  { weight: 1, arbitrary: fc.record({ t: just("link"), device, at, to: at }) },
  { weight: 2, arbitrary: fc.record({ t: just("copy"), device, at, to: at, remove: fc.boolean() }) },
  {
    weight: 3,
    arbitrary: fc.record({ t: just("attribute"), device, at, name: fc.constantFrom("k", "l"), value: fc.nat(255) }),
  },
  { weight: 3, arbitrary: fc.record({ t: just("mkdir"), device, name }) },
  { weight: 2, arbitrary: fc.record({ t: just("rmdir"), device, name }) },
  { weight: 1, arbitrary: fc.record({ t: just("move"), device, name, to: name }) },
  { weight: 4, arbitrary: fc.record({ t: just("cut"), device }) },
  { weight: 2, arbitrary: fc.record({ t: just("heal"), device }) },
  { weight: 1, arbitrary: fc.record({ t: just("crash"), device }) },
  { weight: 1, arbitrary: fc.constant({ t: "quiet" as const }) },
);
const policies: readonly ConflictPolicy[] = ["keep-both", "server-wins", "client-wins", "newer", "manual"];

const top = (name: string): Spot => ({ folder: "", name });
/** What random runs have found. */
const FOUND: { what: string; policy: ConflictPolicy; steps: Step[] }[] = [
  {
    what: "others wrote what was written and replaced here",
    policy: "keep-both",
    steps: [
      { t: "cut", device: 0 },
      { t: "rename", device: 0, at: top("y"), to: top("X") },
      { t: "copy", device: 0, at: top("X"), to: top("x"), remove: false },
      { t: "write", device: 0, at: top("x"), size: 0 },
      { t: "write", device: 0, at: top("x"), size: 0 },
      { t: "copy", device: 1, at: top("y"), to: top("x"), remove: false },
      { t: "remove", device: 0, at: top("X") },
    ],
  },
  {
    what: "a listing came before the news, and then the connection was cut",
    policy: "keep-both",
    steps: [
      { t: "write", device: 1, at: top("y"), size: 0 },
      { t: "cut", device: 0 },
      { t: "copy", device: 0, at: top("y"), to: top("x"), remove: false },
    ],
  },
  {
    what: "a kill came before the server was asked about what had been given up",
    policy: "keep-both",
    steps: [
      { t: "cut", device: 0 },
      { t: "remove", device: 1, at: top("y") },
      { t: "mkdir", device: 0, name: "q" },
      { t: "rename", device: 0, at: top("y"), to: { folder: "q", name: "x" } },
      { t: "heal", device: 0 },
      ...[0, 0, 0].map((size): Step => ({ t: "write", device: 0, at: top("x"), size })),
      { t: "remove", device: 0, at: top("x") },
      { t: "crash", device: 0 },
    ],
  },
  {
    what: "news came while a conflict was settled",
    policy: "manual",
    steps: [
      { t: "write", device: 2, at: { folder: "p", name: "X" }, size: 5 },
      { t: "cut", device: 2 },
      { t: "cut", device: 0 },
      { t: "rename", device: 2, at: { folder: "p", name: "X" }, to: top("y") },
      { t: "rename", device: 0, at: top("x"), to: { folder: "p", name: "X" } },
      { t: "mkdir", device: 0, name: "q" },
      { t: "remove", device: 2, at: { folder: "p", name: "x" } },
      { t: "copy", device: 2, at: { folder: "p", name: "y" }, to: top("y"), remove: true },
    ],
  },
  {
    what: "a kill took back the news on which a file was made",
    policy: "manual",
    steps: [
      { t: "mkdir", device: 0, name: "q" },
      { t: "write", device: 0, at: { folder: "q", name: "X" }, size: 0 },
      { t: "rename", device: 1, at: top("y"), to: top("x") },
      { t: "rename", device: 0, at: top("x"), to: top("y") },
      { t: "cut", device: 0 },
      { t: "write", device: 0, at: top("x"), size: 0 },
      { t: "rename", device: 1, at: { folder: "q", name: "X" }, to: top("x") },
      { t: "write", device: 0, at: top("x"), size: 0 },
      { t: "crash", device: 0 },
    ],
  },
  {
    what: "a file that was removed here came back without its extended attributes",
    policy: "newer",
    steps: [
      { t: "cut", device: 2 },
      { t: "mkdir", device: 2, name: "q" },
      { t: "attribute", device: 2, at: top("x"), name: "k", value: 0 },
      { t: "write", device: 2, at: { folder: "q", name: "x" }, size: 0 },
      { t: "move", device: 0, name: "p", to: "q" },
      { t: "write", device: 0, at: top("x"), size: 0 },
      { t: "cut", device: 0 },
      { t: "remove", device: 2, at: top("x") },
      { t: "rename", device: 2, at: { folder: "q", name: "x" }, to: top("x") },
      { t: "write", device: 0, at: top("x"), size: 0 },
    ],
  },
];

const HEADER = 8;
const versionOf = (bytes: Uint8Array) => Number(new TextDecoder().decode(bytes.subarray(0, HEADER)));
function bytesOf(version: number, size: number): Uint8Array {
  const out = new Uint8Array(HEADER + size).fill(version & 0xff);
  out.set(new TextEncoder().encode(String(version).padStart(HEADER)));
  return out;
}

async function run(steps: readonly Step[], policy: ConflictPolicy, pool: ChunkPool): Promise<void> {
  const server = new FakeServer();
  const devices: SimDevice[] = [];
  for (const name of ["a", "b", "c"]) devices.push(await SimDevice.open({ server, name, pool, policy }));
  let versions = 0;
  const written = new Map<number, Uint8Array>();
  /** `version@inode`: written or copied there, and not replaced or removed by somebody who had it before their eyes. */
  const kept = new Set<string>();
  /** What devices that are cut off have replaced or removed since: equal bytes that another puts there are the same version. */
  const replaced = new Map<number, Set<string>>();
  /** 0: an empty file, as one that was just made by somebody else is. */
  const put = (version: number, ino: number) => {
    const one = `${version}@${ino}`;
    if (version !== 0 && ![...replaced.values()].some((away) => away.has(one))) kept.add(one);
  };
  const seen = (version: number, ino: number, by: number) => {
    kept.delete(`${version}@${ino}`);
    replaced.get(by)?.add(`${version}@${ino}`);
  };

  const perform = async (s: Step): Promise<void> => {
    if (s.t === "quiet") return await quiet(devices);
    const d = devices[s.device];
    if (d === undefined) return;
    if (s.t === "cut") {
      // What it has seen it has offline.
      if (d.link.connected) {
        for (const { ino, what } of (await d.tree()).values()) if (what !== "folder") await d.read(ino);
      }
      if (!replaced.has(s.device)) replaced.set(s.device, new Set());
      return d.link.disconnect();
    }
    if (s.t === "heal") return d.link.connected ? undefined : await d.link.connect();
    if (s.t === "crash") {
      devices[s.device] = await d.crash();
      return;
    }
    // Those who are connected know what they replace.
    if (d.link.connected) {
      await quiet(devices);
      for (const number of [...replaced.keys()]) if (devices[number]?.link.connected) replaced.delete(number);
    }
    const parentOf = async (spot: Spot) => spot.folder === "" ? 1 : await d.at(spot.folder);
    if (s.t === "mkdir") return void await d.fs.mkdir(1, s.name, 0o755, caller);
    if (s.t === "rmdir") return await d.fs.rmdir(1, s.name, caller);
    if (s.t === "move") return await d.fs.rename(1, s.name, 1, s.to, 0, caller);
    const parent = await parentOf(s.at);
    if (parent === 0) return;
    const ino = (await d.fs.lookup(parent, s.at.name, caller))?.ino ?? 0;
    if (s.t === "write") {
      const before = ino === 0 ? 0 : versionOf(await d.read(ino));
      const version = ++versions;
      const data = bytesOf(version, s.size);
      // Written or not when it fails in between: then it may be found.
      const target = await d.write(parent, s.at.name, data);
      written.set(version, data);
      put(version, target);
      return void seen(before, ino, s.device);
    }
    if (ino === 0) return;
    if (s.t === "attribute") return void await d.fs.setxattr(ino, `user.${s.name}`, Uint8Array.of(s.value), 0);
    const lost = async (gone: number) => {
      const stat = await d.fs.getattr(gone, undefined);
      return stat.nlink > 1 ? 0 : versionOf(await d.read(gone));
    };
    if (s.t === "remove") {
      const version = await lost(ino);
      await d.fs.unlink(parent, s.at.name, caller);
      return void seen(version, ino, s.device);
    }
    const target = await parentOf(s.to);
    if (target === 0) return;
    if (s.t === "link") return void await d.fs.link(ino, target, s.to.name, caller);
    const there = (await d.fs.lookup(target, s.to.name, caller))?.ino ?? 0;
    if (s.t === "copy") {
      if (there === ino) return;
      const before = there === 0 ? 0 : versionOf(await d.read(there));
      const data = await d.read(ino);
      const copy = await d.copy(ino, target, s.to.name).catch((error) => {
        if (!(error instanceof FsError) || error.details.errno !== Errno.EXDEV) throw error;
        return d.write(target, s.to.name, data);
      });
      const version = versionOf(data);
      // The same bytes once more are no change.
      if (version !== before) {
        seen(before, there, s.device);
        put(version, copy);
      }
      if (!s.remove) return;
      const gone = await lost(ino);
      await d.fs.unlink(parent, s.at.name, caller);
      return void seen(gone, ino, s.device);
    }
    const version = there === 0 || there === ino ? 0 : await lost(there);
    await d.fs.rename(parent, s.at.name, target, s.to.name, 0, caller);
    seen(version, there, s.device);
  };

  const begin: Step[] = ["x", "y"].flatMap((name) =>
    ["", "p"].map((folder): Step => ({ t: "write", device: 0, at: { folder, name }, size: 10 }))
  );
  for (const s of [{ t: "mkdir", device: 0, name: "p" } as const, ...begin, ...steps]) {
    try {
      await perform(s);
    } catch (error) {
      // Offline something may be unknown; and names are taken, folders full, as names and folders are.
      if (!(error instanceof FsError) || error.code === "internal" || error.code === "corrupt") throw error;
    }
  }
  for (const d of devices) if (!d.link.connected) await d.link.connect();
  await quiet(devices);
  const there = await serverTree(server);
  const found = new Set<number>();
  for (const [path, { what }] of there) {
    if (what === "folder" || what === "empty") continue;
    const bytes = await server.content(what);
    const version = versionOf(bytes);
    const expected = written.get(version);
    if (expected !== undefined) assert.deepEqual(bytes, expected, `${path} is one version, whole`);
    found.add(version);
  }
  const lines = (tree: Map<string, { ino: number; what: string }>) =>
    [...tree].map(([path, { ino, what }]) => `${path} ${ino} ${what.slice(0, 12)}`).sort().join("\n");
  for (const one of kept) {
    assert.ok(found.has(Number.parseInt(one)), `version ${one} is not lost; there are\n${lines(there)}`);
  }
  for (const d of devices) {
    assert.equal(lines(await d.tree()), lines(there), `${d.link.id} shows what the server has`);
    for (const [path, { ino, what }] of await d.tree()) {
      assert.deepEqual(await d.fs.listxattr(ino, caller), await server.index.listXattr(ino), `${path} on ${d.link.id}`);
      for (const name of await server.index.listXattr(ino)) {
        assert.deepEqual(
          await d.fs.getxattr(ino, name),
          await server.index.getXattr(ino, name),
          `${path} on ${d.link.id}`,
        );
      }
      if (what === "folder" || what === "empty") continue;
      assert.deepEqual(await d.read(ino), await server.content(what), `${path} on ${d.link.id}`);
    }
    assert.deepEqual(d.fs.status().pending, { records: 0, bytes: 0 });
  }
  for (const d of devices) await d.stop();
  await server.index.close();
}

for (const { what, policy, steps } of FOUND) {
  Deno.test({ name: `found by partitions: ${what}`, sanitizeResources: false, sanitizeOps: false }, async () => {
    const pool = new ChunkPool({ workers: 1 });
    try {
      await run(steps, policy, pool);
    } finally {
      pool.close();
    }
  });
}

Deno.test({
  name: "after partitions and crashes all devices show the same, and no version that was closed is lost",
  sanitizeResources: false,
  sanitizeOps: false,
}, async () => {
  const pool = new ChunkPool({ workers: 1 });
  // The short run is always the same; the long one never.
  const seed = Deno.env.get("ANYFS_SEED") ?? (Deno.env.has("ANYFS_RUNS") ? undefined : "20261121");
  try {
    await fc.assert(
      fc.asyncProperty(
        fc.array(step, { minLength: 8, maxLength: 40, size: "max" }),
        fc.constantFrom(...policies),
        async (steps, policy) => await run(steps, policy, pool),
      ),
      {
        numRuns: Number(Deno.env.get("ANYFS_RUNS") ?? 30),
        ...(seed === undefined ? {} : { seed: Number(seed) }),
        interruptAfterTimeLimit: Number(Deno.env.get("ANYFS_LIMIT_SECS") ?? 60) * 1000,
      },
    );
  } finally {
    pool.close();
  }
});
