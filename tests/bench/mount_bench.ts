/**
 * The mount against `rclone mount --vfs-cache-mode full`, sshfs, a filesystem that does nothing (the protocol's own cost)
 * and the plain disk, in one run: `deno task bench:mount`. Needs root, gcc, fio, git, tar; leaves out of rclone and sshfs
 * what is not installed. Writes .anyfs/bench/mount_bench.json and .md, the latter for docs/benchmarks.md.
 *
 *   --only a,b        rows by id, or by what their id begins with; --list prints them
 *   --targets a,b     of anyfs, rclone, sshfs, null, disk
 *   --quick           tiny sizes and one round: does each row work?
 *   --full            all 48 combinations of fio
 *   --s3              also a file that only an S3 store has (tests/support/s3_server.ts finds or starts one)
 *   --rounds N        medians of so many (3); rows that take long get fewer
 *   --patience S      a row that took this long on a target, all in all, gets no further round there (8)
 *   --minutes N       from then on one round a row, and after a fifth more what is left is left out (10); 0: no limit
 *   --server URL      this AnyFS server instead of one of its own
 *   --source          AnyFS from source even where dist/anyfs is current
 *   --out DIR         where the results go; --json prints the JSON instead of the table
 */
import { parseArgs } from "node:util";
import { fioTasks } from "./fio_tasks.ts";
import { anyfsProgram, shell, stopAll, whyNotCompiled } from "./house.ts";
import { metadataTasks } from "./metadata_tasks.ts";
import { type About, brief, type Cell, type Line, markdown, median, ratio } from "./report.ts";
import { s3Measurement } from "./s3_task.ts";
import { streamTasks } from "./stream_tasks.ts";
import { obstacle, openTarget, type Target, type TargetName, TARGETS, unmountBelow } from "./targets.ts";
import { NotSupported, type Round, type Sizes, type Task, type Tools } from "./task.ts";
import { treeTasks } from "./tree_tasks.ts";

const ROOT = new URL("../..", import.meta.url).pathname.replace(/\/$/, "");

const SIZES: Sizes = {
  bigMib: 512,
  coldMib: 1024,
  streamMib: 512,
  writtenMib: 256,
  files: 10_000,
  listed: 10_000,
  handles: 1000,
  created: 5000,
  seconds: 0.6,
};
const QUICK: Sizes = {
  bigMib: 32,
  coldMib: 32,
  streamMib: 16,
  writtenMib: 16,
  files: 300,
  listed: 300,
  handles: 200,
  created: 200,
  seconds: 0.2,
};

/** What `npm ci` needs to install 9,000 files without a network. */
async function packages(folder: string): Promise<string | null> {
  const dependencies = { "@aws-sdk/client-s3": "3.1169.0", typescript: "5.9.3", "date-fns": "4.1.0" };
  await Deno.mkdir(folder);
  await Deno.writeTextFile(`${folder}/package.json`, JSON.stringify({ name: "bench", private: true, dependencies }));
  const fill = `cd "$1"; npm install --cache cache --no-audit --no-fund --ignore-scripts > /dev/null
    npm ci --prefer-offline --cache cache --no-audit --no-fund --ignore-scripts > /dev/null; rm -r node_modules`;
  return await shell(fill, [folder], 180_000).then(() => folder, (error) => {
    console.error(`no packages for npm ci: ${error instanceof Error ? error.message : error}`);
    return null;
  });
}

/** Makes what the tasks read, in memory and outside of what is measured. */
async function makeTools(folder: string, sizes: Sizes, quick: boolean): Promise<Tools> {
  const tools = {
    client: `${folder}/client`,
    source: `${folder}/source`,
    tar: `${folder}/tree.tar`,
    repository: `${folder}/repository`,
    modules: `${folder}/node_modules`,
    packages: quick ? null : await packages(`${folder}/packages`),
  };
  await shell('gcc -O2 -pthread -o "$1" "$2"', [tools.client, new URL("./fuse_client.c", import.meta.url).pathname]);
  await shell('head -c "$2M" /dev/urandom > "$1"', [tools.source, String(sizes.coldMib)]);
  await shell(
    `mkdir "$1/t"; cd "$1/t"
     for d in $(seq 0 $(($5 / 100 - 1))); do
       mkdir $d; dd if="$2" bs=420000 skip=$d count=1 status=none | split -b 4200 -a 3 -d - $d/f
     done
     tar -cf "$3" .; mkdir "$4"; cd "$4"; git init -q; mv "$1"/t/* .; rmdir "$1/t"
     git add -A; git -c user.name=bench -c user.email=bench@localhost commit -qm one`,
    [folder, tools.source, tools.tar, tools.repository, String(sizes.files)],
  );
  // A real one: many small files, some large ones, symbolic links.
  await shell(
    `cd "$1"; mkdir "$2"; if [ "$3" = quick ]; then cp -r .deno/commander@* "$2"; else cp -r . "$2"; fi`,
    [`${ROOT}/node_modules`, tools.modules, quick ? "quick" : "whole"],
  );
  return tools;
}

/** Does it; what goes wrong becomes the problem of those cells that have no figure yet, and the others go on. */
async function careful(name: string, cells: ReadonlyMap<string, Cell>, work: () => Promise<unknown>): Promise<void> {
  try {
    await work();
  } catch (error) {
    for (const cell of cells.values()) {
      if (cell.figures.length > 0) continue;
      cell.problem = error instanceof Error ? error.message : String(error);
      cell.unsupported = error instanceof NotSupported;
    }
    if (!(error instanceof NotSupported)) console.error(`${[...cells.keys()][0]}, ${name}: ${error}`);
  }
}

/** One round of one task on one target, which is at rest before and after. */
async function attempt(task: Task, round: Round, cells: ReadonlyMap<string, Cell>): Promise<void> {
  const { target } = round;
  await careful(target.name, cells, async () => {
    await task.before?.(round);
    await target.quiet();
    // What another system has left in memory is not written during this one's turn.
    await shell("sync");
    for (const [id, figure] of Object.entries(await task.run(round))) cells.get(id)?.figures.push(figure);
  });
  try {
    await task.after?.(round);
    await target.quiet();
  } catch (error) {
    console.error(`${target.name}, cleaning up: ${error}`);
  }
}

interface Limits {
  readonly rounds: number;
  readonly patienceSec: number;
  /** performance.now() after which one round has to do. */
  readonly deadline: number;
}

/** All rounds of one task, the targets taking turns, each round beginning with another one. */
async function measure(
  task: Task,
  targets: readonly Target[],
  limits: Limits,
  given: { tools: Tools; sizes: Sizes },
  stopped: () => boolean,
): Promise<Line[]> {
  const lines = task.rows.map((row): Line => ({ row, cells: {} }));
  const spent = new Map<TargetName, number>();
  const cellsOf = ({ name }: Target) =>
    new Map(lines.map(({ row, cells }) => [row.id, cells[name] ??= { figures: [] }]));
  const able = targets.filter(({ name }) => (task.only ?? name) === name);
  for (const target of able) {
    if (task.prepare === undefined || stopped()) break;
    await careful(target.name, cellsOf(target), async () => await task.prepare?.({ target, round: 0, ...given }));
  }
  // What rclone uploads late must not meet another's measurement.
  for (const target of able) {
    if (task.prepare !== undefined && !stopped()) await careful(target.name, cellsOf(target), target.settle);
  }
  for (let round = 0; round < Math.min(limits.rounds, task.rounds ?? Infinity); round++) {
    if (round > 0 && performance.now() > limits.deadline) break;
    for (let i = 0; i < able.length && !stopped(); i++) {
      const target = able[(i + round) % able.length];
      if (target === undefined || (spent.get(target.name) ?? 0) > limits.patienceSec) continue;
      const cells = cellsOf(target);
      if ([...cells.values()].some(({ problem }) => problem !== undefined)) continue;
      const begin = performance.now();
      await attempt(task, { target, round, ...given }, cells);
      spent.set(target.name, (spent.get(target.name) ?? 0) + (performance.now() - begin) / 1000);
    }
  }
  return lines;
}

async function machine(
  folder: string,
): Promise<Pick<About, "cpu" | "cores" | "kernel" | "filesystem" | "versions" | "load">> {
  const first = async (script: string) => (await shell(script).catch(() => "")).split("\n")[0] ?? "";
  return {
    cpu: /^model name\s*:\s*(.*)$/m.exec(await Deno.readTextFile("/proc/cpuinfo"))?.[1] ?? "unknown",
    cores: navigator.hardwareConcurrency,
    kernel: /^[\d.]+/.exec(Deno.osRelease())?.[0] ?? "unknown",
    filesystem: await shell('findmnt -no FSTYPE -T "$1"', [folder]),
    versions: {
      rclone: (await first("rclone version 2>/dev/null")).replace("rclone ", ""),
      sshfs: /[\d.]+$/.exec(await first("sshfs --version 2>/dev/null | grep SSHFS"))?.[0] ?? "",
      fio: (await first("fio --version")).replace("fio-", ""),
      git: (await first("git --version")).replace("git version ", ""),
    },
    load: Number(Deno.loadavg()[0]?.toFixed(1)),
  };
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    // `deno task bench:mount -- --only read` hands the two dashes on.
    args: Deno.args.filter((arg) => arg !== "--"),
    options: {
      rounds: { type: "string" },
      patience: { type: "string", default: "8" },
      minutes: { type: "string", default: "10" },
      only: { type: "string" },
      targets: { type: "string", default: TARGETS.join(",") },
      server: { type: "string" },
      source: { type: "boolean", default: false },
      quick: { type: "boolean", default: false },
      full: { type: "boolean", default: false },
      s3: { type: "boolean", default: false },
      list: { type: "boolean", default: false },
      json: { type: "boolean", default: false },
      out: { type: "string", default: `${ROOT}/.anyfs/bench` },
    },
  });
  const sizes = values.quick ? QUICK : SIZES;
  const rounds = Number(values.rounds ?? (values.quick ? 1 : 3));
  let folder = "";
  let program = anyfsProgram({}, []);
  const s3 = s3Measurement(() => ({ program, folder }), sizes.coldMib);
  // What matters most comes first: a slow machine may not get to the end.
  const all = [
    ...metadataTasks(sizes),
    ...treeTasks(sizes.files),
    ...streamTasks(sizes),
    ...fioTasks(values.full),
    // Last: its server goes on with what was evicted and read while others are measured.
    ...(values.s3 ? [s3.task] : []),
  ];
  if (values.list) {
    for (const { id, title } of all.flatMap(({ rows }) => rows)) console.log(`${id.padEnd(28)} ${title}`);
    return;
  }
  const only = values.only?.split(",");
  const wantedRow = (id: string) => only === undefined || only.some((one) => id === one || id.startsWith(`${one}_`));
  const tasks = all.filter(({ rows }) => rows.some(({ id }) => wantedRow(id)));
  if (tasks.length === 0) throw new Error(`no row is called ${values.only}; --list prints them`);
  const unknown = values.targets.split(",").filter((name) => !TARGETS.some((known) => known === name));
  if (unknown.length > 0) throw new Error(`no target is called ${unknown.join(", ")}; there are ${TARGETS.join(", ")}`);
  const note = (text: string) => values.json ? console.error(text) : console.log(text);

  const begin = performance.now();
  folder = await Deno.makeTempDir({ prefix: "anyfs-bench-" });
  const memory = await Deno.makeTempDir({ dir: "/dev/shm", prefix: "anyfs-bench-" });
  const targets: Target[] = [];
  let stopped = false;
  let cleaning: Promise<void> | undefined;
  const tidy = async () => {
    const trying = (work: Promise<unknown>) => work.catch((error) => console.error(String(error)));
    await trying(s3.stop());
    // In turn: an AnyFS mount is stopped before its server, and each says what it can't do.
    for (const target of targets.reverse()) await trying(target.stop());
    await trying(stopAll());
    await trying(Deno.remove(memory, { recursive: true }));
    await trying(unmountBelow(folder).then(() => Deno.remove(folder, { recursive: true })));
  };
  const clean = (): Promise<void> => cleaning ??= tidy();
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    Deno.addSignalListener(signal, () => {
      stopped = true;
      console.error(`${signal}: cleaning up`);
      void clean().then(() => Deno.exit(130));
    });
  }
  try {
    const why = values.source ? "--source" : await whyNotCompiled();
    if (why === null) program = anyfsProgram({}, null);
    const said = why === null ? "AnyFS compiled (dist/anyfs)" : `AnyFS from source (${why})`;
    note(`${said}; ${tasks.length} tasks, ${rounds} round(s), in ${folder}`);
    const about = await machine(folder);
    const tools = await makeTools(memory, sizes, values.quick);
    const missing: Record<string, string> = {};
    for (const name of TARGETS.filter((name) => values.targets.split(",").includes(name))) {
      if (stopped) break;
      const reason = await obstacle(name);
      if (reason === null) targets.push(await openTarget(name, folder, program, values.server));
      else note(`${name} is left out: ${missing[name] = reason}`);
    }
    const names = targets.map(({ name }) => name);
    const lines: Line[] = [];
    const limitMs = Number(values.minutes) > 0 ? Number(values.minutes) * 60_000 : Infinity;
    const limits = {
      rounds,
      patienceSec: Number(values.patience),
      deadline: begin + limitMs,
      end: begin + 1.2 * limitMs,
    };
    for (const task of tasks) {
      if (stopped) break;
      if (performance.now() > limits.end) {
        const left = task.rows.map(({ id }) => id).filter(wantedRow).join(", ");
        note(`${left}: left out, --minutes are over`);
        missing[left] = "--minutes were over";
        continue;
      }
      for (const line of await measure(task, targets, limits, { tools, sizes }, () => stopped)) {
        if (!wantedRow(line.row.id)) continue;
        lines.push(line);
        note(`${((performance.now() - begin) / 1000).toFixed(0).padStart(4)} s  ${brief(line, names)}`);
      }
    }
    if (stopped) return;
    const whole: About = {
      at: new Date().toISOString(),
      command: ["deno task bench:mount", ...Deno.args].join(" "),
      program: said,
      ...about,
      rounds,
      seconds: (performance.now() - begin) / 1000,
      missing,
    };
    const table = markdown(whole, lines, targets);
    const results = lines.map((line) => ({
      ...line.row,
      medians: Object.fromEntries(
        names.map((name) => [name, median((line.cells[name]?.figures ?? []).map(({ value }) => value))]),
      ),
      byRclone: ratio(line, "rclone"),
      byDisk: ratio(line, "disk"),
      cells: line.cells,
    }));
    const json = JSON.stringify({ about: whole, results }, null, 2) + "\n";
    await Deno.mkdir(values.out, { recursive: true });
    await Deno.writeTextFile(`${values.out}/mount_bench.json`, json);
    await Deno.writeTextFile(`${values.out}/mount_bench.md`, table);
    console.log(values.json ? json : `\n${table}\nwritten to ${values.out}/mount_bench.json and .md`);
    const failed = lines.filter(({ cells }) => cells.anyfs?.problem !== undefined && cells.anyfs.unsupported !== true);
    if (failed.length > 0) {
      console.error(`AnyFS failed in: ${failed.map(({ row }) => row.id).join(", ")}`);
      await showLogs(folder);
      Deno.exitCode = 1;
    }
  } catch (error) {
    if (!stopped) {
      await showLogs(folder);
      throw error;
    }
  } finally {
    await clean();
  }
}

/** What the programs under test had to say, the end of it. */
async function showLogs(folder: string): Promise<void> {
  for (const log of ["anyfs/serve", "anyfs/mount", "rclone/rclone", "sshfs/sshd", "sshfs/sshfs", "null/null"]) {
    const said = await Deno.readTextFile(`${folder}/${log}.log`).catch(() => "");
    if (said !== "") console.error(`${log}.log:\n${said.slice(-3000)}`);
  }
}

if (import.meta.main) await main();
