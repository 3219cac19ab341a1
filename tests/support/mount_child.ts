/** Mounts in a child process for tests: a process must not touch its own mount, and a watchdog ends what hangs. */
import type { ChildCommand, ChildConfig } from "./mount_main.ts";

const MAIN = new URL("./mount_main.ts", import.meta.url).pathname;
/** A test's mount is taken down by force after this. */
const WATCHDOG_MS = Number(Deno.env.get("ANYFS_MOUNT_WATCHDOG_MS") ?? 60_000);

/** The child could not mount. */
export class MountFailed extends Error {
  constructor(message: string, readonly code: string, readonly errno: number) {
    super(message);
  }
}

export interface MountedChild extends AsyncDisposable {
  readonly dir: string;
  readonly pid: number;
  /** What the child said when it ended by itself. */
  readonly ended: Promise<{ destroyed: boolean; errors: string[] } | null>;
  ask(command: ChildCommand): Promise<unknown>;
  stats(): Promise<ChildStats>;
  kill(): Promise<void>;
}

/** The part of the child's statistics that tests look at. */
export interface ChildStats {
  readonly requests: Record<string, number>;
  readonly inodes: number;
  readonly inodeTableBytes: number;
  readonly inFlight: number;
  /** Lookups that a "held" and reads that an "unread" filesystem has made wait so far. */
  readonly held: number;
  readonly interrupted: number;
  readonly nodes: number;
  readonly handles: number;
  readonly openDirectories: number;
  readonly kernelMinor: number;
  readonly rss: number;
  readonly errorsSeen: string[];
  readonly calls: Record<string, number>;
  readonly notifications: { queued: number; sent: number; merged: number; all: number };
}

/** What a program printed and how it ended. */
export interface Ran {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** Runs a program, killed after 30 s. */
export async function run(
  program: string,
  args: readonly string[],
  env: Record<string, string> = {},
  limitMs = 30_000,
): Promise<Ran> {
  const child = new Deno.Command(program, {
    args: [...args],
    env: { LC_ALL: "C.UTF-8", ...env },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const timer = setTimeout(() => child.kill("SIGKILL"), limitMs);
  const output = await child.output();
  clearTimeout(timer);
  const decoder = new TextDecoder();
  return { code: output.code, out: decoder.decode(output.stdout), err: decoder.decode(output.stderr) };
}

/** Runs a bash script with `$1` = dir; throws with all it printed unless it succeeds. Returns its output, trimmed. */
export async function bash(dir: string, script: string): Promise<string> {
  const ran = await run("bash", ["-euo", "pipefail", "-c", script, "bash", dir]);
  if (ran.code !== 0) throw new Error(`exit ${ran.code}\n${ran.out}\n${ran.err}`);
  return ran.out.trim();
}

/** Is anything mounted at this directory? */
export async function isMounted(dir: string): Promise<boolean> {
  return (await Deno.readTextFile("/proc/self/mountinfo")).split("\n").some((line) => line.split(" ")[4] === dir);
}

/** May this process mount by mount(2)? The reason why not, or null. */
export function mountObstacle(): string | null {
  if (Deno.uid() !== 0) return "needs root for mount(2)";
  try {
    Deno.openSync("/dev/fuse", { read: true, write: true }).close();
    return null;
  } catch (error) {
    return `/dev/fuse can't be opened: ${error}`;
  }
}

export type ChildOptions = Omit<ChildConfig, "dir"> & {
  /** @default a new temporary directory, removed at the end */
  readonly dir?: string;
  /** Program and arguments put before the child's command line (setpriv, runuser ...). */
  readonly wrap?: readonly string[];
  /** The runtime to start. @default the one that runs the tests */
  readonly runtime?: string;
};

/** Mounts in a child and waits until it is ready. Throws MountFailed. */
export async function mountInChild(options: ChildOptions): Promise<MountedChild> {
  const { wrap = [], runtime = Deno.execPath(), dir: given, ...config } = options;
  const dir = given ?? await Deno.makeTempDir({ prefix: "anyfs-mount-" });
  const command = [...wrap, runtime, "run", "-A", "--no-prompt", MAIN, JSON.stringify({ ...config, dir })];
  const [program = "", ...args] = command;
  const child = new Deno.Command(program, { args, stdin: "piped", stdout: "piped", stderr: "inherit" }).spawn();
  const writer = child.stdin.getWriter();
  const waiting = new Map<number, PromiseWithResolvers<unknown>>();
  const ready = Promise.withResolvers<number>();
  const ended = Promise.withResolvers<{ destroyed: boolean; errors: string[] } | null>();
  let nextId = 1;
  let gone = false;

  const detach = async (): Promise<void> => {
    // By force first: that also frees who waits for an answer that never comes.
    for (let i = 0; i < 4 && await isMounted(dir); i++) await run("umount", [i === 0 ? "-f" : "-l", dir]);
  };
  const watchdog = setTimeout(() => {
    console.error(`the mount at ${dir} is taken down: it lived longer than ${WATCHDOG_MS / 1000} s`);
    void detach().then(() => child.kill("SIGKILL"));
  }, WATCHDOG_MS);

  const reading = (async () => {
    let buffered = "";
    for await (const chunk of child.stdout.pipeThrough(new TextDecoderStream())) {
      buffered += chunk;
      let end: number;
      while ((end = buffered.indexOf("\n")) >= 0) {
        const message = JSON.parse(buffered.slice(0, end));
        buffered = buffered.slice(end + 1);
        if (message.ready === true) ready.resolve(message.pid);
        else if (message.failed !== undefined) {
          ready.reject(new MountFailed(message.failed, message.code, message.errno));
        } else if (message.ended === true) ended.resolve(message);
        else if (message.error !== undefined) waiting.get(message.id)?.reject(new Error(message.error));
        else waiting.get(message.id)?.resolve(message.result);
      }
    }
    gone = true;
    const error = new Error("the child has ended");
    ready.reject(error);
    for (const question of waiting.values()) question.reject(error);
    ended.resolve(null);
  })();

  const finish = async (): Promise<void> => {
    // A pipe to a process that is gone may never report its end.
    await Promise.race([writer.close().catch(() => undefined), child.status]);
    await reading;
    await child.status;
    clearTimeout(watchdog);
  };

  let pid: number;
  try {
    pid = await ready.promise;
  } catch (error) {
    await finish();
    if (given === undefined) await Deno.remove(dir);
    throw error;
  }
  const ask = async (request: ChildCommand): Promise<unknown> => {
    if (gone) throw new Error("the child has ended");
    const id = nextId++;
    const answer = Promise.withResolvers<unknown>();
    waiting.set(id, answer);
    await writer.write(new TextEncoder().encode(JSON.stringify({ id, ...request }) + "\n"));
    return await answer.promise;
  };
  return {
    dir,
    pid,
    ended: ended.promise,
    ask,
    stats: async () => await ask({ command: "stats" }) as ChildStats,
    async kill() {
      Deno.kill(pid, "SIGKILL");
      await reading;
      await child.status;
    },
    async [Symbol.asyncDispose]() {
      await detach();
      await finish();
      if (given === undefined) await Deno.remove(dir).catch(() => undefined);
    },
  };
}
