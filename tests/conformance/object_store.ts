/** The conformance suite of ObjectStore: what core/tiers relies on, asked of every store alike. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import type { ObjectSource, ObjectStore } from "../../core/fs/object_store.ts";
import { pattern } from "../support/bytes.ts";
import { collect, rejects } from "../support/expect.ts";

/** A fresh, empty store, and its end. */
export interface ObjectStoreFactory {
  open(): Promise<{ store: ObjectStore; dispose(): Promise<void> }>;
  /** Bytes of an object that the store has to take in several parts. @default 20 MiB + 1 */
  readonly largeSize?: number;
  /** Objects that do not fit on one page of a listing. @default 1100 */
  readonly manyObjects?: number;
}

function source(bytes: Uint8Array, options: { size?: number; failAt?: number; piece?: number } = {}): ObjectSource {
  const piece = options.piece ?? 100_003;
  return {
    size: options.size ?? bytes.length,
    open() {
      let at = 0;
      return new ReadableStream({
        pull(controller) {
          if (options.failAt !== undefined && at >= options.failAt) throw new Error("the source broke");
          if (at >= bytes.length) {
            controller.close();
            return;
          }
          controller.enqueue(bytes.slice(at, at + piece));
          at += piece;
        },
      });
    },
  };
}

async function keys(store: ObjectStore, prefix: string, after?: string): Promise<string[]> {
  return (await Array.fromAsync(store.list(prefix, after))).map((o) => o.key);
}

/** Defines one Deno test a behaviour. `factory` resolves to a reason when the store can't be had here. */
export function testObjectStore(name: string, getFactory: () => Promise<ObjectStoreFactory | { skip: string }>): void {
  const test = (title: string, body: (store: ObjectStore, factory: ObjectStoreFactory) => Promise<void>) =>
    Deno.test({
      name: `${name} object store: ${title}`,
      // HTTP clients keep their idle connections beyond one test.
      sanitizeOps: false,
      sanitizeResources: false,
      async fn() {
        const factory = await getFactory();
        if ("skip" in factory) {
          console.log(`    skipped: ${factory.skip}`);
          return;
        }
        const { store, dispose } = await factory.open();
        try {
          await body(store, factory);
        } catch (error) {
          // What went wrong first is what counts, not what it makes of the cleaning up.
          await store.close().then(dispose).catch(() => {});
          throw error;
        }
        await store.close();
        await dispose();
      },
    });

  test("returns what was put, whole and by range", async (store) => {
    const bytes = pattern(300_000, 1);
    await store.put("packs/ab/one.pack", bytes);
    assert.deepEqual(await store.get("packs/ab/one.pack"), bytes);
    for (const [offset, length] of [[0, 1], [1, 0], [299_999, 1], [65_535, 2], [0, 300_000], [300_000, 0]] as const) {
      assert.deepEqual(await store.get("packs/ab/one.pack", { offset, length }), bytes.slice(offset, offset + length));
    }
    assert.deepEqual(await store.get("packs/ab/one.pack", { offset: 299_000 }), bytes.slice(299_000));
    assert.deepEqual(await collect(store.getStream("packs/ab/one.pack")), bytes);
    assert.deepEqual(await store.head("packs/ab/one.pack"), { key: "packs/ab/one.pack", size: 300_000 });
  });

  test("keeps an empty object", async (store) => {
    await store.put("empty", new Uint8Array(0));
    assert.deepEqual(await store.get("empty"), new Uint8Array(0));
    assert.deepEqual(await collect(store.getStream("empty")), new Uint8Array(0));
    assert.deepEqual(await store.head("empty"), { key: "empty", size: 0 });
    assert.deepEqual(await store.get("empty", { offset: 0, length: 0 }), new Uint8Array(0));
  });

  test("takes a large object from a stream and returns it bit for bit", async (store, factory) => {
    const bytes = pattern(factory.largeSize ?? 20 * 1024 * 1024 + 1, 2);
    await store.put("large", source(bytes));
    assert.equal((await store.head("large"))?.size, bytes.length);
    const back = await collect(store.getStream("large"));
    assert.equal(back.length, bytes.length);
    assert.equal(Buffer.compare(back, bytes), 0);
    const middle = await store.get("large", { offset: 9_000_000, length: 4_000_000 });
    assert.equal(Buffer.compare(middle, bytes.subarray(9_000_000, 13_000_000)), 0);
  });

  test("reports a short object as corrupt, never as a short read", async (store) => {
    await store.put("short", pattern(10, 3));
    const error = await rejects("corrupt", store.get("short", { offset: 5, length: 6 }));
    assert.equal(error.details.usage, 10);
    await rejects("corrupt", store.get("short", { offset: 11, length: 0 }));
    await rejects("corrupt", store.get("short", { offset: 100, length: 5 }));
  });

  test("says not_found for what is not there, and null for its head", async (store) => {
    await rejects("not_found", store.get("no/such"));
    await rejects("not_found", store.get("no/such", { offset: 0, length: 0 }));
    await rejects("not_found", store.get("no/such", { offset: 7, length: 9 }));
    await rejects("not_found", collect(store.getStream("no/such")));
    assert.equal(await store.head("no/such"), null);
    await store.delete("no/such");
  });

  test("replaces an object whole and deletes it for good", async (store) => {
    await store.put("a/b", pattern(1000, 4));
    await store.put("a/b", pattern(10, 5));
    assert.deepEqual(await store.get("a/b"), pattern(10, 5));
    await store.delete("a/b");
    assert.equal(await store.head("a/b"), null);
    assert.deepEqual(await keys(store, ""), []);
  });

  test("shows a reader one whole version while writers replace it", async (store) => {
    const versions = [pattern(200_000, 6), pattern(150_000, 7), pattern(250_001, 8)];
    await store.put("racy", versions[0] ?? new Uint8Array());
    const writers = versions.map((bytes) => store.put("racy", source(bytes)));
    const seen = await Promise.all([store.get("racy"), store.get("racy"), store.get("racy")]);
    await Promise.all(writers);
    seen.push(await store.get("racy"));
    for (const bytes of seen) {
      assert(versions.some((v) => Buffer.compare(v, bytes) === 0), `a mix of ${bytes.length} bytes`);
    }
  });

  test("leaves nothing of a put whose source breaks, ends early or goes on", async (store) => {
    await store.put("kept", pattern(10, 9));
    const bytes = pattern(400_000, 10);
    for (const key of ["kept", "new"]) {
      await rejects("internal", store.put(key, source(bytes, { failAt: 200_000 })));
      await rejects("invalid_input", store.put(key, source(bytes, { size: 400_001 })));
      await rejects("invalid_input", store.put(key, source(bytes, { size: 399_999 })));
    }
    assert.deepEqual(await store.get("kept"), pattern(10, 9));
    assert.deepEqual(await keys(store, ""), ["kept"]);
  });

  test("leaves nothing of an aborted put, also when its source never ends", async (store, factory) => {
    const size = factory.largeSize ?? 20 * 1024 * 1024 + 1;
    const controller = new AbortController();
    const stuck: ObjectSource = {
      size,
      open() {
        let sent = 0;
        return new ReadableStream({
          pull(streamController) {
            if (sent < size / 2) {
              streamController.enqueue(pattern(1 << 20, 11));
              sent += 1 << 20;
              return;
            }
            controller.abort();
            return new Promise<void>(() => {});
          },
        });
      },
    };
    await rejects("cancelled", store.put("stuck", stuck, { signal: controller.signal }));
    assert.equal(await store.head("stuck"), null);
    assert.deepEqual(await keys(store, ""), []);
  });

  test("refuses at once when the signal is aborted already", async (store) => {
    await store.put("here", pattern(5, 12));
    const signal = AbortSignal.abort();
    await rejects("cancelled", store.put("x", pattern(5, 12), { signal }));
    await rejects("cancelled", store.get("here", { signal }));
    await rejects("cancelled", store.head("here", { signal }));
    await rejects("cancelled", store.delete("here", { signal }));
    await rejects("cancelled", Array.fromAsync(store.list("", "", { signal })));
    assert.deepEqual(await keys(store, ""), ["here"]);
  });

  test("lists by prefix, in the order of keys, from any key on", async (store) => {
    const all = ["a", "b-1", "b.1", "b/0", "b/1/x", "b/1/y", "b/10", "b/2", "b_", "c/d/e/f"];
    await Promise.all(all.map((key) => store.put(key, new TextEncoder().encode(key))));
    assert.deepEqual(await keys(store, ""), all);
    assert.deepEqual(await keys(store, "b"), all.slice(1, 9));
    assert.deepEqual(await keys(store, "b/"), all.slice(3, 8));
    assert.deepEqual(await keys(store, "b/1"), ["b/1/x", "b/1/y", "b/10"]);
    assert.deepEqual(await keys(store, "nothing"), []);
    for (const [i, key] of all.entries()) assert.deepEqual(await keys(store, "", key), all.slice(i + 1));
    assert.deepEqual(await keys(store, "b/", "b/1/x"), ["b/1/y", "b/10", "b/2"]);
    assert.deepEqual(await keys(store, "b/", "a"), all.slice(3, 8));
    for await (const info of store.list("c")) assert.deepEqual(info, { key: "c/d/e/f", size: 7 });
  });

  test("lists more objects than fit on one page", async (store, factory) => {
    const all = Array.from({ length: factory.manyObjects ?? 1100 }, (_, i) => `many/${String(i).padStart(5, "0")}`);
    for (let i = 0; i < all.length; i += 50) {
      await Promise.all(all.slice(i, i + 50).map((key) => store.put(key, new Uint8Array(1))));
    }
    assert.deepEqual(await keys(store, "many/"), all);
  });

  test("refuses what is not a key", async (store) => {
    for (
      const key of ["", "/a", "a/", "a//b", "../a", "a/../b", ".a", "a/.b", "A", "a b", "ä", "a\0", "x".repeat(513)]
    ) {
      await rejects("invalid_input", store.put(key, new Uint8Array(1)));
      await rejects("invalid_input", store.get(key));
    }
    await store.put("x".repeat(200), new Uint8Array(1));
  });

  test("proves with its check that it works, and leaves no trace of it", async (store) => {
    await store.check();
    assert.deepEqual(await keys(store, ""), []);
  });

  test("tells its space as bytes, or null", async (store) => {
    const space = await store.space();
    if (space !== null) {
      assert(space.total > 0 && space.free >= 0 && space.free <= space.total, JSON.stringify(space));
    }
  });
}
