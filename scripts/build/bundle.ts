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

/**
 * Bundles main.ts and the workers with all their packages into `out` (emptied first), split where modules are loaded late
 * and minified; their source maps, which tell the lines of an error's stack, go to `maps`. Returns what `deno compile` has
 * to be told to include: paths in `out`, whose `main.js` is the entry. Throws when bundling fails.
 */
export async function bundle(root: string, out: string, maps: string): Promise<string[]> {
  for (const folder of [out, maps]) {
    await Deno.remove(folder, { recursive: true }).catch(() => {});
    Deno.mkdirSync(folder, { recursive: true });
  }
  const threads = workers(root);
  const result = await run([
    Deno.execPath(),
    ...["bundle", "--quiet", "--frozen", "--minify", "--code-splitting", "--sourcemap=external"],
    ...["--outdir", out, "main.ts", ...threads],
  ], { cwd: root, timeoutMs: 300_000 });
  if (result.code !== 0) throw new Error(`deno bundle failed: ${result.stderr.trim()}`);
  moveMaps(out, maps);
  giveRequire(out);
  // What starts a thread names it beside itself, and every script but the threads' own lies in `out`.
  return threads.map((path) => {
    const name = path.split("/").at(-1) ?? path;
    Deno.writeTextFileSync(`${out}/${name}`, `import "./${path.replace(/\.ts$/, ".js")}";\n`);
    return name;
  });
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
