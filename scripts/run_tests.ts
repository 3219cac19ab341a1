/**
 * `deno task test`: runs every test, with what the tests share (the compiled program, a real S3 server) made once, and
 * ends with what failed, each with the beginning of its error, and one line, `N passed, N failed, N skipped`. Options:
 * `--unit` (neither program nor S3 server, no mounts), and paths that limit the run. Mounts, processes and files the tests leave behind count as a failure.
 */
import { countJunit, type Counts, type Failure, failuresInJunit } from "./lib/junit.ts";
import { run } from "./lib/run.ts";
import { newestSource } from "./lib/sources.ts";
import { sweep } from "./lib/sweep.ts";
import { startS3 } from "./lib/s3_server.ts";

const ROOT = new URL("..", import.meta.url).pathname.replace(/\/$/, "");
/** No run may take longer, whatever hangs. */
const LIMIT_MS = Number(Deno.env.get("ANYFS_TEST_LIMIT_SECS") ?? 780) * 1000;
/** Tests in these folders mount or start daemons: one file at a time, after the others. */
const SERIAL = /^(tests\/(e2e|faults)|fuse)\//;
const MARK = "ANYFS_TEST_RUN";
/** Lines of one error that are told again at the end; all of it stands where the test ran. */
const ERROR_LINES = 12;

function testFiles(paths: readonly string[]): string[] {
  const found: string[] = [];
  const visit = (path: string) => {
    const info = Deno.statSync(`${ROOT}/${path}`);
    if (info.isFile) {
      if (path.endsWith("_test.ts")) found.push(path);
      return;
    }
    for (const entry of Deno.readDirSync(`${ROOT}/${path}`)) {
      if (entry.name.startsWith(".") || entry.name === "node_modules" || entry.name === "dist") continue;
      const inner = path === "." ? entry.name : `${path}/${entry.name}`;
      if (entry.isDirectory || entry.name.endsWith("_test.ts")) visit(inner);
    }
  };
  for (const path of paths.length === 0 ? ["."] : paths) visit(path.replace(/\/$/, ""));
  return [...new Set(found)].sort();
}

/** Builds dist/anyfs when a source is newer. False when it can't be built: tests that need it then skip. */
async function buildWhenStale(): Promise<boolean> {
  const binary = `${ROOT}/dist/anyfs`;
  const built = await Deno.stat(binary).catch(() => null);
  if (built !== null && (built.mtime?.getTime() ?? 0) > newestSource(ROOT)) return true;
  console.log("building dist/anyfs");
  const result = await run([Deno.execPath(), "run", "-A", "scripts/build.ts"], { cwd: ROOT, timeoutMs: 400_000 });
  if (result.code === 0) return true;
  console.log(result.stderr.trim());
  return false;
}

interface Group {
  readonly title: string;
  readonly files: readonly string[];
  readonly parallel: boolean;
}

interface GroupResult {
  readonly counts: Counts;
  readonly failures: readonly Failure[];
}

async function runGroup(
  group: Group,
  env: Record<string, string>,
  work: string,
  left: () => number,
): Promise<GroupResult> {
  if (group.files.length === 0) return { counts: { passed: 0, failed: 0, skipped: 0 }, failures: [] };
  console.log(`\n== ${group.title}: ${group.files.length} files`);
  const report = `${work}/${group.parallel ? "parallel" : "serial"}.xml`;
  const result = await run([
    Deno.execPath(),
    "test",
    "-A",
    "--no-check",
    "--quiet",
    `--junit-path=${report}`,
    ...(group.parallel ? ["--parallel"] : []),
    ...group.files,
  ], { cwd: ROOT, env, inherit: true, timeoutMs: left() });
  const xml = await Deno.readTextFile(report).catch(() => null);
  const counts = xml === null ? { passed: 0, failed: 0, skipped: 0 } : countJunit(xml);
  const failures = xml === null ? [] : failuresInJunit(xml);
  if (result.code === 0 || counts.failed > 0) return { counts, failures };
  const error = result.code === 124 ? "the time limit ended it" : `deno test ended with ${result.code}`;
  return { counts: { ...counts, failed: 1 }, failures: [...failures, { test: group.title, error }] };
}

async function main(args: readonly string[]): Promise<number> {
  const unit = args.includes("--unit");
  const files = testFiles(args.filter((arg) => !arg.startsWith("--")));
  const end = Date.now() + LIMIT_MS;
  const left = () => Math.max(1000, end - Date.now());
  const work = Deno.makeTempDirSync({ prefix: "anyfs-test-" });
  // Tests that run as another user must be able to reach what they make in it.
  Deno.chmodSync(work, 0o711);
  const mark = crypto.randomUUID();
  const env: Record<string, string> = { [MARK]: mark, TMPDIR: work, DENO_JOBS: String(navigator.hardwareConcurrency) };
  const total = { passed: 0, failed: 0, skipped: 0 };
  const failures: Failure[] = [];
  const add = (counts: Counts) => {
    total.passed += counts.passed;
    total.failed += counts.failed;
    total.skipped += counts.skipped;
  };
  const fail = (test: string, error: string) => {
    add({ passed: 0, failed: 1, skipped: 0 });
    failures.push({ test, error });
  };
  const runAll = async (group: Group) => {
    const result = await runGroup(group, env, work, left);
    add(result.counts);
    failures.push(...result.failures);
  };
  const serial = files.filter((file) => SERIAL.test(file));
  if (!unit) {
    if (await buildWhenStale()) env["ANYFS_BIN"] = `${ROOT}/dist/anyfs`;
    else fail("dist/anyfs", "can't be built");
  }
  const s3 = unit ? null : await startS3(ROOT, work, { [MARK]: mark });
  Object.assign(env, s3?.env ?? {});
  try {
    const parallel = files.filter((file) => !SERIAL.test(file));
    await runAll({ title: "unit and conformance", files: parallel, parallel: true });
    if (!unit) await runAll({ title: "mounts and daemons", files: serial, parallel: false });
    else if (serial.length > 0) console.log(`\nnot run with --unit: ${serial.length} files that mount`);
  } finally {
    await s3?.stop();
  }
  const leftovers = await sweep(work, `${MARK}=${mark}`);
  if (leftovers.length > 0) fail("left behind by the tests", leftovers.join("\n"));
  await Deno.remove(work, { recursive: true }).catch((error) => console.log(`can't remove ${work}: ${error.message}`));
  for (const { test, error } of failures) {
    console.log(`FAILED ${test}\n  ${error.split("\n").slice(0, ERROR_LINES).join("\n  ")}`);
  }
  console.log(`${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`);
  return total.failed === 0 ? 0 : 1;
}

if (import.meta.main) Deno.exit(await main(Deno.args));
