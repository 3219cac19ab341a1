/** What people and programs see: tables, JSON, logs, metrics, progress. */
import assert from "node:assert/strict";
import type { Clock } from "../platform/clock.ts";
import { FsError } from "../fs/error.ts";
import { jsonDocument, jsonLine } from "./json.ts";
import { createLogger } from "./log.ts";
import { Metrics } from "./metrics.ts";
import { startProgress } from "./progress.ts";
import { COLOURS, displayWidth, PLAIN, printable, styleFor } from "./style.ts";
import { renderTable } from "./table.ts";

Deno.test("columns are aligned by what a terminal shows, and lines end without spaces", () => {
  const text = renderTable([{ title: "NAME" }, { title: "SIZE", align: "right" }, { title: "TIER" }], [
    ["a", "10M", "LNC"],
    ["日本", "1.5G", ""],
    ["e\u0301", "5", "L"],
  ]);
  assert.equal(text, "NAME  SIZE  TIER\na      10M  LNC\n日本  1.5G\ne\u0301        5  L\n");
});
Deno.test("colours don't disturb the columns", () => {
  const coloured = renderTable([{ title: "A" }, { title: "B" }], [[COLOURS.red("xx"), "y"]], { style: COLOURS });
  // deno-lint-ignore no-control-regex
  assert.equal(coloured.replace(/\x1b\[\d+m/g, ""), "A   B\nxx  y\n");
});
Deno.test("there is colour only on a terminal that wants it", () => {
  const env = (values: Record<string, string>) => (name: string) => values[name];
  assert.equal(styleFor(true, env({})), COLOURS);
  assert.equal(styleFor(false, env({})), PLAIN);
  assert.equal(styleFor(true, env({ NO_COLOR: "1" })), PLAIN);
  assert.equal(styleFor(true, env({ NO_COLOR: "" })), COLOURS);
  assert.equal(styleFor(true, env({ TERM: "dumb" })), PLAIN);
});
Deno.test("a file name can't reach the terminal's controls", () => {
  assert.equal(printable("a\x1b[31mb\nc\u009b"), "a\\x1b[31mb\\x0ac\\x9b");
  assert.equal(printable("caf\udce9 naïve 日本 🎵"), "caf\\xe9 naïve 日本 🎵");
  assert.equal(displayWidth(COLOURS.bold("日本x")), 5);
});
Deno.test("JSON keeps large numbers exact", () => {
  assert.equal(jsonLine({ a: 5n, b: 2n ** 60n, c: "x" }), '{"a":5,"b":"1152921504606846976","c":"x"}\n');
  assert.equal(jsonDocument({ a: 1 }), '{\n  "a": 1\n}\n');
});

function logged(
  format: "text" | "json",
  level: "debug" | "info",
): { lines: string[]; log: ReturnType<typeof createLogger> } {
  const lines: string[] = [];
  return {
    lines,
    log: createLogger({ format, level, now: () => 1_700_000_000_123, write: (line) => lines.push(line) }),
  };
}
Deno.test("a text log line has time, level, message and fields, on one line", () => {
  const { lines, log } = logged("text", "info");
  log.child({ tier: "s3" }).warn("upload\nfailed", { attempt: 3, error: new FsError("timeout", "too slow") });
  log.debug("not this");
  assert.deepEqual(lines, ['2023-11-14T22:13:20.123Z warn  upload\\x0afailed tier=s3 attempt=3 error="too slow"\n']);
  assert.equal(log.enabled("debug"), false);
});
Deno.test("a JSON log line can be read back, errors and their code too", () => {
  const { lines, log } = logged("json", "debug");
  log.child({ tier: "s3" }).debug("x", {
    error: new FsError("timeout", "slow", { cause: new Error("deep") }),
    big: 5n,
  });
  assert.deepEqual(JSON.parse(lines[0] ?? ""), {
    tier: "s3",
    error: { message: "slow", code: "timeout", cause: "deep" },
    big: "5",
    time: "2023-11-14T22:13:20.123Z",
    level: "debug",
    message: "x",
  });
});

Deno.test("metrics come in Prometheus' text format", () => {
  const metrics = new Metrics();
  const requests = metrics.counter("anyfs_requests_total", "Requests\nanswered.");
  const bytes = metrics.gauge("anyfs_tier_bytes", "Bytes on a tier.");
  const latency = metrics.histogram("anyfs_latency_seconds", "Latency.", [0.1, 1]);
  requests.add(1, { method: "GET", path: 'a"b\\c\n' });
  requests.add(2, { path: 'a"b\\c\n', method: "GET" });
  metrics.beforeExposition(() => bytes.set(42, { tier: "local" }));
  for (const value of [0.05, 0.1, 0.5, 5]) latency.observe(value);
  assert.equal(
    metrics.exposition(),
    `# HELP anyfs_latency_seconds Latency.
# TYPE anyfs_latency_seconds histogram
anyfs_latency_seconds_bucket{le="0.1"} 2
anyfs_latency_seconds_bucket{le="1"} 3
anyfs_latency_seconds_bucket{le="+Inf"} 4
anyfs_latency_seconds_sum 5.65
anyfs_latency_seconds_count 4
# HELP anyfs_requests_total Requests\\nanswered.
# TYPE anyfs_requests_total counter
anyfs_requests_total{method="GET",path="a\\"b\\\\c\\n"} 3
# HELP anyfs_tier_bytes Bytes on a tier.
# TYPE anyfs_tier_bytes gauge
anyfs_tier_bytes{tier="local"} 42
`,
  );
});
Deno.test("a counter never falls, names are ours and used once", () => {
  const metrics = new Metrics();
  const counter = metrics.counter("anyfs_x_total", "X.");
  counter.add(5);
  counter.add(-3);
  assert.match(metrics.exposition(), /anyfs_x_total 5\n/);
  assert.throws(() => metrics.gauge("anyfs_x_total", "again"), /exists already/);
  assert.throws(() => metrics.gauge("other_x", "X."), /no metric name/);
});
Deno.test("labels without end don't take memory without end", () => {
  const metrics = new Metrics();
  const counter = metrics.counter("anyfs_x_total", "X.");
  for (let i = 0; i < 5000; i++) counter.add(1, { path: `/${i}` });
  const lines = metrics.exposition().split("\n").filter((line) => line.startsWith("anyfs_x_total"));
  assert.equal(lines.length, 1001);
  assert.ok(lines.includes('anyfs_x_total{path="other"} 4000'));
});

/** A clock that stands until it is moved. */
function handClock(): Clock & { move(ms: number): void } {
  let now = 0;
  const timers = new Set<{ every: number; next: number; callback: () => void }>();
  return {
    now: () => now,
    monotonic: () => now,
    sleep: () => Promise.resolve(),
    after: () => () => {},
    every(ms, callback) {
      const timer = { every: ms, next: now + ms, callback };
      timers.add(timer);
      return () => timers.delete(timer);
    },
    move(ms) {
      const end = now + ms;
      for (;;) {
        const due = [...timers].filter((timer) => timer.next <= end).sort((a, b) => a.next - b.next)[0];
        if (due === undefined) break;
        now = due.next;
        due.next += due.every;
        due.callback();
      }
      now = end;
    },
  };
}

Deno.test("away from a terminal there is a line every ten seconds, with rate and time left", () => {
  const clock = handClock();
  let out = "";
  const progress = startProgress({ label: "migrate", clock, columns: null, write: (text) => out += text });
  progress.expect({ bytes: 400 * 1024 ** 2, files: 40 });
  progress.add({ bytes: 100 * 1024 ** 2, files: 10 });
  progress.at("/never/shown/here");
  clock.move(9999);
  assert.equal(out, "");
  clock.move(1);
  assert.equal(out, "migrate 100M/400M 25% 10/40 files 10M/s 30s left\n");
  progress.note("skipped /dev/null");
  progress.finish();
  clock.move(60_000);
  assert.equal(out, "migrate 100M/400M 25% 10/40 files 10M/s 30s left\nskipped /dev/null\n");
});
Deno.test("the rate is that of the last ten seconds, not of the whole time", () => {
  const clock = handClock();
  let out = "";
  const progress = startProgress({ label: "get", clock, columns: null, write: (text) => out = text });
  progress.add({ bytes: 1000 * 1024 ** 2 });
  clock.move(10_000);
  clock.move(30_000);
  progress.add({ bytes: 10 * 1024 ** 2 });
  clock.move(10_000);
  assert.equal(out, "get 1010M 1M/s\n");
});
Deno.test("on a terminal one line is redrawn, fits, and goes away at the end", () => {
  const clock = handClock();
  const writes: string[] = [];
  const progress = startProgress({ label: "get", clock, columns: 30, write: (text) => writes.push(text) });
  progress.add({ files: 3 });
  progress.at("/a/very/long/path/that/does/not/fit\x1b[31m");
  clock.move(200);
  progress.note("hello");
  progress.finish();
  const [first = "", ...rest] = writes;
  assert.ok(first.startsWith("\r\x1b[Kget 3 files"));
  assert.ok(displayWidth(first.slice(4)) <= 29);
  assert.deepEqual(rest, ["\r\x1b[K", "hello\n", first, "\r\x1b[K"]);
});
Deno.test("quiet progress prints nothing but notes", () => {
  const clock = handClock();
  let out = "";
  const progress = startProgress({ label: "get", clock, columns: 80, quiet: true, write: (text) => out += text });
  progress.add({ files: 3 });
  clock.move(60_000);
  progress.note("failed: /x");
  progress.finish();
  assert.equal(out, "failed: /x\n");
});
