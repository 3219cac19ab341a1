/**
 * The soak: mixed load of several processes on two real mounts, with brief cuts of the connection, while memory,
 * descriptors, threads and tables of the server and the mounts are sampled. It fails when one of them keeps growing, when
 * the kernel's forgetting shrinks nothing, or when a program saw what it must not see.
 * `deno task soak -- --minutes N [--seed S] [--pace P] [--out FILE]`; FILE.csv and FILE.svg are written, also on the way.
 */
import { parseArgs } from "node:util";
import { MountHouse } from "../e2e/mount_house.ts";
import { runFor } from "./fault_house.ts";
import { startFaultProxy } from "../support/fault_proxy.ts";
import { endAtSignal } from "./at_signal.ts";
import { type Panel, plot, type Series } from "./svg_plot.ts";

const LOAD = new URL("./soak_load.py", import.meta.url).pathname;
const SAMPLE_MS = 5000;
/** Kind, mount, share of the steps a second. */
const LOADS: readonly (readonly [string, string, number])[] = [
  ["files", "a", 0.45],
  ["trees", "a", 0.02],
  ["unlinked", "a", 0.2],
  ["names", "a", 0.13],
  ["other", "b", 0.2],
];
const WHO = ["serve", "a", "b"] as const;
type Who = typeof WHO[number];

/** A column and how far it may grow from its second to its last quarter: by this part and this much. */
interface Column {
  readonly key: string;
  readonly part: number;
  readonly much: number;
  readonly read: (sample: Sample) => number | null;
}
/**
 * Threads of the runtime's pool for calls that wait for the disk: as many as were ever needed at once (32 programs that close
 * a large file), as each stays while there is work for it every ten seconds. The runtime makes no more than these.
 */
const POOL_THREADS = 32;
const POOL_NAME = "tokio-runtime-w";
interface Sample {
  readonly seconds: number;
  readonly values: Readonly<Record<string, number>>;
}
const column = (key: string, part: number, much: number): Column => ({
  key,
  part,
  much,
  read: (sample) => sample.values[key] ?? null,
});
const COLUMNS: readonly Column[] = [
  ...WHO.flatMap((who) => [
    column(`${who}.private_mib`, 0.15, 10),
    column(`${who}.descriptors`, 0, 6),
    column(`${who}.other_threads`, 0, 2),
  ]),
  ...["a", "b"].flatMap((who) => [
    column(`${who}.inodes`, 0.25, 300),
    column(`${who}.inode_table_kib`, 0.25, 64),
    column(`${who}.held`, 0.25, 300),
  ]),
];

async function processValues(who: Who, pid: number): Promise<Record<string, number>> {
  const rollup = await Deno.readTextFile(`/proc/${pid}/smaps_rollup`);
  const kib = (key: string) => Number(new RegExp(`^${key}:\\s+(\\d+) kB`, "m").exec(rollup)?.[1] ?? 0);
  let descriptors = 0;
  for await (const _ of Deno.readDir(`/proc/${pid}/fd`)) descriptors++;
  const threads = await threadNames(pid);
  const pool = threads.filter((name) => name === POOL_NAME).length;
  return {
    [`${who}.private_mib`]: (kib("Private_Dirty") + kib("Private_Clean")) / 1024,
    [`${who}.pss_mib`]: kib("Pss") / 1024,
    [`${who}.rss_mib`]: kib("Rss") / 1024,
    [`${who}.descriptors`]: descriptors,
    [`${who}.threads`]: threads.length,
    [`${who}.pool_threads`]: pool,
    [`${who}.other_threads`]: threads.length - pool,
  };
}
async function threadNames(pid: number): Promise<string[]> {
  const names: string[] = [];
  for await (const { name } of Deno.readDir(`/proc/${pid}/task`)) {
    // One that has ended meanwhile is none.
    const comm = await Deno.readTextFile(`/proc/${pid}/task/${name}/comm`).catch(() => null);
    if (comm !== null) names.push(comm.trim());
  }
  return names;
}
interface MountStats {
  readonly fuse: { readonly inodes: number; readonly inodeTableBytes: number; readonly inFlight: number };
  readonly held: Record<string, number>;
  readonly pending: { readonly records: number };
}
async function mountValues(house: MountHouse, name: string): Promise<Record<string, number>> {
  const { fuse, held, pending } = await house.control(name, "stats") as unknown as MountStats;
  return {
    [`${name}.inodes`]: fuse.inodes,
    [`${name}.inode_table_kib`]: fuse.inodeTableBytes / 1024,
    [`${name}.in_flight`]: fuse.inFlight,
    [`${name}.held`]: Object.values(held).reduce((sum, n) => sum + n, 0),
    [`${name}.undelivered`]: pending.records,
  };
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? 0;
}
/** What grew: medians of the second and the last quarter compared; and pools that have more threads than there can be. */
function growth(samples: readonly Sample[]): string[] {
  const pools = WHO.flatMap((who) => {
    const most = samples.reduce((most, { values }) => Math.max(most, values[`${who}.pool_threads`] ?? 0), 0);
    return most <= POOL_THREADS ? [] : [`${who} has ${most} threads in the runtime's pool`];
  });
  // A short run still fills caches of a fixed size: a mount keeps 64 large contents open.
  const warming = (samples.at(-1)?.seconds ?? 0) < 1200 ? 70 : 0;
  const quarter = (n: number) =>
    samples.slice(Math.floor(samples.length * n / 4), Math.floor(samples.length * (n + 1) / 4));
  const grown = COLUMNS.flatMap(({ key, part, much, read }) => {
    const of = (n: number) => median(quarter(n).flatMap((sample) => read(sample) ?? []));
    const [second, last] = [of(1), of(3)];
    const room = much + (key.endsWith(".descriptors") ? warming : 0);
    return last <= second * (1 + part) + room
      ? []
      : [`${key} grows: ${second.toFixed(1)} in the second quarter, ${last.toFixed(1)} in the last`];
  });
  return [...pools, ...grown];
}

function csv(samples: readonly Sample[]): string {
  const keys = [...new Set(samples.flatMap(({ values }) => Object.keys(values)))];
  const rows = samples.map(({ seconds, values }) =>
    [seconds, ...keys.map((key) => values[key] ?? "")].map((v) => typeof v === "number" ? +v.toFixed(2) : v).join(",")
  );
  return [["seconds", ...keys].join(","), ...rows].join("\n") + "\n";
}
function picture(samples: readonly Sample[], cuts: readonly number[], title: string): string {
  const series = (key: string, name: string): Series => ({
    name,
    points: samples.flatMap(({ seconds, values }) => {
      const value = values[key];
      return value === undefined ? [] : [[seconds, value] as const];
    }),
  });
  const each = (title: string, what: string, who: readonly string[]): Panel => ({
    title,
    series: who.map((one) => series(`${one}.${what}`, one === "serve" ? "serve" : `mount ${one}`)),
  });
  return plot(title, [
    each("private memory, MiB", "private_mib", WHO),
    each("open descriptors", "descriptors", WHO),
    each("threads", "threads", WHO),
    each("inodes the kernel holds", "inodes", ["a", "b"]),
    each("entries of the mounts' other tables", "held", ["a", "b"]),
    each("changes not delivered yet", "undelivered", ["a", "b"]),
  ], cuts);
}

export interface SoakReport {
  readonly problems: readonly string[];
  readonly samples: number;
  readonly requests: number;
}

/**
 * Starts the threads that a process starts when they are first needed, at any time of the hour otherwise, each with some
 * 7 descriptors and 14 MiB: two that cut and hash when large files come at several places at once, and the server's for its
 * index after 20,000 changes of it.
 */
async function startWorkers(house: MountHouse, dirs: readonly string[], say: (message: string) => void): Promise<void> {
  const source = `${house.folder}/large`;
  for (let i = 0; i < 3; i++) {
    await runFor(60_000, "bash", ["-c", 'head -c 64M /dev/urandom > "$1"', "bash", source]);
    const puts = Array.from({ length: 4 }, (_, n) => house.cli("put", source, `/large ${n}`));
    const copies = dirs.map((dir, n) =>
      runFor(60_000, "bash", [
        "-c",
        'for i in 1 2 3 4; do cp "$1" "$2/from $3 $i" & done; wait',
        "bash",
        source,
        dir,
        `${n}`,
      ])
    );
    await Promise.all([...puts, ...copies]);
    await Promise.all(["a", "b"].map((name) => house.drain(name, 60_000)));
    await runFor(60_000, "bash", ["-c", 'rm "$1"/large* "$1"/from*', "bash", dirs[0] ?? ""]);
  }
  await Deno.remove(source);
  const many = `import os, sys
os.chdir(sys.argv[1])
for i in range(6000): os.mkdir(f"many {i}")
for i in range(6000): os.rmdir(f"many {i}")`;
  await runFor(120_000, "python3", ["-c", many, dirs[1] ?? ""]);
  await house.drain("b", 60_000);
  const names = await Promise.all([house.serverPid, house.mountPid("a"), house.mountPid("b")].map(threadNames));
  say(`workers: ${names.map((all) => all.filter((name) => name.startsWith("worker-")).length).join(", ")}`);
}

/** @param pace steps a second of all loads together */
export async function soak(
  o: { minutes: number; seed: number; pace: number; out: string; say: (line: string) => void },
): Promise<SoakReport> {
  const problems: string[] = [];
  // At once: an hour is long.
  const found = (...lines: string[]) => {
    for (const line of lines) o.say(`PROBLEM ${line}`);
    problems.push(...lines);
  };
  const samples: Sample[] = [];
  const cuts: number[] = [];
  const lifeMs = o.minutes * 60_000;
  await using house = new MountHouse(lifeMs + 400_000, `[mount]\nrequest_timeout = "5s"\nread_timeout = "10s"\n`);
  await house.serve();
  await using proxy = startFaultProxy(house.url);
  const direct = house.url;
  house.url = `http://127.0.0.1:${proxy.port}`;
  const dirs: Record<string, string> = { a: await house.mount("a") };
  house.url = direct;
  dirs["b"] = await house.mount("b");
  await startWorkers(house, Object.values(dirs), o.say);
  const pids: Record<Who, () => number> = {
    serve: () => house.serverPid,
    a: () => house.mountPid("a"),
    b: () => house.mountPid("b"),
  };
  const children = LOADS.map(([kind, mount, share], i) => {
    const child = new Deno.Command("python3", {
      args: [LOAD, kind, dirs[mount] ?? "", String(o.pace * share), String(o.seed + i)],
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    const take = async (stream: ReadableStream<Uint8Array<ArrayBuffer>>) => {
      for await (const text of stream.pipeThrough(new TextDecoderStream())) {
        if (problems.length < 50) found(...text.split("\n").filter((line) => line !== ""));
      }
    };
    return { child, kind, reading: Promise.all([take(child.stdout), take(child.stderr)]) };
  });
  const kill = () => {
    for (const { child } of children) {
      try {
        child.kill("SIGKILL");
      } catch {
        // It has ended.
      }
    }
  };
  using _end = endAtSignal(async () => {
    kill();
    await house[Symbol.asyncDispose]();
  });
  const began = performance.now();
  const seconds = () => (performance.now() - began) / 1000;
  const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
  const write = async () => {
    const title = `AnyFS soak: ${(seconds() / 60).toFixed(0)} minutes, ${o.pace} steps a second, seed ${o.seed}`;
    await Deno.writeTextFile(`${o.out}.csv`, csv(samples));
    await Deno.writeTextFile(`${o.out}.svg`, picture(samples, cuts, title));
  };
  /** The kernel lets go of what nobody uses: our table must shrink with it. */
  const forget = async () => {
    const inodes = async () => ((await house.control("a", "stats")) as unknown as MountStats).fuse.inodes;
    const before = await inodes();
    await Deno.writeTextFile("/proc/sys/vm/drop_caches", "2");
    let after = before;
    for (let i = 0; i < 20 && after > before * 0.7; i++) {
      await sleep(250);
      after = Math.min(after, await inodes());
    }
    o.say(`after drop_caches: ${before} inodes, then ${after}`);
    if (before > 200 && after > before * 0.7) found(`drop_caches leaves ${after} of ${before} inodes`);
  };
  let nextCut = 30;
  let cutEnd = Infinity;
  let nextForget = Math.max(20, o.minutes * 60 / 8);
  let requests = 0;
  try {
    for (let at = 0; seconds() < o.minutes * 60; at++) {
      const values: Record<string, number> = {};
      for (const who of WHO) Object.assign(values, await processValues(who, pids[who]()));
      for (const name of ["a", "b"]) Object.assign(values, await mountValues(house, name));
      samples.push({ seconds: +seconds().toFixed(1), values });
      if (at % 12 === 0) {
        await write();
        o.say(
          `${(seconds() / 60).toFixed(1)} min: ${
            WHO.map((who) =>
              `${who} ${values[`${who}.private_mib`]?.toFixed(0)} MiB ${values[`${who}.descriptors`]} fd`
            ).join(", ")
          }, ${values["a.inodes"]} inodes, ${problems.length} problems`,
        );
      }
      if (seconds() > cutEnd) {
        proxy.pass();
        cutEnd = Infinity;
        nextCut = seconds() + 40;
      } else if (seconds() > nextCut && cutEnd === Infinity) {
        // A cable pulled, or a server gone: in turn.
        if (cuts.length % 2 === 0) proxy.refuse();
        else proxy.hang();
        cuts.push(Math.round(seconds()));
        cutEnd = seconds() + 3;
      }
      if (seconds() > nextForget) {
        await forget();
        nextForget += Math.max(30, o.minutes * 60 / 4);
      }
      await sleep(Math.max(0, (at + 1) * SAMPLE_MS - seconds() * 1000));
    }
    proxy.pass();
    for (const { child, kind, reading } of children) {
      child.kill("SIGTERM");
      const late = setTimeout(() => {
        found(`${kind} did not end`);
        child.kill("SIGKILL");
      }, 20_000);
      const { code } = await child.status;
      clearTimeout(late);
      await reading;
      if (code !== 0) found(`${kind} ended with ${code}`);
    }
    for (const name of ["a", "b"]) {
      let done = false;
      for (let i = 0; i < 20 && !done; i++) done = await house.drain(name, 2000).catch(() => false);
      if (!done) found(`mount ${name} did not deliver everything`);
    }
    const { fuse } = await house.control("a", "stats") as unknown as { fuse: { requests: Record<string, number> } };
    requests = Object.values(fuse.requests).reduce((sum, n) => sum + n, 0);
    o.say(`requests of mount a: ${JSON.stringify(fuse.requests)}`);
  } catch (error) {
    found(error instanceof Error ? error.stack ?? error.message : String(error));
    found(house.log.slice(-3000));
    kill();
  }
  await write();
  found(...growth(samples));
  return { problems, samples: samples.length, requests };
}

if (import.meta.main) {
  const { values } = parseArgs({
    args: Deno.args.filter((arg) => arg !== "--"),
    options: {
      minutes: { type: "string", default: "60" },
      seed: { type: "string", default: "1" },
      pace: { type: "string", default: "20" },
      out: { type: "string", default: "docs/soak" },
    },
  });
  const say = (line: string) => console.log(`soak: ${line}`);
  const minutes = Number(values.minutes);
  const pace = Number(values.pace);
  if (!(minutes > 0) || !(pace > 0)) {
    console.error("soak: --minutes and --pace are numbers above 0");
    Deno.exit(2);
  }
  const report = await soak({ minutes, seed: Number(values.seed), pace, out: values.out, say });
  say(`${report.samples} samples, ${report.requests} requests of mount a; ${values.out}.csv, ${values.out}.svg`);
  Deno.exit(report.problems.length > 0 ? 1 : 0);
}
