/** Tiers that fail, hang, cut off and lie: the log drains in the end, reads find a good copy, the last copy never goes. */
import assert from "node:assert/strict";
import { packKey } from "../../core/store/open_pack.ts";
import { patternBytes } from "../../core/store/testing/bytes.ts";
import type { OpenServerCore } from "../../core/indexed/open_core.ts";
import { hasCode } from "../../core/fs/error.ts";
import { CoreHouse } from "../support/core_house.ts";
import { rejects } from "../support/expect.ts";

const bytes = (seed: number, length = 300_000) => patternBytes(seed, length);
const FAST = {
  readTimeoutMs: 300,
  slowestBytesPerSecond: 5_000_000,
  upload: { flushBytes: 200_000, timeoutMs: 300 },
  healthIntervalMs: 50,
};

async function readsBack(core: OpenServerCore, files: number): Promise<void> {
  for (let i = 0; i < files; i++) assert.deepEqual(await core.fs.read(`/f${i}`), bytes(i), `/f${i}`);
}
async function writeFiles(core: OpenServerCore, files: number): Promise<void> {
  for (let i = 0; i < files; i++) await core.fs.write(`/f${i}`, bytes(i));
}
/** Names of the sealed packs. */
async function packs(core: OpenServerCore): Promise<string[]> {
  return (await core.index.packPage(0, 1000)).flatMap(({ name }) => name ?? []);
}
/** Waits for something that background work brings about. */
async function eventually(what: string, holds: () => Promise<boolean> | boolean): Promise<void> {
  for (let i = 0; i < 1000; i++) {
    if (await holds()) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  assert.fail(`never: ${what}`);
}

Deno.test("the log drains although uploads fail, tear, lose their answers and hang, and every copy is whole", async () => {
  await using house = new CoreHouse({ cold: ["nas", "s3"], ...FAST });
  for (const script of [house.faults.nas, house.faults.s3]) {
    script.add({ operations: ["put"], probability: 0.3, times: 6, kind: { error: "unavailable" } });
    script.add({ operations: ["put"], probability: 0.2, times: 4, kind: { tornWrite: 0.5 } });
    script.add({ operations: ["put"], probability: 0.2, times: 3, kind: { error: "timeout", after: true } });
    script.add({ operations: ["put", "head"], probability: 0.1, times: 2, kind: { hang: true } });
    script.add({ operations: ["head"], probability: 0.2, times: 3, kind: { error: "internal" } });
  }
  const core = await house.open();
  await writeFiles(core, 6);
  await core.tiers.flush({ timeoutMs: 30_000 });
  for (const script of [house.faults.nas, house.faults.s3]) script.clear();
  for (const name of await packs(core)) {
    for (const tier of ["nas", "s3"] as const) {
      assert.ok(await house.stores[tier].head(packKey(name)), `${name} on ${tier}`);
    }
  }
  assert.deepEqual(await core.tiers.scrub({ deep: true }), {
    checked: (await packs(core)).length * 3,
    problems: [],
    repaired: 0,
  });
  await core.tiers.evict({ to: 0 });
  assert.deepEqual(house.hotPacks(), []);
  await readsBack(core, 6);
});

Deno.test("bug 8: an entry of the log stays until the tier has confirmed the object, also across a crash", async () => {
  await using house = new CoreHouse({ cold: ["s3"], ...FAST });
  const off = house.faults.s3.add({ operations: ["put"], kind: { error: "unavailable", after: true } });
  const core = await house.open();
  await writeFiles(core, 3);
  await core.chunks.seal();
  await eventually("an upload was tried", () => house.faults.s3.calls.some((call) => call.operation === "put"));
  await rejects("timeout", core.tiers.flush({ timeoutMs: 100 }));
  assert.ok((await core.index.walCount()).entries > 0);
  const copy = house.snapshot();
  await core.close();
  off();
  const again = await house.open(copy);
  await again.tiers.flush({ timeoutMs: 10_000 });
  assert.equal((await again.index.walCount()).entries, 0);
  await again.tiers.evict({ to: 0 });
  await readsBack(again, 3);
});

Deno.test("a dead tier opens its circuit, is left alone, and gets everything once it answers again", async () => {
  await using house = new CoreHouse({ cold: ["nas", "s3"], ...FAST });
  const off = house.faults.nas.add({ kind: { error: "unavailable" } });
  const core = await house.open();
  await writeFiles(core, 4);
  await core.chunks.seal();
  const nas = async () => (await core.tiers.status()).find(({ name }) => name === "nas");
  await eventually("the circuit opens", async () => (await nas())?.healthy === false);
  assert.match((await nas())?.lastError ?? "", /unavailable/);
  const puts = () =>
    house.faults.nas.calls.filter((call) => call.operation === "put" && call.path.startsWith("packs/")).length;
  const before = puts();
  await readsBack(core, 4);
  await eventually("s3 has everything", async () => {
    for await (const entry of core.tiers.wal()) if (entry.tier === 4) return false;
    return true;
  });
  assert.equal(puts(), before, "uploads to a dead tier");
  off();
  await core.tiers.flush({ timeoutMs: 10_000 });
  assert.equal((await nas())?.healthy, true);
  assert.equal((await core.fs.stat("/f0")).tiers, 7);
});

Deno.test("a tier that hangs holds up neither reads nor the other tier", async () => {
  await using house = new CoreHouse({ cold: ["nas", "s3"], promotions: 0, cacheBytes: 0, ...FAST });
  const core = await house.open();
  await writeFiles(core, 3);
  await core.tiers.flush({ timeoutMs: 10_000 });
  await core.tiers.evict({ to: 0 });
  house.faults.nas.add({ kind: { hang: true } });
  await readsBack(core, 3);
  house.faults.s3.add({ kind: { hang: true } });
  await rejects(["unavailable", "timeout"], core.fs.read("/f0"));
});

Deno.test("a copy with wrong bytes is noticed by the first read, replaced from another tier, and the reader gets the right ones", async () => {
  await using house = new CoreHouse({ cold: ["s3"], cacheBytes: 0, ...FAST });
  const core = await house.open();
  await writeFiles(core, 3);
  await core.tiers.flush({ timeoutMs: 10_000 });
  for (const path of house.hotPacks()) {
    const content = Deno.readFileSync(path);
    for (let at = 1000; at < content.length - 5000; at += 5000) content[at] = (content[at] ?? 0) ^ 1;
    Deno.writeFileSync(path, content);
  }
  await readsBack(core, 3);
  await core.quiet();
  assert.deepEqual((await core.tiers.scrub({ deep: true })).problems, []);
  // The same on the cold tier: the log brings a good copy there.
  const [name = ""] = await packs(core);
  const good = await house.stores.s3.get(packKey(name));
  await house.stores.s3.put(packKey(name), good.map((byte, i) => i === 500 ? byte ^ 1 : byte));
  const found = await core.tiers.scrub({ deep: true, repair: true });
  assert.equal(found.problems.length, 1);
  assert.equal(found.repaired, 1);
  await core.tiers.flush({ timeoutMs: 10_000 });
  assert.deepEqual(await house.stores.s3.get(packKey(name)), good);
  assert.deepEqual((await core.tiers.scrub({ deep: true })).problems, []);
});

Deno.test("flipped bits on the way from a tier never reach a reader", async () => {
  await using house = new CoreHouse({ cold: ["nas", "s3"], promotions: 0, cacheBytes: 0, ...FAST });
  const core = await house.open();
  await writeFiles(core, 3);
  await core.tiers.flush({ timeoutMs: 10_000 });
  await core.tiers.evict({ to: 0 });
  house.faults.nas.add({ operations: ["get"], probability: 0.5, kind: { flipBit: true } });
  for (let round = 0; round < 5; round++) await readsBack(core, 3);
  house.faults.s3.add({ operations: ["get"], kind: { flipBit: true } });
  house.faults.nas.add({ operations: ["get"], kind: { flipBit: true } });
  await rejects(["corrupt", "unavailable"], core.fs.read("/f0"));
});

Deno.test("bug 3: nothing leaves while a colder tier lacks it, whatever the index believes", async () => {
  await using house = new CoreHouse({ cold: ["nas", "s3"], promotions: 0, ...FAST });
  const core = await house.open();
  await writeFiles(core, 4);
  await core.tiers.flush({ timeoutMs: 10_000 });
  const [missing = "", short = ""] = await packs(core);
  await house.stores.s3.delete(packKey(missing));
  await house.stores.nas.put(packKey(short), new Uint8Array(10));
  const [report] = await core.tiers.evict({ to: 0 });
  assert.deepEqual(report?.kept.map(({ reason }) => reason).sort(), ["nas has lost it", "s3 has lost it"]);
  for (const name of [missing, short]) assert.ok(house.hotPacks().some((path) => path.includes(name)));
  await readsBack(core, 4);
  // What was lost is brought there again, and then it may leave.
  await core.tiers.flush({ timeoutMs: 10_000 });
  await core.tiers.evict({ to: 0 });
  assert.deepEqual(house.hotPacks(), []);
  assert.deepEqual((await core.tiers.scrub({ deep: true })).problems, []);
  await readsBack(core, 4);
});

Deno.test("without a colder tier, and while one does not answer, nothing is evicted", async () => {
  await using alone = new CoreHouse(FAST);
  const core = await alone.open();
  await writeFiles(core, 2);
  await core.chunks.seal();
  const [report] = await core.tiers.evict({ to: 0 });
  assert.equal(report?.evicted.length, 0);
  assert.match(report?.kept[0]?.reason ?? "", /no colder tier/);
  await rejects("invalid_input", core.tiers.evict({ tier: "nas" }));

  await using house = new CoreHouse({ cold: ["s3"], ...FAST });
  const second = await house.open();
  await writeFiles(second, 2);
  await second.tiers.flush({ timeoutMs: 10_000 });
  house.faults.s3.add({ operations: ["head"], kind: { error: "unavailable" } });
  const [kept] = await second.tiers.evict({ to: 0 });
  assert.equal(kept?.evicted.length, 0);
  house.faults.s3.clear();
  await eventually("s3 answers again", async () => (await second.tiers.status()).every(({ healthy }) => healthy));
  const [dry] = await second.tiers.evict({ to: 0, dryRun: true });
  assert.ok((dry?.evicted.length ?? 0) > 0);
  assert.ok(house.hotPacks().length > 0, "a dry run changes nothing");
});

Deno.test("above the high watermark the packs that were used longest ago leave, down to the low one", async () => {
  let ahead = 0;
  const { systemClock } = await import("../../core/platform/clock.ts");
  const clock = { ...systemClock, now: () => Date.now() + ahead };
  await using house = new CoreHouse({
    cold: ["s3"],
    ...FAST,
    watermarks: [1_000_000, 700_000],
    eviction: { intervalMs: 20 },
    clock,
    promotions: 0,
    cacheBytes: 0,
  });
  const core = await house.open();
  for (let i = 0; i < 5; i++) {
    await core.fs.write(`/f${i}`, bytes(i));
    ahead += 3600_000;
  }
  await core.tiers.flush({ timeoutMs: 10_000 });
  await eventually("the tier is below its high watermark", async () => (await core.index.bytesOn(1)) <= 1_000_000);
  await core.tiers.evict({});
  assert.ok(await core.index.bytesOn(1) <= 700_000);
  assert.equal((await core.fs.stat("/f0")).tiers, 4, "the oldest has left");
  assert.equal((await core.fs.stat("/f4")).tiers, 5, "the newest has stayed");
  await readsBack(core, 5);
});

Deno.test("a pack that is read from a slow tier comes back to the hot one, once for many readers", async () => {
  await using house = new CoreHouse({ cold: ["s3"], cacheBytes: 0, ...FAST });
  const core = await house.open();
  await writeFiles(core, 3);
  await core.tiers.flush({ timeoutMs: 10_000 });
  await core.tiers.evict({ to: 0 });
  const calls = () => house.faults.s3.calls.filter(({ operation }) => operation === "getStream").length;
  await Promise.all(Array.from({ length: 8 }, () => readsBack(core, 3)));
  await core.quiet();
  assert.equal(calls(), (await packs(core)).length);
  assert.equal((await core.fs.stat("/f0")).tiers, 5);
  house.faults.s3.add({ kind: { error: "unavailable" } });
  await readsBack(core, 3);
});

Deno.test("a promotion that fails or brings wrong bytes leaves the pack where it was", async () => {
  await using house = new CoreHouse({ cold: ["s3"], cacheBytes: 0, ...FAST });
  const core = await house.open();
  await writeFiles(core, 2);
  await core.tiers.flush({ timeoutMs: 10_000 });
  await core.tiers.evict({ to: 0 });
  house.faults.s3.add({ operations: ["getStream"], kind: { error: "unavailable" }, times: 2 });
  await readsBack(core, 2);
  await core.quiet();
  house.faults.s3.add({ operations: ["getStream"], kind: { flipBit: true } });
  await readsBack(core, 2);
  await core.quiet();
  await readsBack(core, 2);
  house.faults.s3.clear();
  await core.quiet();
  await readsBack(core, 2);
});

Deno.test("what is deleted goes from every tier, also from one that was away, and its name can be used again", async () => {
  await using house = new CoreHouse({ cold: ["nas", "s3"], ...FAST, gcGraceMs: 0 });
  const core = await house.open();
  await writeFiles(core, 3);
  await core.tiers.flush({ timeoutMs: 10_000 });
  const off = house.faults.nas.add({ operations: ["delete"], kind: { error: "unavailable" } });
  for (let i = 0; i < 3; i++) await core.fs.removeFile(`/f${i}`);
  await eventually("all packs are dead", async () => {
    await core.collect();
    return (await core.index.packPage(0, 100)).every(({ state }) => state === 2);
  });
  // The same bytes again, while the old packs are still being deleted.
  await writeFiles(core, 3);
  await core.chunks.seal();
  off();
  await core.tiers.flush({ timeoutMs: 10_000 });
  const names = new Set((await packs(core)).map(packKey));
  for (const tier of ["nas", "s3"] as const) {
    for await (const { key } of house.stores[tier].list("packs/")) {
      assert.ok(names.has(key), `${key} is left on ${tier}`);
    }
  }
  assert.deepEqual((await core.tiers.scrub({ deep: true })).problems, []);
  await core.tiers.evict({ to: 0 });
  await readsBack(core, 3);
});

Deno.test("a pack that dies while it is found missing somewhere holds nothing up", async () => {
  await using house = new CoreHouse({ cold: ["nas", "s3"], ...FAST, gcGraceMs: 0 });
  const core = await house.open();
  await writeFiles(core, 1);
  await core.tiers.flush({ timeoutMs: 10_000 });
  const [pack] = await core.index.packPage(0, 10);
  assert.ok(pack);
  // It stays dead as long as a tier can't delete it.
  const off = house.faults.nas.add({ operations: ["delete"], kind: { error: "unavailable" } });
  await core.fs.removeFile("/f0");
  await eventually("the pack is dead", async () => {
    await core.collect();
    return (await core.index.pack(pack.id))?.state === 2;
  });
  // Whoever looked for it before it died says now that it is missing.
  await core.index.lostFrom(pack.id, 4, true);
  await core.fs.write("/after", bytes(7));
  off();
  await core.tiers.flush({ timeoutMs: 10_000 });
  assert.equal((await core.index.walCount()).entries, 0);
  assert.deepEqual(await core.fs.read("/after"), bytes(7));
});

Deno.test("bug 16: collecting garbage all the time takes nothing from writers that reuse what was deleted", async () => {
  await using house = new CoreHouse({ cold: ["s3"], ...FAST, gcGraceMs: 0, workers: 1 });
  const core = await house.open();
  let writing = true;
  const collector = (async () => {
    while (writing) {
      await core.collect();
      await new Promise((resolve) => setTimeout(resolve, 0));
    }
  })();
  await Promise.all(Array.from({ length: 4 }, async (_, w) => {
    for (let i = 0; i < 12; i++) {
      // All writers write and delete the same few contents, small ones and streams.
      const seed = (i + w) % 3;
      const size = seed === 0 ? 30_000 : 400_000;
      await core.fs.write(`/w${w}`, patternBytes(seed, size));
      assert.deepEqual(await core.fs.read(`/w${w}`), patternBytes(seed, size));
      await core.fs.removeFile(`/w${w}`);
    }
    await core.fs.write(`/w${w}`, patternBytes(w, 300_000));
  }));
  writing = false;
  await collector;
  for (let w = 0; w < 4; w++) assert.deepEqual(await core.fs.read(`/w${w}`), patternBytes(w, 300_000));
  await core.tiers.flush({ timeoutMs: 10_000 });
  assert.deepEqual((await core.tiers.scrub({ deep: true })).problems, []);
});

Deno.test("orphans and left-over objects are listed; only what is certainly elsewhere is removed", async () => {
  await using house = new CoreHouse({ cold: ["s3"], ...FAST });
  const core = await house.open();
  await writeFiles(core, 1);
  await core.tiers.flush({ timeoutMs: 10_000 });
  const [path = ""] = house.hotPacks();
  const content = Deno.readFileSync(path);
  await core.tiers.evict({ to: 0 });
  // What a crash between the index and the deletion leaves, and a pack of an unknown tree.
  Deno.writeFileSync(path, content);
  const stranger = packKey("ab".repeat(32));
  await house.stores.s3.put(stranger, new Uint8Array(5));
  const found = await core.tiers.scrub({ repair: true });
  assert.equal(found.problems.length, 2);
  assert.equal(found.repaired, 1);
  assert.ok(await house.stores.s3.head(stranger));
  await readsBack(core, 1);
});

Deno.test("uploads keep to the bandwidth limit", async () => {
  await using house = new CoreHouse({
    cold: ["s3"],
    readTimeoutMs: 300,
    upload: { bytesPerSecond: 1_000_000, timeoutMs: 5000 },
  });
  const core = await house.open();
  await core.fs.write("/f", bytes(1, 800_000));
  const start = performance.now();
  await core.tiers.flush({ timeoutMs: 20_000 });
  assert.ok(performance.now() - start >= 500, "800 kB at 1 MB/s with a quarter of a second's burst");
});

Deno.test("a damaged pack without any other copy is reported, not served and not thrown away", async () => {
  await using house = new CoreHouse({ ...FAST, cacheBytes: 0 });
  const core = await house.open();
  await writeFiles(core, 1);
  await core.chunks.seal();
  const [path = ""] = house.hotPacks();
  const content = Deno.readFileSync(path);
  for (let at = 100; at < content.length - 1000; at += 4000) content[at] = (content[at] ?? 0) ^ 1;
  Deno.writeFileSync(path, content);
  await assert.rejects(core.fs.read("/f0"), (e) => hasCode(e, "corrupt"));
  const { problems, repaired } = await core.tiers.scrub({ deep: true, repair: true });
  assert.ok(problems.length > 0);
  assert.equal(repaired, 0);
  assert.ok(house.hotPacks().includes(path));
});
