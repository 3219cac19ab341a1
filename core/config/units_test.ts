/** Sizes, times and rates: what is printed is read back, and what isn't one is refused. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { hasCode } from "../fs/error.ts";
import {
  parseDuration,
  parseRate,
  parseSize,
  printDuration,
  printRate,
  printSize,
  showDuration,
  showSize,
} from "./units.ts";

const size = fc.oneof(
  fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER }),
  fc.tuple(fc.integer({ min: 0, max: 1000 }), fc.integer({ min: 0, max: 4 })).map(([n, power]) => n * 1024 ** power),
);

Deno.test("a printed size is read back as the same bytes", () => {
  fc.assert(fc.property(size, (bytes) => parseSize(printSize(bytes)) === bytes));
});
Deno.test("a printed time is read back as the same milliseconds", () => {
  fc.assert(fc.property(fc.integer({ min: 0, max: 4e12 }), (ms) => parseDuration(printDuration(ms)) === ms));
});
Deno.test("a printed rate is read back as the same rate", () => {
  fc.assert(fc.property(fc.option(size), (rate) => parseRate(printRate(rate)) === (rate === 0 ? null : rate)));
});
Deno.test("a size shown to people is within a twentieth of it, in at most six characters", () => {
  fc.assert(fc.property(fc.integer({ min: 0, max: 7 * 1024 ** 5 }), (bytes) => {
    const shown = showSize(bytes);
    return shown.length <= 6 && Math.abs(parseSize(shown) - bytes) <= bytes / 20 + 1;
  }));
});

Deno.test("sizes mean what their spelling says", () => {
  const cases: [string, number][] = [
    ["0", 0],
    ["4096", 4096],
    ["12B", 12],
    ["10M", 10 * 1024 ** 2],
    ["10m", 10 * 1024 ** 2],
    ["1.5G", 1.5 * 1024 ** 3],
    ["200GiB", 200 * 1024 ** 3],
    ["200GB", 200e9],
    ["64 KB", 64000],
    ["2T", 2 * 1024 ** 4],
    ["8191T", 8191 * 1024 ** 4],
    ["1.0001K", 1024],
  ];
  for (const [text, bytes] of cases) assert.equal(parseSize(text), bytes, text);
});
Deno.test("times mean what their spelling says", () => {
  const cases: [string, number][] = [
    ["0", 0],
    ["250ms", 250],
    ["30s", 30_000],
    ["5m", 300_000],
    ["1h30m", 5_400_000],
    ["1.5h", 5_400_000],
    ["7d", 604_800_000],
    ["2w", 1_209_600_000],
    ["1y", 31_536_000_000],
  ];
  for (const [text, ms] of cases) assert.equal(parseDuration(text), ms, text);
  assert.equal(printDuration(90_000), "1m30s");
  assert.equal(showDuration(192_345), "3m12s");
  assert.equal(showDuration(187_200_000), "2d4h");
  assert.equal(showDuration(449.6), "450ms");
});
Deno.test("what is no size, time or rate is wrong input, with an example", () => {
  for (const text of ["", "x", "-1", "1.5.2M", "10MM", "10 MiBs", "1e3", "NaN", "9P", "M", ".5G", "0x10"]) {
    assert.throws(() => parseSize(text), (error) => hasCode(error, "invalid_input") && /M|P/.test(`${error}`), text);
  }
  for (const text of ["", "30", "s", "5 m x", "-5m", "1h 30m!", "99999999999y"]) {
    assert.throws(() => parseDuration(text), (error) => hasCode(error, "invalid_input"), text);
  }
  for (const text of ["", "fast", "10M/h", "-1M"]) {
    assert.throws(() => parseRate(text), (error) => hasCode(error, "invalid_input"), text);
  }
  assert.equal(parseRate("off"), null);
  assert.equal(parseRate("10M/s"), 10 * 1024 ** 2);
});
