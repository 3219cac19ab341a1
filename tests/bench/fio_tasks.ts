/** fio on one file of each target: sequential and random, by block size, jobs, and with and without the kernel's cache. */
import { shell } from "./house.ts";
import { FORGET_BYTES } from "./targets.ts";
import { type Figure, NotSupported, type Round, type Task } from "./task.ts";

interface Combination {
  readonly pattern: "read" | "write" | "randread" | "randwrite";
  readonly block: "4k" | "128k" | "1m";
  readonly jobs: 1 | 8;
  readonly direct: boolean;
}

const PATTERNS = {
  read: "sequential read",
  write: "sequential write",
  randread: "random read",
  randwrite: "random write",
};
const BLOCKS = { "4k": "4 KiB", "128k": "128 KiB", "1m": "1 MiB" };
/** One run of fio, its start and its fsync included. */
const LIMIT_MS = 60_000;

const combination = (
  pattern: Combination["pattern"],
  block: Combination["block"],
  jobs: Combination["jobs"],
  direct = false,
): Combination => ({ pattern, block, jobs, direct });

/** Those that tell something the others don't. */
const CHOSEN: readonly Combination[] = [
  combination("read", "1m", 1),
  combination("read", "128k", 1),
  combination("read", "4k", 1),
  combination("read", "1m", 8),
  combination("read", "1m", 1, true),
  combination("randread", "4k", 1),
  combination("randread", "4k", 8),
  combination("randread", "4k", 8, true),
  combination("randread", "128k", 1),
  combination("write", "1m", 1),
  combination("write", "4k", 1),
  combination("write", "1m", 8),
  combination("write", "1m", 1, true),
  combination("randwrite", "4k", 1),
];

const EVERY: readonly Combination[] = (["read", "randread", "write", "randwrite"] as const).flatMap((pattern) =>
  (["4k", "128k", "1m"] as const).flatMap((block) =>
    ([1, 8] as const).flatMap((jobs) => [false, true].map((direct) => combination(pattern, block, jobs, direct)))
  )
);

interface FioJob {
  readonly read: FioSide;
  readonly write: FioSide;
}
interface FioSide {
  readonly io_bytes: number;
  /** Milliseconds, an fsync at the end included. */
  readonly runtime: number;
  readonly total_ios: number;
  readonly lat_ns: { readonly mean: number };
  readonly clat_ns: { readonly percentile?: Readonly<Record<string, number>> };
}

/** The file that is read, made of the source unless the target has one. */
export async function bigFile({ target, tools, sizes }: Round): Promise<string> {
  if (target.given !== undefined) return target.given;
  const path = `${target.dir}/big`;
  await shell('[ -e "$2" ] || dd if="$1" of="$2" bs=1M count="$3" status=none', [
    tools.source,
    path,
    String(sizes.bigMib),
  ]);
  return path;
}

async function fio(path: string, { pattern, block, jobs, direct }: Combination, { sizes }: Round): Promise<FioJob[]> {
  const writes = pattern.endsWith("write");
  const all = writes ? sizes.writtenMib : sizes.bigMib;
  // Each sequential job has a part of the file to itself; random ones share it.
  const share = pattern.startsWith("rand") ? all : Math.floor(all / jobs);
  const report = await shell(
    `fio --name=bench --filename="$1" --rw=${pattern} --bs=${block} --ioengine=psync --numjobs=${jobs} \
      --size=${share}m ${pattern.startsWith("rand") ? "" : `--offset_increment=${share}m`} \
      --direct=${direct ? 1 : 0} --runtime=${Math.round(sizes.seconds * 1000)}ms --fallocate=none --invalidate=0 \
      ${writes ? "--end_fsync=1" : "--readonly"} --output-format=json | sed -n '/^{/,$p'`,
    [path],
    LIMIT_MS,
  );
  return (JSON.parse(report) as { jobs: FioJob[] }).jobs;
}

const idOf = ({ pattern, block, jobs, direct }: Combination): string =>
  `${pattern}_${block}_${jobs}${direct ? "_direct" : ""}`;

function task(chosen: Combination): Task {
  const { pattern, block, jobs, direct } = chosen;
  const id = idOf(chosen);
  const writes = pattern.endsWith("write");
  const random = pattern.startsWith("rand");
  const title = `fio ${PATTERNS[pattern]}, ${BLOCKS[block]}, ${jobs} job${jobs === 1 ? "" : "s"}${
    direct ? ", O_DIRECT" : ""
  }`;
  const unit = random && block === "4k" ? "ops/s" : "MB/s";
  const side = writes ? "write" : "read";
  const fileOf = (round: Round) => `${round.target.dir}/fio`;
  return {
    rows: writes
      ? [{ id, title: `${title}, until the last write`, unit }, {
        id: `${id}_fsync`,
        title: `${title}, until the fsync`,
        unit,
      }]
      : [{ id, title, unit }],
    prepare: async (round) => {
      const { target } = round;
      if (!writes) await bigFile(round);
      if (!direct) return;
      const probe = 'printf %4096s > "$1"; dd if="$1" of=/dev/null bs=4096 count=1 iflag=direct status=none; rm "$1"';
      await shell(probe, [`${target.dir}/probe`]).catch((error) => {
        throw new NotSupported(`no O_DIRECT: ${String(error).split("\n").at(-2)}`);
      });
    },
    before: async (round) => {
      const { target, tools, sizes } = round;
      if (!writes) await shell(FORGET_BYTES, [await bigFile(round)]);
      // A random writer finds a file of full length.
      else if (random) {
        await shell('dd if="$1" of="$2" bs=1M count="$3" status=none', [
          tools.source,
          fileOf(round),
          String(sizes.writtenMib),
        ]);
        await target.quiet();
      }
    },
    run: async (round) => {
      const reports = (await fio(writes ? fileOf(round) : await bigFile(round), chosen, round)).map((job) => job[side]);
      const done = reports.reduce((sum, job) => sum + (unit === "MB/s" ? job.io_bytes / 1e6 : job.total_ios), 0);
      const whole = Math.max(...reports.map((job) => job.runtime / 1e3), 1e-6);
      const percentile = (name: string) => Math.max(...reports.map((job) => job.clat_ns.percentile?.[name] ?? 0)) / 1e3;
      const latency = { p50: percentile("50.000000"), p99: percentile("99.000000") };
      if (!writes) return { [id]: { value: done / whole, ...latency } };
      // The calls alone, without the fsync that ends each job.
      const writing = Math.max(...reports.map((job) => job.lat_ns.mean * job.total_ios / 1e9), 1e-6);
      const figures: Record<string, Figure> = {
        [id]: { value: done / writing, ...latency },
        [`${id}_fsync`]: { value: done / whole },
      };
      return figures;
    },
    ...(writes ? { after: (round: Round) => shell('rm -f "$1"', [fileOf(round)]) } : {}),
  };
}

/** The fourteen that matter, or all 48. */
export function fioTasks(full: boolean): Task[] {
  const rest = EVERY.filter((one) => !CHOSEN.some((other) => idOf(other) === idOf(one)));
  return [...CHOSEN, ...(full ? rest : [])].map(task);
}
