/** Contents made here from others: whatever was here before, and whatever was changed, only right bytes are shown. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { FsError } from "../fs/error.ts";
import { systemClock } from "../platform/clock.ts";
import type { ServerLink } from "../remote/protocol.ts";
import { chunkInline } from "../store/chunk_inline.ts";
import { hex } from "../store/hash.ts";
import { encodeManifest } from "../store/manifest.ts";
import { ContentCache, SMALL_CONTENT } from "./content_cache.ts";
import { LayerStack } from "./layers.ts";

type Bytes = Uint8Array<ArrayBuffer>;
/** A server that has everything, and its connection. */
function shop() {
  const contents = new Map<string, Bytes>();
  const manifests = new Map<string, Uint8Array>();
  const state = { online: true, fetched: 0 };
  const away = () => new FsError("unavailable", "the server is away");
  const link = {
    call: (method: string, { content }: { content: string }) =>
      !state.online || method !== "manifest" ? Promise.reject(away()) : Promise.resolve(manifests.get(content) ?? null),
    readContent: (hash: string, offset: number, length: number) => {
      if (!state.online) return Promise.reject(away());
      state.fetched += length;
      const bytes = contents.get(hash);
      assert.ok(bytes);
      return Promise.resolve(bytes.slice(offset, offset + length));
    },
  };
  const add = (bytes: Bytes): { hash: string; blob: Uint8Array } => {
    const { hash, blob } = encodeManifest(chunkInline(bytes));
    contents.set(hex(hash), bytes);
    manifests.set(hex(hash), blob);
    return { hash: hex(hash), blob };
  };
  return { state, add, link: link as unknown as ServerLink, hashBytes: (hash: string) => manifests.get(hash) };
}
function random(length: number, seed: number): Bytes {
  const bytes = new Uint8Array(length);
  let x = seed | 1;
  for (let i = 0; i < length; i++) {
    x = (Math.imul(x, 1664525) + 1013904223) | 0;
    bytes[i] = x >>> 24;
  }
  return bytes;
}

const openCache = (folder: string, link: ServerLink) =>
  ContentCache.open({ folder, maxBytes: 1e9, prefetch: false, clock: systemClock, link: () => link });

type Change = { t: "write"; at: number; length: number; zeros: boolean } | { t: "cut"; size: number } | {
  t: "punch";
  at: number;
  length: number;
} | { t: "layer" };
const change: fc.Arbitrary<Change> = fc.oneof(
  fc.record({
    t: fc.constant("write" as const),
    at: fc.nat(900_000),
    length: fc.oneof(fc.integer({ min: 1, max: 5000 }), fc.integer({ min: 1, max: 400_000 })),
    zeros: fc.boolean(),
  }),
  fc.record({ t: fc.constant("cut" as const), size: fc.nat(1_200_000) }),
  fc.record({ t: fc.constant("punch" as const), at: fc.nat(900_000), length: fc.integer({ min: 1, max: 300_000 }) }),
  fc.constant({ t: "layer" as const }),
);
const round = fc.record({
  changes: fc.array(change, { minLength: 1, maxLength: 6 }),
  /** Parts of the content before that are asked for first, as far as it reaches. */
  wanted: fc.array(fc.record({ at: fc.nat(900_000), length: fc.nat(400_000) }), { maxLength: 3 }),
  used: fc.boolean(),
  held: fc.boolean(),
  anew: fc.boolean(),
});

Deno.test(
  { name: "what is made of contents here is shown right, or not at all", sanitizeResources: false, sanitizeOps: false },
  async () => {
    const top = Deno.makeTempDirSync();
    let folders = 0;
    await fc.assert(
      fc.asyncProperty(
        fc.nat(1_000_000),
        fc.array(fc.integer({ min: 0, max: 9 }), { maxLength: 6 }),
        fc.array(round, { minLength: 1, maxLength: 4 }),
        async (length, zeros, rounds) => {
          const { state, add, link } = shop();
          const folder = `${top}/${folders++}`;
          const open = () => openCache(folder, link);
          let cache = await open();
          let bytes = random(length, length);
          for (const tenth of zeros) {
            bytes.fill(0, Math.floor(length * tenth / 10), Math.floor(length * tenth / 10) + 90_000);
          }
          let { hash } = add(bytes);
          for (const { changes, wanted, used, held, anew } of rounds) {
            const size = bytes.length;
            state.online = true;
            for (const { at, length } of wanted) {
              const start = Math.min(at, size);
              const end = Math.min(start + length, size);
              if (start < end) await cache.read(hash, size, start, end - start);
            }
            if (held) {
              await cache.fetch(hash, size);
              cache.hold(hash);
            }
            const stack = new LayerStack(size === 0 ? null : hash, size);
            let staged = 0;
            for (const each of changes) {
              const layer = stack.top();
              if (each.t === "write") {
                const written = each.zeros ? new Uint8Array(each.length) : random(each.length, each.at);
                layer.write(each.at, written, () => `${folder}/staged-${staged++}`);
                const next = new Uint8Array(Math.max(bytes.length, each.at + each.length));
                next.set(bytes);
                next.set(written, each.at);
                bytes = next;
              } else if (each.t === "cut") {
                layer.truncate(each.size);
                const next = new Uint8Array(each.size);
                next.set(bytes.subarray(0, each.size));
                bytes = next;
              } else if (each.t === "punch") {
                layer.punch(each.at, each.at + each.length);
                bytes = bytes.slice().fill(
                  0,
                  each.at,
                  Math.max(each.at, Math.min(each.at + each.length, bytes.length)),
                );
              } else layer.frozen = true;
            }
            const made = add(bytes);
            if (used) cache.retain(hash, size);
            cache.keepManifest(Uint8Array.fromHex(made.hash), made.blob);
            state.fetched = 0;
            const had = size === 0 || cache.isComplete(hash, size);
            const sources = stack.sources(0, bytes.length);
            cache.derive(made.hash, bytes.length, size === 0 ? null : { hash, size }, sources);
            if (used) cache.release(hash, size);
            for (const layer of stack.layers) layer.dispose();
            if (anew) {
              cache.close();
              cache = await open();
            }
            state.online = false;
            if (had && bytes.length > SMALL_CONTENT && made.hash !== hash) {
              assert.ok(cache.isComplete(made.hash, bytes.length));
            }
            for (let at = 0; at < bytes.length; at += 150_000) {
              const n = Math.min(150_000, bytes.length - at);
              const read = await cache.read(made.hash, bytes.length, at, n).catch((error) => {
                assert.ok(error instanceof FsError && error.code === "unavailable", String(error));
                return null;
              });
              if (read !== null) assert.deepEqual(read, bytes.slice(at, at + n));
            }
            state.online = true;
            assert.deepEqual(await cache.read(made.hash, bytes.length, 0, bytes.length), bytes);
            if (size > 0) {
              assert.deepEqual(await cache.read(hash, size, 0, size), await link.readContent(hash, 0, size));
            }
            hash = made.hash;
          }
          cache.close();
          Deno.removeSync(folder, { recursive: true });
        },
      ),
      { numRuns: Number(Deno.env.get("ANYFS_RUNS") ?? 60) },
    );
    Deno.removeSync(top, { recursive: true });
  },
);

Deno.test(
  {
    name: "a long stretch that was written comes piece by piece, and is not shown before",
    sanitizeResources: false,
    sanitizeOps: false,
  },
  async () => {
    const { state, add, link } = shop();
    const folder = Deno.makeTempDirSync();
    const cache = await openCache(folder, link);
    const before = random(30_000_000, 1);
    const { hash, blob } = add(before);
    cache.keepManifest(Uint8Array.fromHex(hash), blob);
    await cache.fetch(hash, before.length);
    const written = random(20_000_000, 2);
    // Zeros where there was something: they are not fetched, so the old bytes must be gone at once.
    written.fill(0, 5_000_000, 12_000_000);
    const stack = new LayerStack(hash, before.length);
    stack.top().write(3_000_000, written, () => `${folder}/staged`);
    stack.top().write(29_000_000, random(10, 3), () => "");
    const after = before.slice();
    after.set(written, 3_000_000);
    after.set(random(10, 3), 29_000_000);
    const made = add(after);
    cache.keepManifest(Uint8Array.fromHex(made.hash), made.blob);
    state.fetched = 0;
    cache.derive(made.hash, after.length, { hash, size: before.length }, stack.sources(0, after.length));
    for (const layer of stack.layers) layer.dispose();
    assert.equal(cache.isComplete(made.hash, after.length), false);
    assert.deepEqual(await cache.read(made.hash, after.length, 9_000_000, 1_000_000), new Uint8Array(1_000_000));
    // Changed again meanwhile, it is gone on with.
    const small = new LayerStack(made.hash, after.length);
    small.top().write(100, random(50, 4), () => `${folder}/staged-small`);
    small.top().write(14_000_000, random(50, 5), () => `${folder}/staged-small`);
    after.set(random(50, 4), 100);
    after.set(random(50, 5), 14_000_000);
    const next = add(after.slice());
    cache.keepManifest(Uint8Array.fromHex(next.hash), next.blob);
    cache.derive(next.hash, after.length, { hash: made.hash, size: after.length }, small.sources(0, after.length));
    for (let i = 0; i < 500 && !cache.isComplete(next.hash, after.length); i++) {
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    state.online = false;
    assert.deepEqual(await cache.read(next.hash, after.length, 0, after.length), after);
    assert.ok(state.fetched < 2_000_000);
    // Closed in the middle it begins with what was there.
    const more = new LayerStack(next.hash, after.length);
    more.top().write(0, written, () => `${folder}/staged-too`);
    const last = after.slice();
    last.set(written, 0);
    const third = add(last);
    cache.keepManifest(Uint8Array.fromHex(third.hash), third.blob);
    cache.derive(third.hash, last.length, { hash: next.hash, size: after.length }, more.sources(0, last.length));
    for (const layer of more.layers) layer.dispose();
    cache.close();
    const again = await openCache(folder, link);
    assert.equal(again.isComplete(third.hash, last.length), false);
    assert.deepEqual(
      await again.read(third.hash, last.length, 25_000_000, 1_000_000),
      last.slice(25_000_000, 26_000_000),
    );
    state.online = true;
    assert.deepEqual(await again.read(third.hash, last.length, 0, last.length), last);
    again.close();
    Deno.removeSync(folder, { recursive: true });
  },
);

Deno.test(
  {
    name: "thousands of ranges in one layer are copied without a descriptor each",
    sanitizeResources: false,
    sanitizeOps: false,
  },
  async () => {
    const { state, add, link } = shop();
    const folder = Deno.makeTempDirSync();
    const cache = await openCache(folder, link);
    const bytes = random(12_000_000, 1);
    const { hash, blob } = add(bytes.slice());
    cache.keepManifest(Uint8Array.fromHex(hash), blob);
    await cache.fetch(hash, bytes.length);
    const stack = new LayerStack(hash, bytes.length);
    for (let at = 0; at + 1000 < bytes.length; at += 2000) {
      const part = random(1000, at);
      stack.top().write(at, part, () => `${folder}/staged`);
      bytes.set(part, at);
    }
    const made = add(bytes);
    cache.keepManifest(Uint8Array.fromHex(made.hash), made.blob);
    // Other tests run in this process.
    const isOfFolder = (fd: string) => {
      try {
        return Deno.readLinkSync(`/proc/self/fd/${fd}`).startsWith(folder);
      } catch {
        return false;
      }
    };
    const descriptors = () => [...Deno.readDirSync("/proc/self/fd")].filter(({ name }) => isOfFolder(name)).length;
    const before = descriptors();
    cache.derive(made.hash, bytes.length, { hash, size: bytes.length }, stack.sources(0, bytes.length));
    for (const layer of stack.layers) layer.dispose();
    assert.ok(descriptors() <= before + 1);
    for (let i = 0; i < 500 && !cache.isComplete(made.hash, bytes.length); i++) {
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    assert.ok(descriptors() < before);
    state.online = false;
    assert.deepEqual(await cache.read(made.hash, bytes.length, 0, bytes.length), bytes);
    cache.close();
    Deno.removeSync(folder, { recursive: true });
  },
);
