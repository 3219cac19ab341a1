/** The journal: what was appended is read back after a crash, whole records only, in order, once. */
import assert from "node:assert/strict";
import fc from "fast-check";
import type { Op } from "../index/ops.ts";
import { systemRandom } from "../platform/random.ts";
import { Journal, type JournalRecord } from "./journal.ts";

const time = { sec: 1, nsec: 2 };
const op = (name: string): Op => ({ t: "unlink", parent: 1, name, ino: 7, time });
const record = (request: number, name: string): JournalRecord => ({ request, ops: [op(name)], data: null });
const newest = (folder: string): string => {
  const names = [...Deno.readDirSync(folder)].map((entry) => entry.name).sort();
  return `${folder}/${names.at(-1)}`;
};

Deno.test("records come back in order, with names that are not Unicode and with their bytes", async () => {
  const folder = Deno.makeTempDirSync();
  const { journal } = await Journal.open(folder, systemRandom);
  journal.append(record(1, "a\nb"), []);
  const place = journal.append({
    request: 2,
    ops: [op("caf\udce9")],
    data: { ino: 5, size: 4, floor: 0, ranges: [0, 4], staging: null, base: null, baseSize: 0, time },
  }, [Uint8Array.of(1, 2), Uint8Array.of(3, 4)]);
  await journal.sync();
  await journal.close();
  const again = await Journal.open(folder, systemRandom);
  assert.deepEqual(again.records.map(({ record }) => record.request), [1, 2]);
  assert.deepEqual(again.records[0]?.record.ops, [op("a\nb")]);
  assert.deepEqual(again.records[1]?.record.ops, [op("caf\udce9")]);
  const found = again.records[1]?.place;
  assert.equal(found?.dataOffset, place.dataOffset);
  const bytes = new Uint8Array(4);
  const file = Deno.openSync(found.file.path);
  file.seekSync(found.dataOffset, Deno.SeekMode.Start);
  file.readSync(bytes);
  file.close();
  assert.deepEqual(bytes, Uint8Array.of(1, 2, 3, 4));
  await again.journal.close();
  Deno.removeSync(folder, { recursive: true });
});

Deno.test("what the disk lost in the middle is told, and the file kept; what was torn at the end is not", async () => {
  for (const middle of [true, false]) {
    const folder = Deno.makeTempDirSync();
    const { journal } = await Journal.open(folder, systemRandom);
    const places = [1, 2, 3].map((n) => journal.append(record(n, `${n}`), [new Uint8Array(3_000_000)]));
    await journal.close();
    const path = newest(folder);
    const file = Deno.openSync(path, { write: true });
    file.seekSync(places[middle ? 1 : 2]?.dataOffset ?? 0, Deno.SeekMode.Start);
    file.writeSync(Uint8Array.of(7));
    file.close();
    const opened = await Journal.open(folder, systemRandom);
    assert.equal(opened.records.length, middle ? 1 : 2);
    assert.equal(opened.damage.length, middle ? 1 : 0);
    if (middle) {
      assert.match(opened.damage[0] ?? "", /is damaged at byte \d+/);
      const kept = Deno.readFileSync(`${path}.damaged`);
      assert.equal(new TextDecoder().decode(kept.subarray(0, 8)), "AFSJRNL1");
    }
    await opened.journal.close();
    Deno.removeSync(folder, { recursive: true });
  }
});

Deno.test("a journal cut or damaged anywhere gives back a prefix of its records, never a wrong one", async () => {
  const folder = Deno.makeTempDirSync();
  const { journal } = await Journal.open(folder, systemRandom);
  const names = ["one", "two", "three", "four", "five"];
  const ends = names.map((name, i) => {
    journal.append(record(i + 1, name), [new Uint8Array(i * 10)]);
    return name;
  });
  await journal.close();
  const whole = Deno.readFileSync(newest(folder));
  const used = whole.findLastIndex((byte) => byte !== 0) + 1;
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 4096, max: used - 1 }),
      fc.integer({ min: 1, max: 255 }),
      fc.boolean(),
      async (at, flip, cut) => {
        const other = Deno.makeTempDirSync();
        const bytes = cut ? whole.slice(0, at) : whole.slice();
        if (!cut) bytes[at] = (bytes[at] ?? 0) ^ flip;
        Deno.writeFileSync(`${other}/journal-000001`, bytes);
        const opened = await Journal.open(other, systemRandom);
        opened.records.forEach(({ record }, i) => assert.deepEqual(record.ops, [op(ends[i] ?? "")]));
        if (!cut) assert.ok(opened.records.length < names.length || bytes[at] === whole[at] || isPadding(whole, at));
        await opened.journal.close();
        Deno.removeSync(other, { recursive: true });
      },
    ),
    { numRuns: 150 },
  );
  Deno.removeSync(folder, { recursive: true });
});
/** A byte that no record's CRC covers: the fill up to the next border of 8 (always zero here). */
function isPadding(whole: Uint8Array, at: number): boolean {
  return whole[at] === 0;
}

Deno.test("acknowledged records are not read again, and request numbers never start over", async () => {
  const folder = Deno.makeTempDirSync();
  const { journal } = await Journal.open(folder, systemRandom);
  const places = [1, 2, 3].map((n) => journal.append(record(n, `f${n}`), []));
  journal.acknowledge(2);
  for (const place of places.slice(0, 2)) journal.release(place.file);
  await journal.close();
  const second = await Journal.open(folder, systemRandom);
  assert.deepEqual(second.records.map(({ record }) => record.request), [3]);
  assert.equal(second.journal.lastRequest, 3);
  second.journal.acknowledge(3);
  for (const { place } of second.records) second.journal.release(place.file);
  await second.journal.close();
  const third = await Journal.open(folder, systemRandom);
  assert.equal(third.records.length, 0);
  assert.equal(third.journal.lastRequest, 3);
  await third.journal.close();
  Deno.removeSync(folder, { recursive: true });
});

Deno.test("a replacement takes the place of all earlier records at once", async () => {
  const folder = Deno.makeTempDirSync();
  const { journal } = await Journal.open(folder, systemRandom);
  const first = journal.append(record(1, "old"), []);
  const second = journal.append(record(2, "also old"), []);
  journal.replaceAll(5, [{ record: record(3, "new"), place: first }, { record: record(4, "also old"), place: second }]);
  journal.append(record(6, "later"), []);
  await journal.close();
  const again = await Journal.open(folder, systemRandom);
  assert.deepEqual(again.records.map(({ record }) => [record.request, record.ops]), [
    [3, [op("new")]],
    [4, [op("also old")]],
    [6, [op("later")]],
  ]);
  await again.journal.close();
  Deno.removeSync(folder, { recursive: true });
});

Deno.test("a replacement that names a file whose records were all delivered is read without it", async () => {
  const folder = Deno.makeTempDirSync();
  const { journal } = await Journal.open(folder, systemRandom);
  const first = journal.append(record(1, "delivered later"), []);
  const old = newest(folder);
  await journal.close();
  const second = await Journal.open(folder, systemRandom);
  const place = second.journal.append(record(2, "still there"), []);
  second.journal.replaceAll(5, [
    { record: record(3, "delivered later"), place: { file: { ...first.file }, dataOffset: first.dataOffset } },
    { record: record(4, "still there"), place },
  ]);
  second.journal.acknowledge(3, []);
  await second.journal.close();
  Deno.removeSync(old);
  const third = await Journal.open(folder, systemRandom);
  assert.deepEqual(third.records.map(({ record }) => record.request), [4]);
  await third.journal.close();
  Deno.removeSync(folder, { recursive: true });
});
