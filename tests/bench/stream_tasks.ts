/** One large file: written, delivered, read warm and cold, by one and by a hundred, and what that costs the processor. */
import { cpuSeconds } from "./cpu_time.ts";
import { bigFile } from "./fio_tasks.ts";
import { shell } from "./house.ts";
import { FORGET_BYTES } from "./targets.ts";
import { type Figure, type Round, seconds, type Task, type Tools } from "./task.ts";

const MIB = 2 ** 20;
const GIB = 2 ** 30;
const LIMIT_MS = 180_000;

async function client({ client }: Tools, ...args: string[]): Promise<number[]> {
  return (await shell('"$@"', [client, ...args], LIMIT_MS)).split(" ").map(Number);
}

/** Processor seconds of what serves the target per GiB of `bytes`; nothing for the kernel's own filesystem. */
async function cost(round: Round, bytes: number, work: () => Promise<unknown>): Promise<Figure | null> {
  const { pids } = round.target;
  const before = cpuSeconds(pids);
  await work();
  return pids.length === 0 ? null : { value: (cpuSeconds(pids) - before) * GIB / bytes };
}

function writing(mib: number): Task {
  const what = `sequential write of ${mib} MiB`;
  const path = ({ target }: Round) => `${target.dir}/written`;
  return {
    rows: [
      { id: "write_last", title: `${what}, until the last write`, unit: "MB/s" },
      { id: "write", title: `${what}, until the close`, unit: "MB/s" },
      { id: "write_delivered", title: `${what}, until the close and it is delivered`, unit: "MB/s" },
      { id: "write_cpu", title: `${what}, delivered: processor`, unit: "s/GiB" },
      { id: "write_fsync", title: `${what}, until the fsync`, unit: "MB/s" },
    ],
    run: async (round) => {
      const { target, tools } = round;
      const rate = (time: number | undefined): Figure => ({ value: mib * MIB / 1e6 / (time ?? NaN) });
      const figures: Record<string, Figure> = {};
      const cpu = await cost(round, mib * MIB, async () => {
        const [last, , close] = await client(tools, "write", path(round), "1", "0", String(mib), tools.source);
        figures["write_last"] = rate(last);
        figures["write"] = rate(close);
        figures["write_delivered"] = rate((close ?? NaN) + await seconds(target.settle));
      });
      if (cpu !== null) figures["write_cpu"] = cpu;
      await shell('rm "$1"', [path(round)]);
      await target.settle();
      const [, synced] = await client(tools, "writesync", path(round), "1", "0", String(mib), tools.source);
      figures["write_fsync"] = rate(synced);
      return figures;
    },
    after: (round) => shell('rm -f "$1"', [path(round)]),
  };
}

function reading(mib: number): Task {
  const what = `sequential read of ${mib} MiB`;
  const read = (path: string) => shell(`dd if="$1" of=/dev/null bs=1M count=${mib} status=none`, [path], LIMIT_MS);
  return {
    rows: [
      { id: "read", title: `${what}, the kernel's bytes of it dropped`, unit: "MB/s" },
      { id: "read_cpu", title: `${what}, the kernel's bytes of it dropped: processor`, unit: "s/GiB" },
      { id: "read_cached", title: `${what}, again`, unit: "MB/s" },
    ],
    prepare: bigFile,
    before: async (round) => {
      await shell(FORGET_BYTES, [await bigFile(round)]);
    },
    run: async (round) => {
      const path = await bigFile(round);
      const rate = async (): Promise<Figure> => ({ value: mib * MIB / 1e6 / await seconds(() => read(path)) });
      const figures: Record<string, Figure> = {};
      const cpu = await cost(round, mib * MIB, async () => {
        figures["read"] = await rate();
      });
      if (cpu !== null) figures["read_cpu"] = cpu;
      figures["read_cached"] = await rate();
      return figures;
    },
  };
}

const readers: Task = {
  rows: [
    { id: "readers_1", title: "random read 4 KiB, 1 reader, the kernel's bytes dropped", unit: "ops/s" },
    { id: "readers_100", title: "random read 4 KiB, 100 readers, the kernel's bytes dropped", unit: "ops/s" },
    { id: "readers_p99", title: "p99 of the 100 readers by that of one", unit: "x" },
  ],
  prepare: bigFile,
  run: async (round) => {
    const path = await bigFile(round);
    const figures: Record<string, Figure> = {};
    for (const count of ["1", "100"]) {
      await shell(FORGET_BYTES, [path]);
      const seconds = String(round.sizes.seconds);
      const [value = NaN, p50 = NaN, p99 = NaN] = await client(round.tools, "pread", path, count, seconds);
      figures[`readers_${count}`] = { value, p50, p99 };
    }
    const p99 = (count: string) => figures[`readers_${count}`]?.p99 ?? NaN;
    figures["readers_p99"] = { value: p99("100") / p99("1") };
    return figures;
  },
};

function firstByte(mib: number): Task {
  const cold = new Map<string, (round: number) => Promise<string>>();
  const paths = new Map<string, string>();
  return {
    rows: [
      { id: "first_byte", title: `first byte of a cold file of ${mib} MiB`, unit: "ms" },
      { id: "cold_read", title: `the rest of its first ${Math.min(mib, 256)} MiB`, unit: "MB/s" },
    ],
    prepare: async ({ target, tools, sizes }) => {
      cold.set(target.name, await target.cold(tools.source, sizes.coldMib));
    },
    before: async ({ target, round }) => {
      paths.set(target.name, await cold.get(target.name)?.(round) ?? "");
    },
    run: async ({ target, tools }) => {
      const path = paths.get(target.name) ?? "";
      const [first = NaN] = await client(tools, "firstbyte", path, "1", "0");
      const part = Math.min(mib, 256);
      const read = () => shell(`dd if="$1" of=/dev/null bs=1M count=${part} status=none`, [path], LIMIT_MS);
      return {
        first_byte: { value: first },
        cold_read: { value: part * MIB / 1e6 / await seconds(read) },
      };
    },
  };
}

export function streamTasks({ streamMib, coldMib, bigMib }: {
  streamMib: number;
  coldMib: number;
  bigMib: number;
}): Task[] {
  return [writing(streamMib), reading(Math.min(streamMib, bigMib)), readers, firstByte(coldMib)];
}
