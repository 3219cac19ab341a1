/**
 * `deno task demo`: the compiled program at work in a temporary folder, start to end: daemon, files, mount, restart. Prints
 * each command and what it says. What isn't built yet is named as such; anything else that fails ends it with 1.
 */
import { newestSource } from "./lib/sources.ts";
import { run } from "./lib/run.ts";

const ROOT = new URL("..", import.meta.url).pathname.replace(/\/$/, "");
const ANYFS = `${ROOT}/dist/anyfs`;
const NOT_BUILT = /not built yet/;

class Demo {
  readonly #work = Deno.makeTempDirSync({ prefix: "anyfs-demo-" });
  readonly #children: Deno.ChildProcess[] = [];
  readonly #mounts: string[] = [];
  readonly missing: string[] = [];
  readonly failed: string[] = [];
  url = "";

  readonly path = (name: string) => `${this.#work}/${name}`;

  get env(): Record<string, string> {
    return {
      ANYFS_STATE_DIR: this.path("state"),
      ANYFS_CACHE_DIR: this.path("cache"),
      ANYFS_CONFIG: this.path("config.toml"),
      ...(this.url === "" ? {} : { ANYFS_URL: this.url }),
    };
  }

  say(title: string): void {
    console.log(`\n# ${title}`);
  }

  /** True when it worked. */
  #judge(name: string, code: number, stderr: string): boolean {
    if (code === 0) return true;
    if (NOT_BUILT.test(stderr)) this.missing.push(name);
    else this.failed.push(`${name} (exit code ${code})`);
    return false;
  }

  async anyfs(...args: string[]): Promise<string | null> {
    console.log(`$ anyfs ${args.join(" ")}`);
    const { code, stdout, stderr } = await run([ANYFS, ...args], { env: this.env, cwd: this.#work, timeoutMs: 60_000 });
    const said = `${stdout}${stderr}`.trimEnd();
    if (said !== "") console.log(said.split("\n").map((line) => `  ${line}`).join("\n"));
    return this.#judge(args[0] ?? "", code, stderr) ? stdout : null;
  }

  /** Starts a command that stays; resolves with its first line, or null when it ended without one. */
  async start(...args: string[]): Promise<string | null> {
    console.log(`$ anyfs ${args.join(" ")} &`);
    const child = new Deno.Command(ANYFS, {
      args,
      env: this.env,
      cwd: this.#work,
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    const said = new Response(child.stderr).text();
    const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
    const late = setTimeout(() => child.kill("SIGKILL"), 30_000);
    let line = "";
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      line += part.value;
      if (line.includes("\n")) break;
    }
    clearTimeout(late);
    if (line.includes("\n")) {
      console.log(`  ${line.trimEnd()}`);
      this.#children.push(child);
      if (args[0] === "mount") this.#mounts.push(args[1] ?? "");
      // Nobody reads on; the pipe must not fill up.
      (async () => {
        while (!(await reader.read()).done);
      })().catch(() => undefined);
      return line;
    }
    const { code } = await child.status;
    const stderr = await said;
    console.log(`  ${stderr.trimEnd()}`);
    this.#judge(args[0] ?? "", code === 0 ? 1 : code, stderr);
    return null;
  }

  async shell(command: string): Promise<void> {
    console.log(`$ ${command}`);
    const { code, stdout, stderr } = await run(["sh", "-c", command], {
      env: this.env,
      cwd: this.#work,
      timeoutMs: 60_000,
    });
    const said = `${stdout}${stderr}`.trimEnd();
    if (said !== "") console.log(said.split("\n").map((line) => `  ${line}`).join("\n"));
    this.#judge(command, code, stderr);
  }

  /** SIGTERM; true when it ended with 0 in time. */
  async stop(): Promise<void> {
    const child = this.#children.pop();
    if (child === undefined) return;
    try {
      child.kill("SIGTERM");
    } catch {
      // It has ended by itself, as a mount does that is unmounted.
    }
    const late = setTimeout(() => child.kill("SIGKILL"), 15_000);
    const { code } = await child.status;
    clearTimeout(late);
    if (code !== 0) this.failed.push(`a process ended with ${code} when it was stopped`);
  }

  async clean(): Promise<void> {
    for (const point of this.#mounts) await run(["umount", "-l", point], { timeoutMs: 10_000 }).catch(() => null);
    while (this.#children.length > 0) await this.stop();
    await Deno.remove(this.#work, { recursive: true }).catch((error) =>
      console.log(`can't remove ${this.#work}: ${error}`)
    );
  }
}

async function serve(demo: Demo): Promise<boolean> {
  const ready = await demo.start("serve", "--listen", "127.0.0.1:0");
  if (ready === null) return false;
  const url = /https?:\/\/[^\s"',;]+/.exec(ready)?.[0];
  if (url === undefined) {
    demo.failed.push(`the ready line names no URL: ${ready.trim()}`);
    return false;
  }
  demo.url = url;
  return true;
}

function canMount(): boolean {
  try {
    Deno.openSync("/dev/fuse", { read: true, write: true }).close();
    return true;
  } catch {
    return false;
  }
}

async function show(demo: Demo): Promise<void> {
  demo.say("The program");
  await demo.anyfs("--version");
  await demo.anyfs("config", "init", demo.path("config.toml"));
  await demo.anyfs("config", "check");

  demo.say("The daemon");
  if (!await serve(demo)) return;

  demo.say("Files without a mount");
  await demo.anyfs("mkdir", "-p", "/photos/2024");
  Deno.writeTextFileSync(demo.path("notes.txt"), "Kept on three tiers.\n");
  await demo.anyfs("put", "notes.txt", "/notes.txt");
  await demo.anyfs("ls", "-l", "/");
  await demo.anyfs("cat", "/notes.txt");
  await demo.anyfs("stat", "/notes.txt");
  await demo.shell(`wget -qO- "$ANYFS_URL/v1/ls/" || curl -sf "$ANYFS_URL/v1/ls/"`);

  demo.say("A mount");
  if (!canMount()) console.log("  /dev/fuse can't be opened here: no mount is shown");
  else {
    Deno.mkdirSync(demo.path("mnt"));
    if (await demo.start("mount", demo.path("mnt")) !== null) {
      await demo.shell(
        "head -c 5000000 /dev/urandom > data.bin && cp data.bin mnt/photos/2024/ && ls -l mnt/photos/2024",
      );
      await demo.shell("cmp data.bin mnt/photos/2024/data.bin && echo the same bytes");
      await demo.anyfs("unmount", demo.path("mnt"));
      await demo.stop();
    }
  }

  demo.say("Looking after it");
  await demo.anyfs("status");
  await demo.anyfs("wal", "ls");
  await demo.anyfs("evict", "--dry-run");

  demo.say("A restart loses nothing");
  await demo.stop();
  demo.url = "";
  if (await serve(demo)) await demo.anyfs("cat", "/notes.txt");
}

async function main(): Promise<number> {
  const built = await Deno.stat(ANYFS).catch(() => null);
  if (built === null || (built.mtime?.getTime() ?? 0) <= newestSource(ROOT)) {
    console.log("building dist/anyfs");
    const { code } = await run([Deno.execPath(), "run", "-A", "scripts/build.ts"], { cwd: ROOT, inherit: true });
    if (code !== 0) return 1;
  }
  const demo = new Demo();
  try {
    await show(demo);
  } finally {
    await demo.clean();
  }
  if (demo.missing.length > 0) console.log(`\nnot built yet: ${[...new Set(demo.missing)].join(", ")}`);
  for (const what of demo.failed) console.log(`failed: ${what}`);
  console.log(demo.failed.length === 0 ? "\nThat is all; nothing was left behind." : "\nThe demonstration failed.");
  return demo.failed.length === 0 ? 0 : 1;
}

if (import.meta.main) Deno.exit(await main());
