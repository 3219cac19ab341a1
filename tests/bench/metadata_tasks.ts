/** Small files by the thousand: created, looked at, read, renamed, listed, removed, by 1, 8 and 100 threads. */
import { shell } from "./house.ts";
import { FORGET_NAMES } from "./targets.ts";
import { type Figure, type Round, seconds, type Task } from "./task.ts";

const LIMIT_MS = 60_000;

/** One run of the client; its four numbers. */
async function client(
  { tools }: Round,
  mode: string,
  path: string,
  threads: number,
  atMost: number,
  count: number,
): Promise<Figure & { done: number }> {
  const args = [tools.client, mode, path, String(threads), String(atMost), String(count)];
  const said = await shell('"$@"', args, LIMIT_MS);
  const [value = NaN, p50 = NaN, p99 = NaN, done = NaN] = said.split(" ").map(Number);
  if (Number.isNaN(done)) throw new Error(`the client says ${said}`);
  return { value, p50, p99, done };
}

/** Of another name in every run: ext4 chooses the block group of a folder by its name (`apart` in targets.ts). */
const RUN = crypto.randomUUID().slice(0, 8);
const folderOf = ({ target, round }: Round, name: string): string => `${target.dir}/${name}-${round}-${RUN}`;

/** All on the files that its first step has made. */
function smallFiles(threads: number): Task {
  const by = `${threads} thread${threads === 1 ? "" : "s"}`;
  const row = (id: string, what: string) => ({
    id: `${id}_${threads}`,
    title: `${what}, ${by}`,
    unit: "ops/s" as const,
  });
  return {
    rows: [
      row("create", "create, write 4 KiB, close"),
      row("stat_first", "stat, the kernel's names dropped"),
      row("stat", "stat, again"),
      row("openread_first", "open, read 4 KiB, close, the kernel's names dropped"),
      row("openread", "open, read 4 KiB, close, again"),
      row("rename", "rename"),
      row("unlink", "unlink"),
    ],
    before: (round) => shell('mkdir "$1"', [folderOf(round, `small-${threads}`)]),
    run: async (round) => {
      const { target, sizes } = round;
      const folder = folderOf(round, `small-${threads}`);
      const figures: Record<string, Figure> = {};
      const { done, ...created } = await client(round, "create", folder, threads, 2 * sizes.seconds, sizes.created);
      figures[`create_${threads}`] = created;
      const step = async (id: string, mode: string) => {
        await target.quiet();
        const { done: _, ...figure } = await client(round, mode, folder, threads, sizes.seconds, done);
        figures[`${id}_${threads}`] = figure;
      };
      for (const mode of ["stat", "openread"]) {
        await shell(FORGET_NAMES);
        await step(`${mode}_first`, mode);
        await step(mode, `${mode}+`);
      }
      await step("rename", "rename");
      await step("unlink", "unlink");
      return figures;
    },
    after: (round) => shell('rm -rf "$1"', [folderOf(round, `small-${threads}`)]),
  };
}

/** Files of 4 KiB in one folder, which stay. */
async function wideFolder(round: Round): Promise<string> {
  const { target, tools, sizes } = round;
  const folder = `${target.dir}/wide`;
  await shell('[ -e "$1/f$(($3 - 1))" ] || { mkdir -p "$1"; "$2" create "$1" 8 0 "$3"; }', [
    folder,
    tools.client,
    String(sizes.listed),
  ]);
  return folder;
}

const listing = (listed: number): Task => ({
  rows: [
    { id: "readdir_first", title: `readdir of ${listed.toLocaleString("en")}, the kernel's names dropped`, unit: "ms" },
    { id: "readdir", title: `readdir of ${listed.toLocaleString("en")}, again`, unit: "ms" },
    { id: "ls_first", title: `ls -l of ${listed.toLocaleString("en")}, the kernel's names dropped`, unit: "ms" },
    { id: "ls", title: `ls -l of ${listed.toLocaleString("en")}, again`, unit: "ms" },
  ],
  prepare: wideFolder,
  run: async (round) => {
    const folder = `${round.target.dir}/wide`;
    const figures: Record<string, Figure> = {};
    const readdir = async (id: string) => {
      const { value, done } = await client(round, "readdir", folder, 1, 0, 0);
      if (done !== listed + 2) throw new Error(`readdir gave ${done} names, not ${listed} and two dots`);
      figures[id] = { value: done / value * 1000 };
    };
    const ls = async (id: string) => {
      const value = await seconds(() => shell('[ "$(ls -l "$1" | wc -l)" = "$2" ]', [folder, String(listed + 1)]));
      figures[id] = { value: value * 1000 };
    };
    await shell(FORGET_NAMES);
    await readdir("readdir_first");
    await readdir("readdir");
    await shell(FORGET_NAMES);
    await ls("ls_first");
    await ls("ls");
    return figures;
  },
});

const handles = (count: number): Task => ({
  rows: [{
    id: "handles",
    title: `${count.toLocaleString("en")} files open at once: read 4 KiB of each`,
    unit: "ops/s",
  }],
  prepare: wideFolder,
  before: () => shell(FORGET_NAMES),
  run: async (round) => {
    const { done, ...figure } = await client(round, "handles", `${round.target.dir}/wide`, 1, 0, count);
    if (done !== count) throw new Error(`${done} of ${count} files were read`);
    return { handles: figure };
  },
});

export function metadataTasks({ listed, handles: open }: { listed: number; handles: number }): Task[] {
  return [smallFiles(1), smallFiles(8), smallFiles(100), listing(listed), handles(open)];
}
