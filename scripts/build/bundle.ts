/** The program as few small scripts: the executable reads and compiles all that a command uses at each of its starts. */
import { run } from "../lib/run.ts";

/** Modules that run on threads of their own: `new URL("./name_worker.ts", import.meta.url)` names them. */
function workers(root: string): string[] {
  const found: string[] = [];
  const visit = (folder: string) => {
    for (const { name, isDirectory } of Deno.readDirSync(`${root}/${folder}`)) {
      if (isDirectory) visit(`${folder}/${name}`);
      else if (name.endsWith("_worker.ts")) found.push(`${folder}/${name}`);
    }
  };
  for (const folder of ["cmd", "core", "backends", "fuse"]) visit(folder);
  return found.sort();
}

/** What the bundle is made of. */
export interface Bundle {
  /** Modules by their names: `main`, and one a worker. */
  readonly entries: Readonly<Record<string, string>>;
  /** Names of the workers' modules as the program's own modules name them, relative to any of them. */
  readonly workers: readonly string[];
}

/**
 * Bundles main.ts and the workers with all their packages into `out` (emptied first), split where modules are loaded late
 * and minified; their source maps, which tell the lines of an error's stack, go to `maps`. Throws when bundling fails.
 */
export async function bundle(root: string, out: string, maps: string): Promise<Bundle> {
  for (const folder of [out, maps]) {
    await Deno.remove(folder, { recursive: true }).catch(() => {});
    Deno.mkdirSync(folder, { recursive: true });
  }
  const threads = workers(root);
  await runBundler(root, ["--code-splitting", "--sourcemap=external", "--outdir", out, "main.ts", ...threads]);
  moveMaps(out, maps);
  giveRequire(out);
  const inBundle = (path: string) => [nameOf(path), `${out}/${path.replace(/\.ts$/, ".js")}`] as const;
  return { entries: Object.fromEntries(["main.ts", ...threads].map(inBundle)), workers: threads.map(nameOf) };
}

/** Bundles one module into one file. */
export async function bundleOne(root: string, module: string, out: string): Promise<void> {
  await runBundler(root, ["--output", out, module]);
}

const nameOf = (path: string): string => path.split("/").at(-1)?.replace(/\.ts$/, "") ?? path;

async function runBundler(root: string, options: readonly string[]): Promise<void> {
  const command = [Deno.execPath(), "bundle", "--quiet", "--frozen", "--minify", ...options];
  const result = await run(command, { cwd: root, timeoutMs: 300_000 });
  if (result.code !== 0) throw new Error(`deno bundle failed: ${result.stderr.trim()}`);
}

function moveMaps(out: string, maps: string): void {
  for (const { name, isDirectory } of Deno.readDirSync(out)) {
    if (isDirectory) moveMaps(`${out}/${name}`, maps);
    else if (name.endsWith(".map")) Deno.renameSync(`${out}/${name}`, `${maps}/${name}`);
  }
}

/**
 * CommonJS packages ask for Node's own modules while they run, which a bundle of ES modules refuses where there is no
 * `require` ("Dynamic require of"). They ask for nothing else: packages are in the bundle.
 */
function giveRequire(out: string): void {
  for (const { name, isFile } of Deno.readDirSync(out)) {
    if (!isFile || !name.endsWith(".js")) continue;
    const script = Deno.readTextFileSync(`${out}/${name}`);
    if (!script.includes("Dynamic require of")) continue;
    Deno.writeTextFileSync(`${out}/${name}`, `var require=(name)=>process.getBuiltinModule(name);${script}`);
  }
}
