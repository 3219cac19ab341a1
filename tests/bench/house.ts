/** Starts what the benchmarks measure: `anyfs serve` and `anyfs mount` as programs of their own, and rclone beside them. */

const ROOT = new URL("../..", import.meta.url).pathname.replace(/\/$/, "");
const READY_MS = 30_000;

/** All that `start` and `shell` have running, so that an interrupted measurement leaves nothing behind. */
const living = new Set<Deno.ChildProcess>();

/** Ends every program that `start` or `shell` still has running: SIGTERM, after `patienceMs` SIGKILL. */
export async function stopAll(patienceMs = 20_000): Promise<void> {
  const left = [...living];
  const signal = (name: Deno.Signal) => {
    for (const child of left) if (living.has(child)) child.kill(name);
  };
  signal("SIGTERM");
  const late = setTimeout(() => signal("SIGKILL"), patienceMs);
  await Promise.all(left.map((child) => child.status));
  clearTimeout(late);
}

/** A started program that stays. */
export interface Running {
  readonly pid: number;
  /** What it printed on standard output until it was ready. */
  readonly said: string;
  /** SIGTERM, then SIGKILL after `patienceMs`; resolves when it has ended. */
  stop(patienceMs?: number): Promise<void>;
}

/** How the program under test is started. */
export interface Program {
  readonly command: readonly string[];
  readonly env: Record<string, string>;
}

/** The compiled program, or `deno run main.ts` with these flags for V8 or Deno (profiles). */
export function anyfsProgram(env: Record<string, string>, flags: readonly string[] | null): Program {
  if (flags !== null) return { command: [Deno.execPath(), "run", "-A", ...flags, `${ROOT}/main.ts`], env };
  const path = `${ROOT}/dist/anyfs`;
  try {
    Deno.statSync(path);
  } catch {
    throw new Error(`${path} is not there: run "deno task build" first, or pass --source`);
  }
  return { command: [path], env };
}

/** Why dist/anyfs can't stand for the program as it is in this folder; null: it can. */
export async function whyNotCompiled(): Promise<string | null> {
  try {
    Deno.statSync(`${ROOT}/dist/anyfs`);
  } catch {
    return "dist/anyfs is not built";
  }
  try {
    const { commit } = JSON.parse(await Deno.readTextFile(`${ROOT}/dist/build_info.json`)) as { commit: string };
    await shell('cd "$1"; git diff --quiet "$2" -- main.ts cmd core backends fuse deno.lock', [ROOT, commit]);
    return null;
  } catch {
    return "dist/anyfs is of another state of the source";
  }
}

/** Starts a program and waits until `isReady` holds for what it printed. Throws with what it said when it ends before. */
export async function start(
  command: readonly string[],
  env: Record<string, string>,
  isReady: (said: string) => boolean | Promise<boolean>,
  log: string,
): Promise<Running> {
  const [name = "", ...args] = command;
  const child = new Deno.Command(name, { args, env, stdin: "null", stdout: "piped", stderr: "piped" }).spawn();
  living.add(child);
  let said = "";
  let ended = false;
  const file = await Deno.open(log, { create: true, append: true });
  const writer = file.writable.getWriter();
  const keep = async (stream: ReadableStream<Uint8Array>, remember: boolean) => {
    const decoder = new TextDecoder();
    for await (const bytes of stream) {
      if (remember && said.length < 65536) said += decoder.decode(bytes, { stream: true });
      await writer.write(bytes);
    }
  };
  const reading = Promise.all([keep(child.stdout, true), keep(child.stderr, false)])
    .finally(() => writer.close()).catch(() => undefined);
  const status = child.status.then((result) => {
    ended = true;
    living.delete(child);
    return result;
  });
  const stop = async (patienceMs = 20_000) => {
    if (!ended) child.kill("SIGTERM");
    const late = setTimeout(() => child.kill("SIGKILL"), patienceMs);
    await status;
    clearTimeout(late);
    await reading;
  };
  for (const end = Date.now() + READY_MS; !await isReady(said);) {
    if (ended || Date.now() > end) {
      await stop(0);
      const tail = (await Deno.readTextFile(log)).slice(-2000);
      throw new Error(`${command.join(" ")} ${ended ? "ended" : "was not ready in time"}:\n${tail}`);
    }
    await new Promise((done) => setTimeout(done, 5));
  }
  return { pid: child.pid, said, stop };
}

/** `anyfs serve` with its state and hot tier in `folder`; `more`: further tables of its configuration. */
export async function startServer(program: Program, folder: string, more = ""): Promise<Running & { url: string }> {
  await Deno.mkdir(folder, { recursive: true });
  await Deno.writeTextFile(
    `${folder}/config.toml`,
    `[daemon]\nstate_dir = "${folder}/state"\n[tiers.local]\npath = "${folder}/hot"\n${more}`,
  );
  const command = [...program.command, "--config", `${folder}/config.toml`, "serve", "--listen", "127.0.0.1:0"];
  const running = await start(command, program.env, (said) => said.includes("\n"), `${folder}/serve.log`);
  const url = /https?:\/\/[^\s"',;]+/.exec(running.said)?.[0];
  if (url === undefined) {
    await running.stop();
    throw new Error(`anyfs serve names no URL in ${JSON.stringify(running.said)}`);
  }
  return { ...running, url };
}

export interface MountedHouse extends Running {
  readonly dir: string;
  readonly cacheDir: string;
  /** Milliseconds from the start of the program to its ready line. */
  readonly readyMs: number;
  /** One call of the mount's control socket. */
  call(method: string, params?: Record<string, unknown>): Promise<unknown>;
  /** Everything written has reached the server. */
  settle(): Promise<void>;
}

/** `anyfs mount` of `url` at `folder`/mnt with its cache in `folder`/cache. */
export async function startMount(program: Program, url: string, folder: string): Promise<MountedHouse> {
  const dir = `${folder}/mnt`;
  const cacheDir = `${folder}/cache`;
  await Deno.mkdir(dir, { recursive: true });
  const begin = performance.now();
  const command = [...program.command, "--server", url, "mount", dir, "--cache-dir", cacheDir, "--cache-size", "40G"];
  const running = await start(command, program.env, (said) => said.includes("\n"), `${folder}/mount.log`);
  const readyMs = performance.now() - begin;
  const call = (method: string, params: Record<string, unknown> = {}) => callMount(cacheDir, dir, method, params);
  return {
    ...running,
    dir,
    cacheDir,
    readyMs,
    call,
    settle: async () => {
      for (let i = 0; i < 60; i++) {
        const answer = await call("drain", { timeoutMs: 60_000 }) as { done: boolean };
        if (answer.done) return;
      }
      throw new Error("the mount does not deliver what was written to it");
    },
    stop: async (patienceMs) => {
      await running.stop(patienceMs);
      await new Deno.Command("umount", { args: ["-l", dir], stderr: "null" }).output();
    },
  };
}

/** JSON-RPC to the control socket of the mount at `dir`. */
async function callMount(
  cacheDir: string,
  dir: string,
  method: string,
  params: Record<string, unknown>,
): Promise<unknown> {
  for (const entry of Deno.readDirSync(`${cacheDir}/mounts`)) {
    const folder = `${cacheDir}/mounts/${entry.name}`;
    const { dir: there } = JSON.parse(await Deno.readTextFile(`${folder}/mount.json`)) as { dir: string };
    if (there !== dir) continue;
    using client = Deno.createHttpClient({ proxy: { transport: "unix", path: `${folder}/control.sock` } });
    const response = await fetch("http://mount/", {
      client,
      method: "POST",
      body: JSON.stringify({ jsonrpc: "2.0", id: 1, method, params }),
    });
    const answer = await response.json() as { result?: unknown; error?: { message: string } };
    if (answer.error !== undefined) throw new Error(`${method}: ${answer.error.message}`);
    return answer.result;
  }
  throw new Error(`no mount at ${dir} uses ${cacheDir}`);
}

/** A mounted rclone. */
export interface MountedRclone {
  readonly pid: number;
  readonly dir: string;
  /** The local folder that it mounts. */
  readonly source: string;
  /** Its cache is written back: no upload is running; `all`: none waits for its time either (5 s after the close). */
  settle(all?: boolean): Promise<void>;
  /** It forgets what it knows of folders, so that it sees what others have put into `source`. */
  forget(): Promise<void>;
  stop(): Promise<void>;
}

/** `rclone mount --vfs-cache-mode full` of a local folder, all other settings as they come. */
export async function startRclone(folder: string): Promise<MountedRclone> {
  const dir = `${folder}/mnt`;
  await Deno.mkdir(dir, { recursive: true });
  await Deno.mkdir(`${folder}/source`, { recursive: true });
  const port = freePort();
  const remote = ["--rc", "--rc-addr", `127.0.0.1:${port}`, "--rc-no-auth"];
  const cache = ["--vfs-cache-mode", "full", "--cache-dir", `${folder}/cache`, "--config", `${folder}/rclone.conf`];
  await Deno.writeTextFile(`${folder}/rclone.conf`, "");
  const running = await start(
    // Debian's rclone refuses to start with a certificate bundle it can't use, also for local folders.
    ["env", "-u", "AWS_CA_BUNDLE", "rclone", "mount", `${folder}/source`, dir, ...cache, ...remote],
    {},
    () => isMountPoint(dir),
    `${folder}/rclone.log`,
  );
  const ask = async (method: string): Promise<unknown> =>
    await (await fetch(`http://127.0.0.1:${port}/${method}`, { method: "POST" })).json();
  return {
    pid: running.pid,
    dir,
    source: `${folder}/source`,
    settle: async (all = true) => {
      for (;;) {
        const stats = await ask("vfs/stats") as { diskCache?: { uploadsInProgress: number; uploadsQueued: number } };
        const { uploadsInProgress = 0, uploadsQueued = 0 } = stats.diskCache ?? {};
        if (uploadsInProgress + (all ? uploadsQueued : 0) === 0) return;
        await new Promise((done) => setTimeout(done, 50));
      }
    },
    forget: async () => {
      await ask("vfs/forget");
    },
    stop: async () => {
      await new Deno.Command("umount", { args: ["-l", dir], stderr: "null" }).output();
      await running.stop();
    },
  };
}

/** Is anything mounted at this directory? Asks the kernel's list, not the mount. */
export function isMountPoint(dir: string): boolean {
  return Deno.readTextFileSync("/proc/self/mountinfo").split("\n").some((line) => line.split(" ")[4] === dir);
}

/** A port of the loopback address that nothing listens on now. */
export function freePort(): number {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr as Deno.NetAddr;
  listener.close();
  return port;
}

/**
 * Runs a shell script with `$1`, `$2` ...; throws with what it printed unless it succeeds. Returns its output, trimmed.
 * After `timeoutMs` it is ended together with every program it has started.
 */
export async function shell(script: string, args: readonly string[] = [], timeoutMs = 900_000): Promise<string> {
  const child = new Deno.Command("timeout", {
    args: ["-k", "5", String(timeoutMs / 1000), "bash", "-euo", "pipefail", "-c", script, "bash", ...args],
    env: { LC_ALL: "C.UTF-8", GIT_CONFIG_GLOBAL: "/dev/null" },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  living.add(child);
  const output = await child.output().finally(() => living.delete(child));
  const out = new TextDecoder().decode(output.stdout);
  if (output.code !== 0) {
    const how = output.code === 124 ? `longer than ${timeoutMs / 1000} s` : `exit ${output.code}`;
    throw new Error(`${how}: ${script}\n${out}\n${new TextDecoder().decode(output.stderr)}`);
  }
  return out.trim();
}

/** Resident bytes of a process, sampled until `stop`, which gives the largest. */
export function watchMemory(pid: number, everyMs = 200): { stop(): number } {
  let most = 0;
  const sample = () => {
    try {
      const kib = /^VmRSS:\s+(\d+)/m.exec(Deno.readTextFileSync(`/proc/${pid}/status`))?.[1];
      most = Math.max(most, Number(kib ?? 0) * 1024);
    } catch {
      // It has ended.
    }
  };
  sample();
  const timer = setInterval(sample, everyMs);
  return {
    stop() {
      clearInterval(timer);
      sample();
      return most;
    },
  };
}
