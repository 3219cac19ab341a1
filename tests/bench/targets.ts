/** The filesystems that mount_bench compares, each started from nothing in a folder of its own. */
import { isMountPoint, type Program, shell, start, startMount, startRclone, startServer } from "./house.ts";
import { sshfsObstacle, startSshfs } from "./sshfs.ts";

export type TargetName = "anyfs" | "rclone" | "sshfs" | "null" | "disk";

/** In the order of the table's columns. */
export const TARGETS: readonly TargetName[] = ["anyfs", "rclone", "sshfs", "null", "disk"];

/** A filesystem under test. The process of the benchmark itself never touches it, only programs that it starts do. */
export interface Target {
  readonly name: TargetName;
  /** An empty folder of it. */
  readonly dir: string;
  /** The same where files must keep their bytes; differs for the null filesystem only. */
  readonly trees: string;
  /** A file of at least 1 GiB that the filesystem has from the start. Undefined: it has to be written. */
  readonly given?: string;
  /** What serves it, for the processor's time; their children count too. Empty: the kernel itself. */
  readonly pids: readonly number[];
  /** Nothing works in the background any more. */
  quiet(): Promise<unknown>;
  /** All that was written has reached its place. */
  settle(): Promise<unknown>;
  /**
   * Makes a file of the first `mib` MiB of `source` that no cache between the mount and its server holds, and that the kernel knows
   * nothing of. What it returns prepares one round and gives the path.
   */
  cold(source: string, mib: number): Promise<(round: number) => Promise<string>>;
  stop(): Promise<unknown>;
}

/** What is told about a target beside the figures. */
export const SAFETY: { readonly [name in TargetName]: { readonly close: string; readonly fsync: string } } = {
  anyfs: {
    close: "on the client's disk (the journal's fdatasync); the server has the file and writes it down",
    fsync: "on the client's disk; delivered in the background",
  },
  rclone: {
    close: "in the page cache of the client; copied to the remote 5 s later, not synced",
    fsync: "in the page cache of the client: its fsync does nothing",
  },
  sshfs: { close: "in the page cache of the server", fsync: "on the server's disk (fsync@openssh.com)" },
  null: { close: "nowhere", fsync: "nowhere" },
  disk: { close: "in the page cache", fsync: "on the disk" },
};

/** Drops what the kernel caches of one file's bytes. On a mount: of the mount's file, not of what serves it. */
export const FORGET_BYTES = 'dd if="$1" iflag=nocache count=0 status=none';
/** Drops the names and attributes that the kernel caches, of all filesystems. Root only. */
export const FORGET_NAMES = "echo 2 > /proc/sys/vm/drop_caches";

const COPY = 'dd if="$1" of="$2" bs=1M count="$3" status=none';

const SETTLED_LIMIT_SEC = 180;

/** The same, but it fails when the target doesn't come to rest in time. */
const bounded = (work: () => Promise<unknown>) => async (): Promise<void> => {
  const late = Promise.withResolvers<never>();
  const reject = () => late.reject(new Error(`what was written has not reached its place in ${SETTLED_LIMIT_SEC} s`));
  const timer = setTimeout(reject, SETTLED_LIMIT_SEC * 1000);
  try {
    await Promise.race([work(), late.promise]);
  } finally {
    clearTimeout(timer);
  }
};

/** One file, the kernel's bytes of it dropped before each round. */
const coldByForgetting =
  (dir: string, settle: () => Promise<unknown>, drop: () => Promise<unknown>): Target["cold"] =>
  async (
    source,
    mib,
  ) => {
    await shell(COPY, [source, `${dir}/cold`, String(mib)]);
    await settle();
    return async () => {
      await drop();
      await shell(`${FORGET_BYTES}; ${FORGET_NAMES}`, [`${dir}/cold`]);
      return `${dir}/cold`;
    };
  };

/** Behind the mount's back, under a new name each round, so that it can't have heard of it. */
const coldByBackDoor =
  (dir: string, behind: string, forget: () => Promise<unknown>): Target["cold"] => async (source, mib) => {
    await shell(COPY, [source, `${behind}/cold`, String(mib)]);
    return async (round) => {
      const name = `cold-${round}-${Date.now()}`;
      await shell('mkdir "$1/$2"; ln "$1/cold" "$1/$2/cold"', [behind, name]);
      await forget();
      await shell(FORGET_NAMES);
      return `${dir}/${name}/cold`;
    };
  };

/**
 * Makes these folders, so that ext4 gives each folder in them a block group of its own (`chattr +T`). Else the files of one
 * round get no inode that the round before freed a minute ago, and a create that has to search past 5,000 of those takes
 * 500 us instead of 30 (`recently_deleted` in the kernel's fs/ext4/ialloc.c): the rows would depend on their order.
 */
const apart = (...folders: string[]): Promise<string> =>
  shell('mkdir -p "$@"; chattr +T "$@" 2> /dev/null || true', folders);

async function anyfs(folder: string, program: Program, server: string | undefined): Promise<Target> {
  const stops: (() => Promise<unknown>)[] = [];
  const stop = async () => {
    for (const step of stops.splice(0).reverse()) await step();
  };
  try {
    const pids: number[] = [];
    let url = server;
    if (url === undefined) {
      const running = await startServer(program, folder);
      stops.push(() => running.stop());
      pids.push(running.pid);
      url = running.url;
    }
    const mount = await startMount(program, url, folder);
    stops.push(() => mount.stop());
    pids.push(mount.pid);
    const dir = `${mount.dir}/bench-${Date.now()}`;
    await shell('mkdir "$1"', [dir]);
    if (server !== undefined) stops.push(() => shell('rm -rf "$1"', [dir]));
    const settle = bounded(mount.settle);
    const cold = coldByForgetting(dir, settle, () => mount.call("cache.clear"));
    return { name: "anyfs", dir, trees: dir, pids, quiet: settle, settle, cold, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function rclone(folder: string): Promise<Target> {
  const mount = await startRclone(folder);
  const dir = `${mount.dir}/bench`;
  await apart(
    `${mount.source}/bench`,
    ...["vfs", "vfsMeta"].map((kind) => `${folder}/cache/${kind}/local${mount.source}/bench`),
  );
  const cold = coldByBackDoor(dir, `${mount.source}/bench`, mount.forget);
  const quiet = bounded(() => mount.settle(false));
  const settle = bounded(() => mount.settle());
  return { name: "rclone", dir, trees: dir, pids: [mount.pid], quiet, settle, cold, stop: mount.stop };
}

async function sshfs(folder: string): Promise<Target> {
  const mount = await startSshfs(folder);
  const dir = `${mount.dir}/bench`;
  await apart(`${mount.source}/bench`);
  const cold = coldByBackDoor(dir, `${mount.source}/bench`, () => Promise.resolve());
  const quiet = () => Promise.resolve();
  return { name: "sshfs", dir, trees: dir, pids: mount.pids, quiet, settle: quiet, cold, stop: mount.stop };
}

/** The null filesystem, and beside it one in memory for what must read back what it wrote; both by our protocol code. */
async function nothing(folder: string): Promise<Target> {
  const main = new URL("./null_main.ts", import.meta.url).pathname;
  const stops: (() => Promise<unknown>)[] = [];
  const pids: number[] = [];
  const stop = async () => {
    for (const step of stops.splice(0).reverse()) await step();
  };
  try {
    for (const kind of ["null", "memory"]) {
      const dir = `${folder}/${kind}`;
      await Deno.mkdir(dir, { recursive: true });
      const command = [Deno.execPath(), "run", "-A", main, dir, kind];
      const running = await start(command, {}, (said) => said.includes("ready"), `${folder}/${kind}.log`);
      stops.push(async () => {
        await new Deno.Command("umount", { args: ["-l", dir], stderr: "null" }).output();
        await running.stop();
      });
      pids.push(running.pid);
    }
  } catch (error) {
    await stop();
    throw error;
  }
  const given = `${folder}/null/big`;
  const quiet = () => Promise.resolve();
  const cold = () =>
    Promise.resolve(async () => {
      await shell(`${FORGET_BYTES}; ${FORGET_NAMES}`, [given]);
      return given;
    });
  return {
    name: "null",
    dir: `${folder}/null/w`,
    trees: `${folder}/memory`,
    given,
    pids,
    quiet,
    settle: quiet,
    cold,
    stop,
  };
}

async function disk(folder: string): Promise<Target> {
  await apart(folder);
  const settle = () => shell('sync -f "$1"', [folder]);
  const cold = coldByForgetting(folder, settle, () => Promise.resolve());
  const stop = () => Promise.resolve();
  return { name: "disk", dir: folder, trees: folder, pids: [], quiet: settle, settle, cold, stop };
}

/** Why there is no such target here, as a sentence; null: nothing is missing. */
export async function obstacle(name: TargetName): Promise<string | null> {
  if (name === "disk") return null;
  if (Deno.uid() !== 0) return "mounting needs root";
  if (name === "sshfs") return await sshfsObstacle();
  if (name === "rclone") return await shell("command -v rclone").then(() => null, () => "rclone is not installed");
  return null;
}

/** Starts one below `folder`; `server`: an AnyFS server that runs already. Throws with what its programs said. */
export async function openTarget(
  name: TargetName,
  folder: string,
  program: Program,
  server?: string,
): Promise<Target> {
  const own = `${folder}/${name}`;
  await apart(folder, own);
  if (name === "anyfs") return await anyfs(own, program, server);
  if (name === "rclone") return await rclone(own);
  if (name === "sshfs") return await sshfs(own);
  if (name === "null") return await nothing(own);
  return await disk(`${own}/files`);
}

/** Takes everything off the tree that is still mounted below `folder`, whoever mounted it. */
export async function unmountBelow(folder: string): Promise<void> {
  const mounts = Deno.readTextFileSync("/proc/self/mountinfo").split("\n").map((line) => line.split(" ")[4] ?? "");
  for (const dir of mounts.filter((dir) => dir.startsWith(`${folder}/`)).reverse()) {
    await new Deno.Command("umount", { args: ["-l", dir], stderr: "null" }).output();
    if (isMountPoint(dir)) throw new Error(`${dir} can't be unmounted; ${folder} is left where it is`);
  }
}
