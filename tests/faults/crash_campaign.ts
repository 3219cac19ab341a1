/**
 * The crash campaign: kills the server and the mount with SIGKILL at random moments under load, starts them again and
 * compares what is there with what was acknowledged. `deno task crash -- --kills 100 [--seed N] [--loads a,b] [--s3]`;
 * crash_test.ts runs a short one.
 */
import { parseArgs } from "node:util";
import { loadConfig } from "../../core/config/config.ts";
import { openTiers } from "../../cmd/serve_tiers.ts";
import { openServerCore } from "../../core/indexed/open_core.ts";
import { MountHouse } from "../e2e/mount_house.ts";
import { mulberry32 } from "../../backends/faulty/script.ts";
import { type FaultProxy, startFaultProxy } from "../support/fault_proxy.ts";
import { run } from "../support/mount_child.ts";
import { makeBucket, s3Server } from "../support/s3_server.ts";
import { endAtSignal } from "./at_signal.ts";

const LOAD = new URL("./crash_load.py", import.meta.url).pathname;
export const LOADS = ["small", "append", "database", "tree"] as const;

export interface CrashOptions {
  readonly kills: number;
  readonly seed: number;
  readonly loads?: readonly string[];
  /** Also an S3 tier behind a proxy that goes wrong. */
  readonly s3?: boolean;
  readonly say?: (line: string) => void;
  /** Everything is taken down by force after this. */
  readonly lifeMs: number;
}
export interface CrashReport {
  readonly kills: { readonly serve: number; readonly mount: number };
  /** Acknowledged: files closed or removed, lines synced, rows committed, trees copied. */
  readonly acknowledged: {
    readonly files: number;
    readonly lines: number;
    readonly rows: number;
    readonly trees: number;
  };
  readonly problems: readonly string[];
  readonly seconds: number;
}

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** A tree to copy: small and large files, links, attributes, times. */
async function makeSource(folder: string): Promise<void> {
  const script =
    `set -e; mkdir -p "$1/a/b" "$1/c"; for i in $(seq 60); do head -c $((i * 700)) /dev/urandom > "$1/a/f$i"; done
    head -c 3000000 /dev/urandom > "$1/c/large"; ln "$1/c/large" "$1/c/hard"; ln -s ../a/f1 "$1/c/link"; : > "$1/a/b/empty"
    truncate -s 5000000 "$1/c/sparse"; setfattr -n user.note -v hello "$1/a/f2" || true
    chmod 640 "$1/a/f3"; touch -d '2001-02-03 04:05:06.789' "$1/a/f4" "$1/a/b"`;
  const made = await run("bash", ["-c", script, "bash", folder]);
  if (made.code !== 0) throw new Error(made.err);
}

/**
 * The processes of a group: each with what it is, where in the kernel it waits and how often it has done so: two equal
 * lines are a process that has not moved (proc_pid_stat(5), proc_pid_wchan(5), proc_pid_status(5)).
 */
function group(id: number): string[] {
  const found: string[] = [];
  for (const { name } of Deno.readDirSync("/proc")) {
    try {
      const stat = Deno.readTextFileSync(`/proc/${Number.parseInt(name)}/stat`);
      const [, , pgrp] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      if (Number(pgrp) !== id) continue;
      const command = Deno.readTextFileSync(`/proc/${name}/cmdline`).replaceAll("\0", " ").trim();
      const waits = /^voluntary_ctxt_switches:\s*(\d+)/m.exec(Deno.readTextFileSync(`/proc/${name}/status`))?.[1];
      found.push(`${command} (${name}) waits in ${Deno.readTextFileSync(`/proc/${name}/wchan`)}, time ${waits}`);
    } catch {
      // Not a process, or it has ended.
    }
  }
  return found;
}

function kill(pid: number, name: Deno.Signal): void {
  try {
    Deno.kill(pid, name);
  } catch {
    // It has ended.
  }
}

/** A place for work that must be ended before the mount is looked at. */
class Loads {
  #children: Deno.ChildProcess[] = [];

  constructor(readonly folder: string, readonly kinds: readonly string[]) {}

  start(mount: string, seed: number): void {
    this.#children = this.kinds.map((kind) =>
      new Deno.Command("python3", {
        args: [LOAD, kind, mount, `${this.folder}/${kind}.log`, String(seed)],
        stdin: "null",
        stdout: "null",
        stderr: "null",
      }).spawn()
    );
  }
  kill(): void {
    for (const { pid } of this.#children) kill(-pid, "SIGKILL");
  }
  /** Ends them all: kindly, then not. A line for each that waited for an answer of the mount in vain. */
  async stop(): Promise<string[]> {
    const children = this.#children;
    this.#children = [];
    const hanging: string[] = [];
    for (const child of children) kill(child.pid, "SIGTERM");
    const ended = Promise.all(children.map((child) => child.status)).then(() => true);
    const inTime = async (ms: number) => {
      const late = Promise.withResolvers<boolean>();
      const timer = setTimeout(() => late.resolve(false), ms);
      const done = await Promise.race([ended, late.promise]);
      clearTimeout(timer);
      return done;
    };
    if (!await inTime(10_000)) {
      const before = new Set(children.flatMap((child) => group(child.pid)));
      if (!await inTime(5000)) {
        const still = children.flatMap((child) => group(child.pid)).filter((line) => before.has(line));
        hanging.push(...still.filter((line) => / waits in (request_wait|fuse)/.test(line)));
      }
      for (const child of children) kill(-child.pid, "SIGKILL");
      await ended;
    }
    // rsync's own processes may wait for each other when the mount dies under them.
    for (const child of children) kill(-child.pid, "SIGKILL");
    return hanging;
  }
}

export async function crashCampaign(options: CrashOptions): Promise<CrashReport> {
  const { say = () => {} } = options;
  const started = performance.now();
  const next = mulberry32(options.seed);
  const work = await Deno.makeTempDir({ prefix: "anyfs-crash-" });
  let proxy: FaultProxy | null = null;
  const clean: (() => Promise<void>)[] = [];
  let s3Config = "";
  if (options.s3 === true) {
    const s3 = await s3Server();
    if ("skip" in s3) throw new Error(s3.skip);
    const bucket = await makeBucket(s3);
    clean.push(() => bucket.remove());
    proxy = startFaultProxy(s3.endpoint);
    Deno.env.set("AWS_ACCESS_KEY_ID", s3.accessKeyId);
    Deno.env.set("AWS_SECRET_ACCESS_KEY", s3.secretAccessKey);
    s3Config =
      `[tiers.s3]\nbucket = "${bucket.name}"\nendpoint = "http://127.0.0.1:${proxy.port}"\npath_style = true\nregion = "us-east-1"\n`;
  }
  const kills = { serve: 0, mount: 0 };
  const problems: string[] = [];
  const counts = { files: 0, lines: 0, rows: 0, trees: 0 };
  try {
    await makeSource(`${work}/source`);
    const config =
      `[tiers.nas]\nbackend = "local"\npath = "${work}/nas"\n${s3Config}[upload]\nflush_interval_secs = 2\n`;
    await Deno.mkdir(`${work}/nas`);
    await using house = new MountHouse(options.lifeMs, config);
    const loads = new Loads(work, options.loads ?? LOADS);
    using _end = endAtSignal(async () => {
      loads.kill();
      await house[Symbol.asyncDispose]();
      for (const each of clean) await each();
      await Deno.remove(work, { recursive: true });
    });
    await house.serve();
    let dir = await house.mount("a");
    const check = async (what: string, sample: number, mount = dir) => {
      const checker = await new Deno.Command("timeout", {
        args: ["240", "python3", LOAD, "check", mount, work, String(sample), String(Math.floor(next() * 1e9))],
        env: { LC_ALL: "C.UTF-8" },
        stdin: "null",
      }).output();
      const lines = new TextDecoder().decode(checker.stdout).trim().split("\n");
      const summary = lines.pop() ?? "";
      if (!summary.startsWith("checked ")) {
        problems.push(`${what}: the check failed: ${summary} ${new TextDecoder().decode(checker.stderr).slice(-600)}`);
      }
      for (const line of lines) problems.push(`${what}: ${line}`);
      // There is but one who writes.
      problems.push(...house.conflicts.splice(0).map((line) => `${what}: with itself: ${line}`));
      if (problems.length > 0) say(`${problems.join("\n")}\n${house.log.slice(-6000)}`);
      return summary;
    };
    while (kills.serve + kills.mount < options.kills && problems.length === 0) {
      const round = kills.serve + kills.mount;
      loads.start(dir, Math.floor(next() * 1e9));
      await sleep(300 + next() * 1300);
      if (proxy !== null) {
        const kind = next();
        if (kind < 0.25) proxy.refuse();
        else if (kind < 0.4) proxy.hang();
        else if (kind < 0.6) void proxy.cutAfter(Math.floor(next() * 3e6), "to server");
        else proxy.pass();
      }
      const kind = next();
      const what = kind < 0.4 ? "serve" : kind < 0.8 ? "mount" : "both";
      if (what === "serve" || what === "both") {
        await house.killServer();
        kills.serve++;
        if (next() < 0.5) await sleep(next() * 1500);
      }
      if (what === "mount" || what === "both") {
        const before = Deno.env.get("ANYFS_CRASH_KEEP");
        // The loads end before the dead mount is detached: they must not write into the folder below it.
        await house.killMount("a", "SIGKILL", async () => {
          problems.push(...await loads.stop());
          if (before !== undefined) {
            await run("rm", ["-rf", `${before}/killed`]);
            await run("cp", ["-a", `${house.folder}/cache-a`, `${before}/killed`]);
          }
        });
        kills.mount++;
        // Sometimes it comes back before the server does.
        if (what === "both" && next() < 0.3) {
          dir = await house.mount("a");
          await house.serve();
        } else {
          if (what === "both") await house.serve();
          dir = await house.mount("a");
        }
      } else {
        await house.serve();
        await sleep(next() * 600);
        problems.push(...await loads.stop());
      }
      // What is not cached here can be read only with the server.
      const end = Date.now() + 20_000;
      while ((await house.control("a", "status"))["mode"] !== "online" && Date.now() < end) await sleep(50);
      const found = await check(`after kill ${round + 1} (${what})`, 60);
      say(`${kills.serve + kills.mount}/${options.kills} ${what}: ${found}`);
      const keep = Deno.env.get("ANYFS_CRASH_KEEP");
      if (problems.length > 0 && keep !== undefined) {
        await run("cp", ["-a", `${house.folder}/cache-a`, house.stateDir, work, keep]);
        await Deno.writeTextFile(`${keep}/house.log`, house.log);
      }
    }
    proxy?.pass();
    problems.push(...await loads.stop());
    say(`to be delivered: ${JSON.stringify((await house.control("a", "status"))["pending"])}`);
    if (!await house.drain("a", 240_000)) {
      problems.push(`the journal did not drain: ${JSON.stringify(await house.control("a", "status"))}`);
    }
    await check("at the end", 0);
    // A client that has nothing shows what the server has.
    const summary = await check("on a fresh client", 0, await house.mount("fresh"));
    const [, files = 0, lines = 0, rows = 0, trees = 0] = summary.split(" ").map(Number);
    Object.assign(counts, { files, lines, rows, trees });
    if (problems.length > 0) say(house.log.slice(-8000));
    await house.killMount("fresh", "SIGTERM");
    await house.killMount("a", "SIGTERM");
    await house.killServer("SIGTERM");
    problems.push(...await scrub(`${house.folder}/anyfs.toml`, house.stateDir));
  } finally {
    await proxy?.[Symbol.asyncDispose]();
    for (const each of clean) await each();
    await Deno.remove(work, { recursive: true });
  }
  return { kills, acknowledged: counts, problems, seconds: (performance.now() - started) / 1000 };
}

/** What the server's own check says, every byte read, and whether its log runs empty. */
async function scrub(file: string, stateDir: string): Promise<string[]> {
  const config = await loadConfig(file, (name) => name === "ANYFS_STATE_DIR" ? stateDir : Deno.env.get(name), "/");
  const { tiers, close } = await openTiers(config, () => {});
  const problems: string[] = [];
  try {
    await using core = await openServerCore({ stateDir, tiers });
    await core.tiers.flush({ timeoutMs: 60_000 });
    for await (const entry of core.tiers.wal()) problems.push(`the write-ahead log keeps ${JSON.stringify(entry)}`);
    const report = await core.tiers.scrub({ deep: true });
    problems.push(...report.problems.map((problem) => `scrub: ${problem}`));
  } finally {
    await close();
  }
  return problems;
}

if (import.meta.main) {
  const { values } = parseArgs({
    args: Deno.args.filter((arg) => arg !== "--"),
    options: {
      kills: { type: "string", default: "100" },
      seed: { type: "string", default: "1" },
      loads: { type: "string", default: LOADS.join() },
      s3: { type: "boolean", default: false },
    },
  });
  const kills = Number(values.kills);
  const report = await crashCampaign({
    kills,
    seed: Number(values.seed),
    loads: values.loads.split(","),
    s3: values.s3,
    say: console.log,
    lifeMs: 120_000 + kills * 30_000,
  });
  console.log(JSON.stringify(report, null, 2));
  Deno.exit(report.problems.length === 0 ? 0 : 1);
}
