/** MountHouse: a real `anyfs serve` and real mounts of it as child processes in a folder of their own, to be killed and started again. */
import { isMounted, run } from "../support/mount_child.ts";

const ROOT = new URL("../..", import.meta.url).pathname.replace(/\/$/, "");
const READY_MS = 30_000;

/** Program and first arguments: the compiled program when ANYFS_BIN names it, else the source. */
export function anyfs(): [string, ...string[]] {
  const bin = Deno.env.get("ANYFS_BIN");
  if (bin !== undefined && bin !== "") return [bin];
  return [Deno.execPath(), "run", "-A", "--no-check", `--config=${ROOT}/deno.json`, `${ROOT}/main.ts`];
}

export function freePort(): number {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  listener.close();
  return port;
}

/** One running `anyfs`: what it said, and its end. */
class Daemon {
  readonly pid: number;
  readonly ended: Promise<number>;
  readonly #child: Deno.ChildProcess;
  #reading: Promise<void>;
  said = "";
  over = false;

  constructor(
    args: readonly string[],
    env: Record<string, string>,
    remark: (text: string) => void,
    prefix: readonly string[] = [],
  ) {
    const [program = "", ...first] = [...prefix, ...anyfs()];
    this.#child = new Deno.Command(program, {
      args: [...first, ...args],
      env,
      cwd: ROOT,
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.pid = this.#child.pid;
    const read = async (stream: ReadableStream<Uint8Array<ArrayBuffer>>, take: (text: string) => void) => {
      for await (const text of stream.pipeThrough(new TextDecoderStream())) take(text);
    };
    const take = (text: string) => {
      this.said += text;
      remark(text);
    };
    this.#reading = Promise.all([read(this.#child.stdout, take), read(this.#child.stderr, take)]).then(() => {});
    this.ended = this.#child.status.then((status) => {
      this.over = true;
      remark(`ended: ${status.signal ?? status.code}\n`);
      return status.code;
    });
  }
  /** Waits for the line that says it is ready. Throws with all it said when it ends or takes too long. */
  async ready(line: RegExp): Promise<this> {
    const end = Date.now() + READY_MS;
    while (!line.test(this.said)) {
      if (this.over || Date.now() > end) {
        await this.kill();
        throw new Error(`anyfs did not become ready:\n${this.said}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    return this;
  }
  async kill(signal: Deno.Signal = "SIGKILL"): Promise<number> {
    if (!this.over) {
      try {
        this.#child.kill(signal);
      } catch {
        // It has just ended.
      }
    }
    const code = await this.ended;
    await this.#reading;
    return code;
  }
}

export interface MountOptions {
  /** Place of the mount's cache; default: one for each name below the house. */
  readonly cacheDir?: string;
  readonly args?: readonly string[];
  /** A program that runs the mount, with its first arguments: `nsenter --net=...`. */
  readonly prefix?: readonly string[];
}
export interface HouseOptions {
  /** The configuration of the server and the mounts. */
  readonly config?: string;
  /** The address the server listens on. @default 127.0.0.1 */
  readonly host?: string;
  /** More environment for the server. */
  readonly env?: Readonly<Record<string, string>>;
}

export class MountHouse implements AsyncDisposable {
  readonly folder: string;
  readonly port: number;
  readonly #mounts = new Map<string, { daemon: Daemon; options: MountOptions }>();
  readonly #watchdog: ReturnType<typeof setTimeout>;
  readonly #options: HouseOptions;
  #server: Daemon | null = null;
  #over = false;
  /** Address the mounts use: the server's, or a proxy's before it. */
  url: string;
  /** Everything the daemons said, in order; for failures. */
  log = "";
  /** What the mounts said of conflicts. */
  readonly conflicts: string[] = [];

  /** @param lifeMs after this all is taken down by force, so that nothing hangs on a dead mount */
  constructor(lifeMs: number, options: string | HouseOptions = "") {
    this.#options = typeof options === "string" ? { config: options } : options;
    const { config = "", host = "127.0.0.1" } = this.#options;
    this.folder = Deno.makeTempDirSync({ prefix: "anyfs-house-" });
    this.port = freePort();
    this.url = `http://${host}:${this.port}`;
    Deno.mkdirSync(`${this.folder}/home`);
    if (config !== "") Deno.writeTextFileSync(`${this.folder}/anyfs.toml`, config);
    this.#watchdog = setTimeout(() => {
      console.error(`the mounts below ${this.folder} are taken down: they lived longer than ${lifeMs / 1000} s`);
      void this.#takeDown();
    }, lifeMs);
  }

  #env(): Record<string, string> {
    return { XDG_CONFIG_HOME: `${this.folder}/home/config`, LC_ALL: "C.UTF-8" };
  }
  #remark(who: string): (text: string) => void {
    return (text) => {
      this.log += text.replace(/^(?=.)/gm, `${who}: `);
      this.conflicts.push(...text.split("\n").filter((line) => /conflict: |both versions/.test(line)));
      if (this.log.length > 200_000) this.log = this.log.slice(-100_000);
    };
  }
  get stateDir(): string {
    return `${this.folder}/state`;
  }
  get #config(): string[] {
    return (this.#options.config ?? "") === "" ? [] : ["--config", `${this.folder}/anyfs.toml`];
  }
  async serve(): Promise<void> {
    const { host = "127.0.0.1", env } = this.#options;
    const args = [...this.#config, "serve", "--listen", `${host}:${this.port}`, "--state-dir", this.stateDir];
    if (this.#over) throw new Error("the house has been taken down");
    this.#server = new Daemon(args, { ...this.#env(), ...env }, this.#remark("serve"));
    await this.#server.ready(/ready at/);
  }
  async killServer(signal: Deno.Signal = "SIGKILL"): Promise<void> {
    await this.#server?.kill(signal);
    this.#server = null;
  }
  /** Runs a command against the server; throws with what it said unless it succeeds. Returns its standard output. */
  async cli(...args: string[]): Promise<string> {
    const [program, ...first] = anyfs();
    const ran = await run(program, [...first, ...this.#config, "--server", this.url, ...args], this.#env());
    if (ran.code !== 0) throw new Error(`anyfs ${args.join(" ")}: exit ${ran.code}: ${ran.err}`);
    return ran.out;
  }
  /** SIGSTOP freezes the server, SIGCONT lets it go on. */
  signalServer(signal: "SIGSTOP" | "SIGCONT"): void {
    if (this.#server !== null) Deno.kill(this.#server.pid, signal);
  }
  get serverPid(): number {
    return this.#server?.pid ?? 0;
  }
  mountPid(name: string): number {
    return this.#mounts.get(name)?.daemon.pid ?? 0;
  }
  /** Mounts at `<folder>/mnt/<name>`; returns that folder. */
  async mount(name: string, options: MountOptions = {}): Promise<string> {
    const dir = `${this.folder}/mnt/${name}`;
    await Deno.mkdir(dir, { recursive: true });
    if (this.#over) throw new Error("the house has been taken down");
    const daemon = new Daemon(
      [
        ...this.#config,
        "--server",
        this.url,
        "--log-level",
        "info",
        "mount",
        dir,
        "--cache-dir",
        options.cacheDir ?? `${this.folder}/cache-${name}`,
        ...options.args ?? [],
      ],
      this.#env(),
      this.#remark(name),
      options.prefix,
    );
    this.#mounts.set(name, { daemon, options });
    await daemon.ready(/is mounted at/);
    return dir;
  }
  /** SIGKILL to the mount's process; what is left of the mount is detached, after `then`. */
  async killMount(name: string, signal: Deno.Signal = "SIGKILL", then = () => Promise.resolve()): Promise<number> {
    const code = await this.#mounts.get(name)?.daemon.kill(signal) ?? 0;
    await then();
    await this.#detach(name);
    return code;
  }
  async #detach(name: string): Promise<void> {
    const dir = `${this.folder}/mnt/${name}`;
    for (let i = 0; i < 4 && await isMounted(dir); i++) await run("umount", ["-l", dir]);
  }
  /** A method of the mount's control socket; `seconds` is how long the answer may take. */
  async control(
    name: string,
    method: string,
    params: Record<string, unknown> = {},
    seconds = 25,
  ): Promise<Record<string, unknown>> {
    const cache = this.#mounts.get(name)?.options.cacheDir ?? `${this.folder}/cache-${name}`;
    for (const folder of Deno.readDirSync(`${cache}/mounts`)) {
      const ran = await run(
        "curl",
        [
          "-s",
          "--max-time",
          String(seconds),
          "--unix-socket",
          `${cache}/mounts/${folder.name}/control.sock`,
          "-d",
          JSON.stringify({ jsonrpc: "2.0", id: 1, method, params }),
          "http://mount/",
        ],
        {},
        (seconds + 5) * 1000,
      );
      if (ran.code !== 0) throw new Error(`the control socket of ${name} does not answer: ${ran.err}`);
      const answer = JSON.parse(ran.out) as { result?: Record<string, unknown>; error?: { message: string } };
      if (answer.result === undefined) throw new Error(`${method}: ${answer.error?.message}`);
      return answer.result;
    }
    throw new Error(`the mount ${name} has no folder`);
  }
  /** Everything is at the server. */
  async drain(name: string, timeoutMs = 20_000): Promise<boolean> {
    return (await this.control(name, "drain", { timeoutMs }, timeoutMs / 1000 + 10))["done"] === true;
  }

  async #takeDown(): Promise<void> {
    for (const name of this.#mounts.keys()) await this.#detach(name);
    for (const { daemon } of this.#mounts.values()) await daemon.kill();
    await this.#server?.kill();
  }
  async [Symbol.asyncDispose](): Promise<void> {
    this.#over = true;
    for (const name of this.#mounts.keys()) await this.#detach(name);
    for (const { daemon } of this.#mounts.values()) {
      const late = setTimeout(() => void daemon.kill(), 15_000);
      await daemon.kill("SIGTERM");
      clearTimeout(late);
    }
    const late = setTimeout(() => void this.#server?.kill(), 15_000);
    await this.killServer("SIGTERM");
    clearTimeout(late);
    clearTimeout(this.#watchdog);
    await Deno.remove(this.folder, { recursive: true }).catch(() => {});
  }
}
