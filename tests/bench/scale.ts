/**
 * What must not grow with the size of things: memory of server and mount under a file far larger than it, a folder of
 * 100,000 entries, start times with 100 and with 1,000,000 entries, small files that wait for the server.
 * `deno task bench scale`, or with options:
 * `deno run -A tests/bench/scale.ts [--only memory,folder,start,waiting] [--gib 20] [--entries 1000000] [--source]`.
 * Writes .anyfs/bench/scale.json. Needs root and cmp; for 20 GiB about 3 GB of disk.
 */
import { parseArgs } from "node:util";
import { SqliteIndex } from "../../core/index/sqlite_index.ts";
import type { Op } from "../../core/index/ops.ts";
import { ROOT_INO } from "../../core/index/ops.ts";
import { S_IFDIR, S_IFREG } from "../../core/fs/stat.ts";
import { splitTime, systemClock } from "../../core/platform/clock.ts";
import { systemRandom } from "../../core/platform/random.ts";
import { anyfsProgram, type Program, shell, startMount, startServer, watchMemory } from "./house.ts";

const ROOT = new URL("../..", import.meta.url).pathname.replace(/\/$/, "");
const BATCH = 5000;

interface Figure {
  readonly what: string;
  readonly value: number;
  readonly unit: "MB" | "ms" | "s" | "MB/s" | "entries/s";
}
const figures: Figure[] = [];
function report(what: string, value: number, unit: Figure["unit"]): void {
  figures.push({ what, value, unit });
  const digits = unit === "s" ? 2 : 0;
  console.log(`${what.padEnd(64)} ${value.toLocaleString("en", { maximumFractionDigits: digits })} ${unit}`);
}

async function timed<T>(work: () => Promise<T>): Promise<{ seconds: number; value: T }> {
  const begin = performance.now();
  const value = await work();
  return { seconds: (performance.now() - begin) / 1000, value };
}

const rss = (pid: number): number => {
  const watch = watchMemory(pid);
  return watch.stop() / 1e6;
};

/** Opens the index of a server's state folder, as the server does, and hands it over. */
async function withIndex(folder: string, work: (index: SqliteIndex) => Promise<void>): Promise<void> {
  await Deno.mkdir(`${folder}/state`, { recursive: true });
  await Deno.mkdir(`${folder}/hot`, { recursive: true });
  const index = new SqliteIndex({
    path: `${folder}/state/index.sqlite`,
    clock: systemClock,
    random: systemRandom,
    hotBit: 1,
    targets: [],
    data: { hasUnsynced: () => false, sync: () => Promise.resolve() },
  });
  try {
    await work(index);
  } finally {
    await index.close();
  }
}

function creation(parent: number, name: string, mode: number): Op {
  const time = splitTime(systemClock.now());
  return { t: "create", parent, name, ino: 0, mode, uid: 0, gid: 0, rdev: 0, time };
}

/** Fills a folder of the tree with so many empty files. */
async function fill(index: SqliteIndex, parent: number, count: number): Promise<void> {
  for (let from = 0; from < count; from += BATCH) {
    const ops = Array.from(
      { length: Math.min(BATCH, count - from) },
      (_, i) => creation(parent, `file-${from + i}`, S_IFREG | 0o644),
    );
    await (await index.apply({ device: 0, request: 0, manifests: [], ops })).durable;
  }
}
async function makeFolder(index: SqliteIndex, parent: number, name: string): Promise<number> {
  const ops = [creation(parent, name, S_IFDIR | 0o755)];
  const { value } = await index.apply({ device: 0, request: 0, manifests: [], ops });
  return value.done[0]?.ino ?? 0;
}

/** (a) One file of `gib` GiB, 1 MiB of random bytes at every 64 MiB, and one of random bytes from end to end. */
async function memory(program: Program, folder: string, gib: number): Promise<void> {
  const server = await startServer(program, folder);
  try {
    const mount = await startMount(program, server.url, folder);
    try {
      report("memory of serve, idle", rss(server.pid), "MB");
      report("memory of mount, idle", rss(mount.pid), "MB");
      const cases = [
        {
          name: `sparse file of ${gib} GiB`,
          mib: gib * 1024,
          make: `truncate -s ${gib}G "$1"
            for i in $(seq 0 64 $((${gib} * 1024 - 1))); do
              dd if=/dev/urandom of="$1" bs=1M count=1 seek=$i conv=notrunc status=none
            done`,
        },
        { name: "file of 2 GiB random bytes", mib: 2048, make: 'head -c 2G /dev/urandom > "$1"' },
      ];
      for (const { name, mib, make } of cases) {
        const source = `${folder}/source`;
        await shell(make, [source]);
        const copy = `${mount.dir}/large`;
        const watches = [watchMemory(server.pid), watchMemory(mount.pid)];
        const written = await timed(() => shell('cp --sparse=always "$1" "$2"', [source, copy]));
        const settled = await timed(() => mount.settle());
        report(`${name}: written`, written.seconds, "s");
        report(`${name}: then at the server`, settled.seconds, "s");
        report(`${name}: memory of serve, at most, writing`, (watches[0]?.stop() ?? 0) / 1e6, "MB");
        report(`${name}: memory of mount, at most, writing`, (watches[1]?.stop() ?? 0) / 1e6, "MB");
        await mount.call("cache.clear");
        await shell('dd if="$1" iflag=nocache count=0 status=none', [copy]);
        const again = [watchMemory(server.pid), watchMemory(mount.pid)];
        const read = await timed(() => shell('cmp "$1" "$2"', [source, copy]));
        report(`${name}: read back and equal`, mib * 1.048576 / read.seconds, "MB/s");
        report(`${name}: memory of serve, at most, reading`, (again[0]?.stop() ?? 0) / 1e6, "MB");
        report(`${name}: memory of mount, at most, reading`, (again[1]?.stop() ?? 0) / 1e6, "MB");
        await shell('rm "$1" "$2"', [source, copy]);
        await mount.settle();
      }
    } finally {
      await mount.stop();
    }
  } finally {
    await server.stop();
  }
}

/** (b) A folder of 100,000 entries through the mount. */
async function bigFolder(program: Program, folder: string): Promise<void> {
  const count = 100_000;
  await withIndex(folder, async (index) => await fill(index, await makeFolder(index, ROOT_INO, "big"), count));
  const server = await startServer(program, folder);
  try {
    const mount = await startMount(program, server.url, folder);
    try {
      for (const what of ["first listing, from the server", "second listing, from the replica"]) {
        const { seconds, value } = await timed(() => shell('ls -f "$1" | wc -l', [`${mount.dir}/big`]));
        if (Number(value) !== count + 2) throw new Error(`the listing has ${value} lines`);
        report(`folder of 100,000: ${what}`, seconds, "s");
        report(`folder of 100,000: ${what}`, count / seconds, "entries/s");
        await shell("echo 3 > /proc/sys/vm/drop_caches");
      }
      const long = await timed(() => shell('ls -l "$1" | wc -l', [`${mount.dir}/big`]));
      report("folder of 100,000: ls -l", long.seconds, "s");
      report("folder of 100,000: memory of mount afterwards", rss(mount.pid), "MB");
    } finally {
      await mount.stop();
    }
  } finally {
    await server.stop();
  }
}

/** (c) Start times, with few and with many entries in the index. */
async function starts(program: Program, folder: string, entries: number): Promise<void> {
  for (const count of [100, entries]) {
    const place = `${folder}/${count}`;
    const label = `${count.toLocaleString("en")} entries`;
    await withIndex(place, async (index) => {
      const { seconds } = await timed(async () => {
        for (let done = 0; done < count; done += 1000) {
          await fill(index, await makeFolder(index, ROOT_INO, `folder-${done / 1000}`), Math.min(1000, count - done));
        }
      });
      if (count > 1000) report(`${label}: made in the index`, seconds, "s");
    });
    const served: number[] = [];
    const mounted: number[] = [];
    const again: number[] = [];
    const memory: number[] = [];
    for (let round = 0; round < 3; round++) {
      const server = await timed(() => startServer(program, place));
      served.push(server.seconds * 1000);
      try {
        const house = `${place}/client-${round}`;
        for (const list of [mounted, again]) {
          const mount = await startMount(program, server.value.url, house);
          list.push(mount.readyMs);
          if (list === again) memory.push(rss(mount.pid));
          await shell('[ $(ls "$1" | wc -l) -ge 1 ]', [mount.dir]);
          await mount.stop();
        }
      } finally {
        await server.value.stop();
      }
    }
    const median = (values: number[]) => values.sort((a, b) => a - b)[1] ?? NaN;
    report(`${label}: serve ready`, median(served), "ms");
    report(`${label}: mount ready, first time`, median(mounted), "ms");
    report(`${label}: mount ready, again`, median(again), "ms");
    report(`${label}: memory of mount, idle`, median(memory), "MB");
  }
}

/** (d) Small files that are written without a connection, and delivered. */
async function waiting(program: Program, folder: string): Promise<void> {
  const count = 50_000;
  const label = `${count.toLocaleString("en")} files of 200 bytes without a connection`;
  const server = await startServer(program, folder);
  try {
    const mount = await startMount(program, server.url, folder);
    try {
      await mount.call("offline");
      const write = `import os, sys
for i in range(${count}):
    with open(f"{sys.argv[1]}/{i}", "wb", buffering=0) as f: f.write(b"x" * 200)`;
      const written = await timed(() => shell(`python3 -c '${write}' "$1"`, [mount.dir]));
      report(`${label}: written`, written.seconds, "s");
      report(`${label}: memory of mount`, rss(mount.pid), "MB");
      const watches = [watchMemory(server.pid), watchMemory(mount.pid)];
      await mount.call("online");
      report(`${label}: delivered`, (await timed(() => mount.settle())).seconds, "s");
      report(`${label}: memory of serve, at most, meanwhile`, (watches[0]?.stop() ?? 0) / 1e6, "MB");
      report(`${label}: memory of mount, at most, meanwhile`, (watches[1]?.stop() ?? 0) / 1e6, "MB");
    } finally {
      await mount.stop();
    }
  } finally {
    await server.stop();
  }
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      only: { type: "string", default: "memory,folder,start,waiting" },
      gib: { type: "string", default: "20" },
      entries: { type: "string", default: "1000000" },
      source: { type: "boolean", default: false },
      out: { type: "string", default: `${ROOT}/.anyfs/bench` },
    },
  });
  const parts = values.only.split(",");
  const program = anyfsProgram({}, values.source ? [] : null);
  const folder = await Deno.makeTempDir({ prefix: "anyfs-scale-" });
  try {
    if (parts.includes("memory")) await memory(program, `${folder}/memory`, Number(values.gib));
    if (parts.includes("folder")) await bigFolder(program, `${folder}/folder`);
    if (parts.includes("waiting")) await waiting(program, `${folder}/waiting`);
    if (parts.includes("start")) await starts(program, `${folder}/start`, Number(values.entries));
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
  await Deno.mkdir(values.out, { recursive: true });
  await Deno.writeTextFile(
    `${values.out}/scale.json`,
    JSON.stringify({ at: new Date().toISOString(), figures }, null, 2) + "\n",
  );
  console.log(`written to ${values.out}/scale.json`);
}

if (import.meta.main) await main();
