/**
 * `deno task demo [--keep]`: the compiled program at work in a temporary folder, from an empty machine to files read back
 * from S3 alone, bit for bit. Asks nothing, cleans up after itself, also on Ctrl-C; --keep leaves all of it running.
 */
import { newestSource } from "./lib/sources.ts";
import { type DemoS3, startDemoS3 } from "./lib/demo_s3.ts";
import { run, type RunResult } from "./lib/run.ts";

const ROOT = new URL("..", import.meta.url).pathname.replace(/\/$/, "");
const BUCKET = "anyfs-demo";
/** What is copied in at least. */
const FILES = 5000;
const BYTES = 210e6;
/** One large file is part of it. */
const LARGE = 64e6;
const COPY_LIMIT_MS = 300_000;

interface Row {
  readonly what: string;
  readonly files: number;
  readonly bytes: number;
  readonly ms: number;
}

class Demo {
  readonly work: string;
  readonly rows: Row[] = [];
  readonly notes: string[] = [];
  readonly env: Record<string, string>;
  readonly #anyfs: string;
  readonly #children: { readonly name: string; readonly child: Deno.ChildProcess }[] = [];
  #mounted = false;
  s3: DemoS3 | null = null;

  constructor(anyfs: string) {
    this.work = Deno.makeTempDirSync({ prefix: "anyfs-demo-" });
    this.#anyfs = anyfs;
    this.env = {
      ANYFS_CONFIG: this.path("config.toml"),
      ANYFS_STATE_DIR: this.path("state"),
      ANYFS_CACHE_DIR: this.path("cache"),
      ANYFS_TOKEN: "",
    };
  }

  path(name: string): string {
    return `${this.work}/${name}`;
  }

  /** One command, printed with what it says. Throws when it fails. */
  async #run(shown: string, command: readonly string[], timeoutMs: number, lines: number): Promise<RunResult> {
    console.log(`$ ${shown}`);
    const result = await run(command, { env: this.env, cwd: this.work, timeoutMs });
    const said = `${result.stdout}${result.stderr}`.trimEnd().split("\n").filter((line) => line !== "");
    for (const line of said.slice(0, lines)) console.log(`  ${line}`);
    if (said.length > lines) console.log(`  ... ${said.length - lines} more lines`);
    if (result.code === 124) throw new Error(`${shown}: not done within ${timeoutMs / 1000} s`);
    if (result.code !== 0) throw new Error(`${shown}: exit code ${result.code}`);
    return result;
  }
  async anyfs(...args: string[]): Promise<string> {
    return (await this.#run(`anyfs ${args.join(" ")}`, [this.#anyfs, ...args], COPY_LIMIT_MS, 15)).stdout;
  }
  /** `script` in the temporary folder; `shown` is what a person would type. */
  async shell(script: string, shown = script): Promise<string> {
    return (await this.#run(shown, ["sh", "-eu", "-c", script], COPY_LIMIT_MS, 12)).stdout;
  }

  /** Starts a command that stays; returns its ready line. */
  async start(...args: string[]): Promise<string> {
    console.log(`$ anyfs ${args.join(" ")} &`);
    const log = this.path(`${args[0]}.log`);
    const child = new Deno.Command("sh", {
      args: ["-c", 'log=$1; shift; exec "$@" 2>"$log"', "sh", log, this.#anyfs, ...args],
      env: this.env,
      cwd: this.work,
      stdin: "null",
      stdout: "piped",
      stderr: "null",
    }).spawn();
    this.#children.push({ name: args[0] ?? "", child });
    const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
    const late = setTimeout(() => child.kill("SIGKILL"), 30_000);
    let line = "";
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      line += part.value;
      if (line.includes("\n")) break;
    }
    clearTimeout(late);
    if (!line.includes("\n")) {
      throw new Error(`anyfs ${args[0]} did not start:\n${await Deno.readTextFile(log).catch(() => "")}`);
    }
    console.log(`  ${line.trimEnd()}`);
    if (args[0] === "mount") this.#mounted = true;
    // Nobody reads on; the pipe must not fill up.
    (async () => {
      while (!(await reader.read()).done);
    })().catch(() => undefined);
    return line;
  }

  async measure<T>(what: string, files: number, bytes: number, work: () => Promise<T>): Promise<T> {
    const begin = performance.now();
    const result = await work();
    this.rows.push({ what, files, bytes, ms: performance.now() - begin });
    return result;
  }

  /** Lets go of everything it left running: for --keep. */
  release(): void {
    for (const { child } of this.#children) child.unref();
  }
  get children(): readonly { name: string; pid: number }[] {
    return this.#children.map(({ name, child }) => ({ name, pid: child.pid }));
  }

  async clean(): Promise<void> {
    if (this.#mounted) {
      await run(["umount", this.path("mnt")], { timeoutMs: 10_000 }).catch(() => null);
    }
    for (const { child } of this.#children.reverse()) {
      try {
        child.kill("SIGTERM");
      } catch {
        continue; // It has ended by itself.
      }
      const late = setTimeout(() => child.kill("SIGKILL"), 20_000);
      await child.status;
      clearTimeout(late);
    }
    if (this.#mounted) await run(["umount", "-l", this.path("mnt")], { timeoutMs: 10_000 }).catch(() => null);
    await this.s3?.stop();
    await Deno.remove(this.work, { recursive: true }).catch((error) => console.log(`can't remove: ${error}`));
  }
}

/** Why there can't be a mount here; null when there can. */
function mountObstacle(): string | null {
  try {
    Deno.openSync("/dev/fuse", { read: true, write: true }).close();
  } catch {
    return "/dev/fuse can't be opened here";
  }
  if (Deno.uid() === 0) return null;
  const found = (Deno.env.get("PATH") ?? "").split(":").some((folder) => {
    try {
      return Deno.statSync(`${folder}/fusermount3`).isFile;
    } catch {
      return false;
    }
  });
  return found ? null : "fusermount3 (package fuse3) is not installed and this is not root";
}

/** A real tree: the program's own npm packages, as often as it takes, the executable, and one file of random bytes. */
async function makeTree(demo: Demo, anyfs: string): Promise<{ files: number; bytes: number }> {
  const tree = demo.path("tree");
  await Deno.mkdir(tree);
  const packages = `${ROOT}/node_modules`;
  const count = await run(["sh", "-c", `find "$1" -type f | wc -l`, "sh", packages]);
  const each = Number(count.stdout);
  if (!(each > 100)) throw new Error(`${packages} is empty: run "deno install" first`);
  for (let copy = 1; (copy - 1) * each < FILES; copy++) {
    await run(["cp", "-rP", packages, `${tree}/packages-${copy}`], { timeoutMs: 60_000 });
  }
  await Deno.copyFile(anyfs, `${tree}/anyfs`);
  const sizes = async () => {
    const said = await run(["sh", "-c", `find "$1" -type f -printf '%s\\n'`, "sh", tree]);
    const all = said.stdout.trim().split("\n").map(Number);
    return { files: all.length, bytes: all.reduce((sum, size) => sum + size, 0) };
  };
  const { bytes } = await sizes();
  const large = await Deno.open(`${tree}/random.bin`, { write: true, create: true });
  const piece = new Uint8Array(65536);
  for (let left = Math.max(LARGE, BYTES - bytes); left > 0; left -= piece.length) {
    await large.write(crypto.getRandomValues(piece));
  }
  large.close();
  return await sizes();
}

/** Fails with the list of what differs. */
const COMPARE = (folder: string) =>
  `(cd ${folder} && find . -type f -print0 | sort -z | xargs -0 sha256sum) > read.sha256 && cmp tree.sha256 read.sha256`;

/** Bytes the tiers hold: name -> bytes. */
async function tierBytes(demo: Demo): Promise<{ tree: number; tiers: Map<string, number> }> {
  const { stdout } = await run([`${ROOT}/dist/anyfs`, "--json", "status"], { env: demo.env, cwd: demo.work });
  const status = JSON.parse(stdout) as { tree: { bytes: number }; tiers: { name: string; bytes: number }[] };
  return { tree: status.tree.bytes, tiers: new Map(status.tiers.map(({ name, bytes }) => [name, bytes])) };
}

async function show(demo: Demo, s3: Promise<DemoS3>, anyfs: string): Promise<void> {
  const title = (text: string) => console.log(`\n# ${text}`);

  title("A real tree, and an S3 server");
  const { files, bytes } = await makeTree(demo, anyfs);
  await demo.shell("(cd tree && find . -type f -print0 | sort -z | xargs -0 sha256sum) > tree.sha256");
  console.log(
    `  ${files} files, ${(bytes / 1e6).toFixed(0)} MB: node_modules of this program more than once, itself, and`,
  );
  console.log("  a file of random bytes");
  const server = demo.s3 = await s3;
  console.log(`  S3: ${server.name} at ${server.endpoint}`);
  demo.env["AWS_ACCESS_KEY_ID"] = server.key;
  demo.env["AWS_SECRET_ACCESS_KEY"] = server.secret;
  await server.makeBucket(BUCKET);

  title("The daemon with three tiers");
  Deno.mkdirSync(demo.path("nas"));
  Deno.writeTextFileSync(
    demo.path("config.toml"),
    `[tiers.local]
path = "${demo.path("hot")}"
[tiers.nas]
path = "${demo.path("nas")}"
[tiers.s3]
bucket = "${BUCKET}"
region = "us-east-1"
endpoint = "${server.endpoint}"
path_style = true
`,
  );
  console.log(Deno.readTextFileSync(demo.path("config.toml")).trimEnd().split("\n").map((l) => `  ${l}`).join("\n"));
  await demo.anyfs("config", "check");
  const ready = await demo.start("serve", "--listen", "127.0.0.1:0");
  const url = /https?:\/\/[^\s"',;]+/.exec(ready)?.[0];
  if (url === undefined) throw new Error(`the ready line names no URL: ${ready.trim()}`);
  demo.env["ANYFS_URL"] = url;

  const obstacle = mountObstacle();
  if (obstacle === null) {
    Deno.mkdirSync(demo.path("mnt"));
    await demo.start("mount", demo.path("mnt"));
    title("A copy into the mount");
    await demo.measure("copied in", files, bytes, () => demo.shell("cp -rP tree mnt/tree"));
  } else {
    console.log(`\n${obstacle}: no mount is shown, the same is done with commands`);
    title("Taken in with migrate and put");
    await demo.measure("taken in", files, bytes, async () => {
      await demo.anyfs("migrate", "tree", "--to", "anyfs:/tree");
      await demo.anyfs("put", "tree.sha256", "/tree.sha256");
      await demo.shell(`'${anyfs}' cat /tree.sha256 | cmp - tree.sha256`, "anyfs cat /tree.sha256 | cmp - tree.sha256");
    });
  }
  title("All of it moves on to the NAS and to S3");
  if (obstacle === null) await demo.shell("sync -f mnt");
  await demo.measure("on all tiers", files, bytes, () => demo.anyfs("wal", "flush", "--timeout", "4m"));
  await demo.anyfs("status");
  await demo.anyfs("ls", "-l", "/tree");
  const before = await tierBytes(demo);
  const stored = before.tiers.get("s3") ?? 0;

  title("Only S3 keeps it: the hot tier, the NAS and the client's cache are emptied");
  await demo.anyfs("evict", "--tier", "local", "--to", "0");
  await demo.anyfs("evict", "--tier", "nas", "--to", "0");
  if (obstacle === null) {
    await demo.anyfs("cache", "clear");
    await demo.anyfs("cache", "stats");
    await forgetPages(demo);
  }
  await demo.anyfs("status");
  await demo.anyfs("ls", "-l", "/tree");

  title("Everything is read back and compared");
  if (obstacle === null) {
    await demo.measure(
      "read back from S3",
      files,
      bytes,
      () => demo.shell(COMPARE("mnt/tree"), "(cd mnt/tree && sha256sum all files) and compare"),
    );
    await demo.measure(
      "read again, cached",
      files,
      bytes,
      () => demo.shell(COMPARE("mnt/tree"), "(cd mnt/tree && sha256sum all files) and compare"),
    );
  } else {
    await demo.measure("read back from S3", files, bytes, async () => {
      await demo.anyfs("get", "-r", "/tree", "back");
      await demo.shell(COMPARE("back"), "(cd back && sha256sum all files) and compare");
    });
  }
  demo.notes.push(`${files} of ${files} SHA-256 digests are equal.`);
  demo.notes.push(
    `Deduplicated and compressed: ${(bytes / 1e6).toFixed(0)} MB of files take ${(stored / 1e6).toFixed(0)} MB on S3 ` +
      `(${(100 * (1 - stored / bytes)).toFixed(0)} % less).`,
  );
}

/** The kernel must not answer from its memory: root can tell it to forget, others mount anew. */
async function forgetPages(demo: Demo): Promise<void> {
  try {
    Deno.writeTextFileSync("/proc/sys/vm/drop_caches", "3");
    console.log("$ echo 3 > /proc/sys/vm/drop_caches");
  } catch {
    await demo.anyfs("unmount", demo.path("mnt"));
    await demo.start("mount", demo.path("mnt"));
  }
}

function table(rows: readonly Row[]): string {
  const cells = [
    ["", "files", "MB", "seconds", "MB/s"],
    ...rows.map(({ what, files, bytes, ms }) => [
      what,
      String(files),
      (bytes / 1e6).toFixed(0),
      (ms / 1000).toFixed(1),
      (bytes / 1e3 / ms).toFixed(0),
    ]),
  ];
  const widths = [0, 1, 2, 3, 4].map((i) => Math.max(...cells.map((row) => row[i]?.length ?? 0)));
  return cells.map((row) =>
    row.map((cell, i) => i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0)).join("  ")
  ).join("\n");
}

async function build(anyfs: string): Promise<boolean> {
  const built = await Deno.stat(anyfs).catch(() => null);
  if (built !== null && (built.mtime?.getTime() ?? 0) > newestSource(ROOT)) return true;
  console.log("building dist/anyfs");
  return (await run([Deno.execPath(), "run", "-A", "scripts/build.ts"], { cwd: ROOT, inherit: true })).code === 0;
}

async function main(): Promise<number> {
  const keep = Deno.args.includes("--keep");
  const unknown = Deno.args.filter((arg) => arg !== "--keep");
  if (unknown.length > 0) {
    console.error(`demo: unknown argument ${unknown[0]}; there is only --keep`);
    return 2;
  }
  const begin = performance.now();
  const anyfs = `${ROOT}/dist/anyfs`;
  const demo = new Demo(anyfs);
  // The gateway takes its time: it starts while the program is built.
  const s3 = startDemoS3(ROOT, demo.path("s3"));
  s3.then((server) => demo.s3 = server, () => undefined);
  let cleaning: Promise<void> | null = null;
  const clean = () => cleaning ??= s3.catch(() => undefined).then(() => demo.clean());
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    Deno.addSignalListener(signal, () => {
      console.log("\ninterrupted: cleaning up");
      void clean().then(() => Deno.exit(130));
    });
  }
  try {
    if (!await build(anyfs)) return 1;
    await show(demo, s3, anyfs);
    console.log(`\n${table(demo.rows)}\n`);
    for (const note of demo.notes) console.log(note);
    console.log(`All of it took ${((performance.now() - begin) / 1000).toFixed(0)} s.`);
  } catch (error) {
    if (cleaning === null) console.log(`\nfailed: ${error instanceof Error ? error.message : error}`);
    for (const log of ["serve.log", "mount.log"]) {
      const said = await Deno.readTextFile(demo.path(log)).catch(() => "");
      if (said !== "" && cleaning === null) console.log(`\n${log}:\n${said.slice(-3000)}`);
    }
    await clean();
    return 1;
  }
  if (!keep) {
    await clean();
    console.log("Nothing was left behind.");
    return 0;
  }
  demo.release();
  const settings = Object.entries(demo.env).filter(([, value]) => value !== "")
    .map(([name, value]) => `export ${name}=${value}`).join("\n  ");
  console.log(`
It goes on running. In another shell:
  ${settings}
  ${anyfs} status
  ls -l ${demo.path("mnt")}
To end it:
  ${anyfs} unmount ${demo.path("mnt")}; kill ${demo.children.map(({ pid }) => pid).join(" ")}
  ${demo.s3?.stopCommand ?? "true"}; rm -r ${demo.work}`);
  return 0;
}

if (import.meta.main) Deno.exit(await main());
