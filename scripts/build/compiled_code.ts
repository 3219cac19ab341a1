/**
 * Has V8 compile the program's scripts by using the program: an executable with the recorder as its loader is run by
 * `use_program.sh` and writes what was compiled meanwhile: all functions that were called.
 */
import { run } from "../lib/run.ts";

const USE = new URL("./use_program.sh", import.meta.url).pathname;

/** What came of it. */
export interface Recorded {
  /** Bytes of compiled code. */
  readonly bytes: number;
  /** What could not be done here (no FUSE, no network), so that starts of it take longer; empty when all went well. */
  readonly remarks: string;
}

/**
 * Uses the recording executable `program` and writes `NAME.code` of every script into `out`. Throws when V8 would not take
 * the code at the next start.
 */
export async function recordCode(program: string, out: string): Promise<Recorded> {
  const folder = await Deno.makeTempDir({ prefix: "anyfs-build-" });
  try {
    for (const name of ["files", "code"]) Deno.mkdirSync(`${folder}/${name}`);
    const used = await run([USE, program, `${folder}/files`, `${folder}/code`], { timeoutMs: 90_000 });
    const bytes = keepLargest(`${folder}/code`, out);
    if (bytes > 0) await checkTaken(program, out, `${folder}/check`);
    return { bytes, remarks: used.stderr.trim() };
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Of each script the code of the run that used the most of it. Returns their bytes. */
function keepLargest(runs: string, out: string): number {
  const sizes = new Map<string, number>();
  for (const { name: folder } of Deno.readDirSync(runs)) {
    for (const { name } of Deno.readDirSync(`${runs}/${folder}`)) {
      const path = `${runs}/${folder}/${name}`;
      const { size } = Deno.statSync(path);
      if (!name.endsWith(".code") || size <= (sizes.get(name) ?? 0)) continue;
      sizes.set(name, size);
      Deno.copyFileSync(path, `${out}/${name}`);
    }
  }
  return [...sizes.values()].reduce((sum, size) => sum + size, 0);
}

/** Starts the program with the code. */
async function checkTaken(program: string, code: string, folder: string): Promise<void> {
  const env = { ANYFS_CODE_IN: code, ANYFS_CODE_OUT: folder };
  const checked = await run([program, "mount", "--help"], { env, timeoutMs: 20_000 });
  if (checked.code !== 0) throw new Error(`the program does not start with compiled code: ${checked.stderr.trim()}`);
  const rejected: unknown = JSON.parse(Deno.readTextFileSync(`${folder}/rejected.json`));
  if (!Array.isArray(rejected) || rejected.length > 0) {
    throw new Error(
      `V8 would not take the compiled code of ${rejected}: does it depend on more than version and flags?`,
    );
  }
}
