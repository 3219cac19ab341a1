/**
 * The campaign "alike": three mounts change the same folders at once, while the server is killed, a mount is frozen, far away
 * or cut off, and then all of them must come to show the same, down to the nanosecond, and the same as a mount that has nothing
 * cached. What a mount goes on showing as it was before is found here and nowhere else.
 * `deno task alike -- --minutes 10 [--seed N]`
 */
import { parseArgs } from "node:util";
import { MountHouse } from "../e2e/mount_house.ts";
import { mulberry32 } from "../../backends/faulty/script.ts";
import { startFaultProxy } from "../support/fault_proxy.ts";
import { run } from "../support/mount_child.ts";
import { endAtSignal } from "./at_signal.ts";

const LOAD = new URL("./alike_load.py", import.meta.url).pathname;
const MOUNTS = ["a", "b", "c"] as const;
const FAULTS = ["none", "none", "slow", "slow", "server", "frozen", "cut", "silent", "mount"] as const;
/** So long they may need to become alike, milliseconds. */
const ALIKE_MS = 30_000;
/** So long it may take, on a busy machine, to look at all files of a round and those before it, milliseconds: no open waits in vain. */
const LOOK_MS = 8000;
/** Every so many rounds a mount without a cache is asked too, and the folders are removed. */
const FRESH = 5;

type Seen = Record<string, unknown>;

export interface AlikeReport {
  readonly rounds: number;
  /** Names compared, on each mount. */
  readonly names: number;
  readonly faults: Readonly<Record<string, number>>;
  /** The longest it took until all were alike, milliseconds. */
  readonly slowestMs: number;
  readonly problems: readonly string[];
}

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** Paths that are not the same everywhere, with what each sees; a look that fails is a difference. */
function differences(looks: readonly (Seen | string)[]): string[] {
  const failed = looks.filter((look) => typeof look === "string");
  if (failed.length > 0) return failed;
  const seen = looks as readonly Seen[];
  const paths = [...new Set(seen.flatMap((look) => Object.keys(look)))].sort();
  return paths.flatMap((path) => {
    const each = seen.map((look) => JSON.stringify(look[path]) ?? "nothing");
    return new Set(each).size === 1 ? [] : [`${path}\n    ${each.join("\n    ")}`];
  });
}

export async function alikeCampaign(
  o: { minutes: number; seed: number; say: (line: string) => void },
): Promise<AlikeReport> {
  const random = mulberry32(o.seed);
  const below = (n: number) => Math.floor(random() * n);
  const problems: string[] = [];
  const faults: Record<string, number> = {};
  let rounds = 0;
  let names = 0;
  let slowestMs = 0;
  const end = Date.now() + o.minutes * 60_000;
  await using house = new MountHouse(o.minutes * 60_000 + 300_000);
  using _end = endAtSignal(() => house[Symbol.asyncDispose]());
  await house.serve();
  const direct = house.url;
  await using proxy = startFaultProxy(direct);
  const dirs: string[] = [];
  for (const name of MOUNTS) {
    house.url = name === "c" ? `http://127.0.0.1:${proxy.port}` : direct;
    dirs.push(await house.mount(name));
  }
  house.url = direct;

  const look = async (dir: string): Promise<Seen | string> => {
    const began = performance.now();
    const ran = await run("python3", [LOAD, "look", dir], {}, 60_000);
    const took = performance.now() - began;
    if (took > LOOK_MS) {
      problems.push(`round ${rounds}: a look at ${dir} took ${took.toFixed(0)} ms`);
      o.say(`PROBLEM ${problems.at(-1)}`);
    }
    return ran.code === 0 ? JSON.parse(ran.out) as Seen : `${dir}: ${ran.err.trim().split("\n").at(-1)}`;
  };
  /** Null: they are alike; else how they differ in the end. */
  const becomeAlike = async (all: readonly string[]): Promise<string[] | null> => {
    const began = performance.now();
    for (;;) {
      const looks: (Seen | string)[] = [];
      for (const dir of all) looks.push(await look(dir));
      const different = differences(looks);
      const took = performance.now() - began;
      if (different.length === 0) {
        slowestMs = Math.max(slowestMs, took);
        const [first] = looks;
        names += typeof first === "object" ? Object.keys(first).length : 0;
        return null;
      }
      if (took > ALIKE_MS) return different;
      await sleep(200);
    }
  };
  const fault = async (): Promise<void> => {
    const kind = FAULTS[below(FAULTS.length)] ?? "none";
    faults[kind] = (faults[kind] ?? 0) + 1;
    await sleep(100 + below(400));
    if (kind === "server") {
      await house.killServer();
      await sleep(below(1000));
      await house.serve();
    } else if (kind === "frozen") {
      const pid = house.mountPid(MOUNTS[below(MOUNTS.length)] ?? "a");
      Deno.kill(pid, "SIGSTOP");
      await sleep(below(1500));
      Deno.kill(pid, "SIGCONT");
    } else if (kind === "cut" || kind === "silent" || kind === "slow") {
      if (kind === "cut") proxy.refuse();
      else if (kind === "silent") proxy.hang();
      else proxy.delay(5 + below(100));
      await sleep(below(kind === "slow" ? 4000 : 1500));
      proxy.pass();
    } else if (kind === "mount") {
      const name = MOUNTS[below(2)] ?? "a";
      await house.killMount(name);
      await house.mount(name);
    }
  };

  while (Date.now() < end) {
    rounds++;
    const folders = Array.from({ length: 1 + below(3) }, (_, i) => `r${rounds}_${i}`);
    for (const folder of folders) await Deno.mkdir(`${dirs[below(dirs.length)]}/${folder}`);
    const there = performance.now();
    for (const dir of dirs) {
      for (const folder of folders) {
        while (!await Deno.stat(`${dir}/${folder}`).then(() => true, () => false)) {
          if (performance.now() - there > ALIKE_MS) {
            problems.push(`round ${rounds}: ${dir} does not see ${folder}`);
            o.say(`PROBLEM ${problems.at(-1)}`);
            break;
          }
          await sleep(10);
        }
      }
    }
    const seconds = ["0.5", "1", "2", "3"][below(4)] ?? "1";
    const works = MOUNTS.flatMap((name, i) =>
      Array.from({ length: 1 + below(2) }, (_, n) => {
        const label = `${name}${n}`;
        const args = [LOAD, "work", dirs[i] ?? "", label, seconds, `${o.seed}-${rounds}-${label}`, ...folders];
        return run("python3", args, {}, 60_000);
      })
    );
    await fault();
    for (const { code, out, err } of await Promise.all(works)) {
      if (code === 0 && out === "") continue;
      problems.push(`round ${rounds}: a load ended with ${code}: ${out}${err}`);
      o.say(`PROBLEM ${problems.at(-1)}`);
    }
    const fresh = rounds % FRESH === 0;
    const all = fresh ? [...dirs, await house.mount("fresh", { cacheDir: `${house.folder}/fresh-${rounds}` })] : dirs;
    const different = await becomeAlike(all);
    if (different !== null) {
      problems.push(`round ${rounds}: ${different.length} differ: ${different.slice(0, 3).join("\n  ")}`);
      o.say(`PROBLEM ${problems.at(-1)}`);
    }
    if (!fresh) continue;
    await house.killMount("fresh", "SIGTERM");
    await Deno.remove(`${house.folder}/fresh-${rounds}`, { recursive: true });
    o.say(`${rounds} rounds, ${names} names, ${problems.length} problems, slowest ${slowestMs.toFixed(0)} ms`);
    for await (const { name } of Deno.readDir(dirs[0] ?? "")) {
      await Deno.remove(`${dirs[0]}/${name}`, { recursive: true });
    }
  }
  if (problems.length > 0) o.say(house.log.slice(-8000));
  return { rounds, names, faults, slowestMs: Math.round(slowestMs), problems };
}

if (import.meta.main) {
  const { values } = parseArgs({
    args: Deno.args.filter((arg) => arg !== "--"),
    options: { minutes: { type: "string", default: "10" }, seed: { type: "string", default: "1" } },
  });
  const report = await alikeCampaign({ minutes: Number(values.minutes), seed: Number(values.seed), say: console.log });
  console.log(JSON.stringify(report, null, 2));
  Deno.exit(report.problems.length === 0 ? 0 : 1);
}
