/**
 * The mount against `rclone mount --vfs-cache-mode full` and the plain disk, in one run, warm: `deno task bench
 * mount_bench`. Needs root, gcc, fio, git, rclone. Each figure is the median of three. Writes .anyfs/bench/mount_bench.json
 * and a table for docs/benchmarks.md beside it.
 */
import { parseArgs } from "node:util";
import { anyfsProgram, shell, startMount, startRclone, startServer } from "./house.ts";

const ROOT = new URL("../..", import.meta.url).pathname.replace(/\/$/, "");
const GIB = 2 ** 30;

/** A folder under test. */
interface Target {
  readonly name: "anyfs" | "rclone" | "disk";
  readonly dir: string;
  /** Waits until nothing written before is still being worked on, so that it doesn't slow what is measured next. */
  settle(): Promise<void>;
}

interface Tools {
  readonly client: string;
  /** 1 GiB that doesn't compress, in memory. */
  readonly source: string;
  /** 10,000 files in 100 folders. */
  readonly tar: string;
  /** A git repository. */
  readonly repository: string;
}

interface Task {
  readonly id: string;
  readonly title: string;
  readonly unit: "MB/s" | "ops/s" | "s";
  /** Is a larger figure better? */
  readonly more: boolean;
  /** Once a target, before the rounds. */
  prepare?(dir: string, tools: Tools): Promise<unknown>;
  /** Before each round, not measured. */
  before?(dir: string, round: number, tools: Tools): Promise<unknown>;
  /** The figure; undefined: the time it took stands for it, see `work`. */
  run(dir: string, round: number, tools: Tools): Promise<number | void>;
  /** What one round does, in bytes (MB/s) or operations (ops/s). */
  readonly work?: number;
}

/** Drops what the kernel caches of this one file: a mount has to be asked again, its own cache stays. */
const FORGET = 'dd if="$1/big" iflag=nocache count=0 status=none';
const big = (dir: string, { source }: Tools) =>
  shell('[ -e "$1/big" ] || dd if="$2" of="$1/big" bs=1M status=none', [dir, source]);
const READ = 'dd if="$1/big" of=/dev/null bs=1M status=none';

const fio = async (dir: string, seconds: number, extra: string): Promise<number> => {
  const report = await shell(
    `fio --name=r --filename="$1/big" --readonly --rw=randread --bs=4k --ioengine=psync --size=1g --time_based \
      --runtime=${seconds} --output-format=json ${extra} | sed -n '/^{/,$p'`,
    [dir],
  );
  const { jobs } = JSON.parse(report) as { jobs: { read: { iops: number } }[] };
  return jobs.reduce((sum, job) => sum + job.read.iops, 0);
};

const creation = (threads: number): Task => ({
  id: `create_${threads}`,
  title: `create 5,000 files of 4 KiB, ${threads} thread${threads === 1 ? "" : "s"}`,
  unit: "ops/s",
  more: true,
  work: 5000,
  before: (dir, round) => shell('mkdir -p "$1/w"', [`${dir}/create-${threads}-${round}`]),
  run: async (dir, round, { client }) => {
    await shell('"$2" create "$1" "$3" 0 5000', [`${dir}/create-${threads}-${round}`, client, String(threads)]);
  },
});

/** 20,000 empty files in 200 folders, looked at once. */
async function wideTree(dir: string): Promise<void> {
  await shell(
    '[ -e "$1/tree" ] || { mkdir "$1/tree"; cd "$1/tree"; for i in $(seq 200); do mkdir $i; touch $i/f{1..100}; done; }',
    [dir],
  );
  await shell('find "$1/tree" | wc -l', [dir]);
}

const TASKS: readonly Task[] = [
  {
    id: "write",
    title: "sequential write 1 GiB, close",
    unit: "MB/s",
    more: true,
    work: GIB,
    before: (dir) => shell('rm -f "$1/written"', [dir]),
    run: async (dir, _, { source }) => {
      await shell('dd if="$2" of="$1/written" bs=1M status=none', [dir, source]);
    },
  },
  {
    id: "write_fsync",
    title: "sequential write 1 GiB, fsync, close",
    unit: "MB/s",
    more: true,
    work: GIB,
    before: (dir) => shell('rm -f "$1/written"', [dir]),
    run: async (dir, _, { source }) => {
      await shell('dd if="$2" of="$1/written" bs=1M conv=fsync status=none', [dir, source]);
    },
  },
  {
    id: "read",
    title: "sequential read 1 GiB, kernel cache of the file dropped",
    unit: "MB/s",
    more: true,
    work: GIB,
    prepare: big,
    before: (dir) => shell(FORGET, [dir]),
    run: async (dir) => {
      await shell(READ, [dir]);
    },
  },
  {
    id: "read_cached",
    title: "sequential read 1 GiB, in the kernel's cache",
    unit: "MB/s",
    more: true,
    work: GIB,
    prepare: big,
    before: (dir) => shell(READ, [dir]),
    run: async (dir) => {
      await shell(READ, [dir]);
    },
  },
  {
    id: "random",
    title: "random read 4 KiB, kernel cache of the file dropped",
    unit: "ops/s",
    more: true,
    prepare: big,
    before: (dir) => shell(FORGET, [dir]),
    run: (dir) => fio(dir, 3, "--fadvise_hint=random"),
  },
  creation(1),
  creation(8),
  {
    id: "find",
    title: "find over 20,000 files",
    unit: "s",
    more: false,
    prepare: wideTree,
    run: async (dir) => {
      if (await shell('find "$1/tree" -type f | wc -l', [dir]) !== "20000") throw new Error("find saw too few files");
    },
  },
  {
    id: "find_stat",
    title: "find with a stat of each of 20,000 files",
    unit: "s",
    more: false,
    prepare: wideTree,
    run: async (dir) => {
      if (await shell('find "$1/tree" -type f -mmin -600 | wc -l', [dir]) !== "20000") {
        throw new Error("find saw too few files");
      }
    },
  },
  {
    id: "untar",
    title: "untar 10,000 small files",
    unit: "s",
    more: false,
    before: (dir, round) => shell('mkdir "$1/untar-$2"', [dir, String(round)]),
    run: async (dir, round, { tar }) => {
      await shell('tar -xf "$2" -C "$1/untar-$3"', [dir, tar, String(round)]);
    },
  },
  {
    id: "git_clone",
    title: "git clone of 2,000 files",
    unit: "s",
    more: false,
    run: async (dir, round, { repository }) => {
      await shell('git clone -q "file://$2" "$1/clone-$3"', [dir, repository, String(round)]);
    },
  },
];

/** Makes what the tasks read, in memory and outside what is measured. */
async function makeTools(folder: string): Promise<Tools> {
  const tools = {
    client: `${folder}/client`,
    source: `${folder}/source`,
    tar: `${folder}/tree.tar`,
    repository: `${folder}/repository`,
  };
  await shell('gcc -O2 -pthread -o "$1" "$2"', [tools.client, new URL("./fuse_client.c", import.meta.url).pathname]);
  await shell('head -c 1G /dev/urandom > "$1"', [tools.source]);
  // 10,000 files of 4.2 KB.
  await shell(
    `mkdir "$1/t"; cd "$1/t"; n=0
     for d in $(seq 100); do mkdir $d; dd if="$2" bs=420000 skip=$d count=1 status=none | split -b 4200 -a 3 -d - $d/f; done
     tar -cf "$3" .`,
    [folder, tools.source, tools.tar],
  );
  await shell(
    `mkdir "$2"; cd "$2"; git init -q; for i in $(seq 20); do cp -r "$1/t/$i" .; done
     git add -A; git -c user.name=bench -c user.email=bench@localhost commit -qm one; rm -r "$1/t"`,
    [folder, tools.repository],
  );
  return tools;
}

const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1] ?? NaN;

async function measure(task: Task, target: Target, rounds: number, tools: Tools): Promise<number[]> {
  const { dir } = target;
  await task.prepare?.(dir, tools);
  const figures: number[] = [];
  for (let round = 0; round < rounds; round++) {
    await task.before?.(dir, round, tools);
    await target.settle();
    const begin = performance.now();
    const figure = await task.run(dir, round, tools);
    const seconds = (performance.now() - begin) / 1000;
    if (typeof figure === "number") figures.push(figure);
    else if (task.work === undefined) figures.push(seconds);
    else figures.push(task.work / (task.unit === "MB/s" ? 1e6 : 1) / seconds);
  }
  return figures;
}

const shown = (value: number, unit: Task["unit"]): string =>
  unit === "s" ? value.toFixed(2) : value.toLocaleString("en", { maximumFractionDigits: 0 });

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      rounds: { type: "string", default: "3" },
      only: { type: "string" },
      targets: { type: "string", default: "anyfs,rclone,disk" },
      server: { type: "string" },
      source: { type: "boolean", default: false },
      out: { type: "string", default: `${ROOT}/.anyfs/bench` },
    },
  });
  const only = values.only?.split(",");
  const wanted = values.targets.split(",");
  const folder = await Deno.makeTempDir({ prefix: "anyfs-bench-" });
  const memory = await Deno.makeTempDir({ dir: "/dev/shm", prefix: "anyfs-bench-" });
  const cleanups: (() => Promise<unknown>)[] = [
    () => Deno.remove(folder, { recursive: true }),
    () => Deno.remove(memory, { recursive: true }),
  ];
  let cleaned = false;
  const clean = async () => {
    if (cleaned) return;
    cleaned = true;
    for (const cleanup of cleanups.reverse()) await cleanup().catch((error) => console.error(String(error)));
  };
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    Deno.addSignalListener(signal, () => void clean().then(() => Deno.exit(130)));
  }
  try {
    const tools = await makeTools(memory);
    const program = anyfsProgram({}, values.source ? [] : null);
    const targets: Target[] = [];
    if (wanted.includes("anyfs")) {
      let url = values.server;
      if (url === undefined) {
        const server = await startServer(program, `${folder}/anyfs`);
        cleanups.push(() => server.stop());
        url = server.url;
      }
      const mount = await startMount(program, url, `${folder}/anyfs`);
      cleanups.push(() => mount.stop());
      targets.push({ name: "anyfs", dir: `${mount.dir}/bench-${Date.now()}`, settle: mount.settle });
    }
    if (wanted.includes("rclone")) {
      const rclone = await startRclone(`${folder}/rclone`);
      cleanups.push(() => rclone.stop());
      targets.push({ name: "rclone", dir: `${rclone.dir}/bench`, settle: rclone.settle });
    }
    if (wanted.includes("disk")) {
      targets.push({ name: "disk", dir: `${folder}/disk`, settle: () => shell("sync").then(() => undefined) });
    }
    for (const { dir } of targets) await shell('mkdir "$1"', [dir]);
    const results: Record<string, unknown>[] = [];
    const rows: string[][] = [];
    for (const task of TASKS) {
      if (only !== undefined && !only.includes(task.id)) continue;
      const figures: Record<string, number[]> = {};
      for (const target of targets) figures[target.name] = await measure(task, target, Number(values.rounds), tools);
      const of = (name: string) => figures[name] === undefined ? null : median(figures[name]);
      const ratio = (other: number | null) => {
        const own = of("anyfs");
        if (own === null || other === null) return null;
        return task.more ? own / other : other / own;
      };
      const [anyfs, rclone, disk] = [of("anyfs"), of("rclone"), of("disk")];
      results.push({ id: task.id, unit: task.unit, figures, anyfs, rclone, disk });
      const cell = (value: number | null) => value === null ? "" : `${shown(value, task.unit)} ${task.unit}`;
      const times = (value: number | null) => value === null ? "" : `${value.toFixed(2)}x`;
      rows.push([task.title, cell(anyfs), cell(rclone), cell(disk), times(ratio(rclone)), times(ratio(disk))]);
      console.log(rows.at(-1)?.join("  |  "));
    }
    const table = [
      ["", "anyfs", "rclone", "disk", "faster than rclone", "than disk"],
      ["---", "---:", "---:", "---:", "---:", "---:"],
      ...rows,
    ].map((cells) => `| ${cells.join(" | ")} |\n`).join("");
    await Deno.mkdir(values.out, { recursive: true });
    const about = {
      at: new Date().toISOString(),
      cpu: /^model name\s*:\s*(.*)$/m.exec(await Deno.readTextFile("/proc/cpuinfo"))?.[1] ?? "unknown",
      cores: navigator.hardwareConcurrency,
      kernel: Deno.osRelease(),
      rclone: (await shell("rclone version | head -1")).trim(),
      rounds: Number(values.rounds),
    };
    await Deno.writeTextFile(`${values.out}/mount_bench.json`, JSON.stringify({ about, results }, null, 2) + "\n");
    await Deno.writeTextFile(`${values.out}/mount_bench.md`, table);
    console.log(`\n${table}\nwritten to ${values.out}/mount_bench.json and .md`);
  } catch (error) {
    for (const log of ["anyfs/serve.log", "anyfs/mount.log", "rclone/rclone.log"]) {
      const said = await Deno.readTextFile(`${folder}/${log}`).catch(() => "");
      if (said !== "") console.error(`${log}:\n${said.slice(-3000)}`);
    }
    throw error;
  } finally {
    await clean();
  }
}

if (import.meta.main) await main();
