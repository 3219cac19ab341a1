/** `deno task bench [NAME...]`: runs the measurements in tests/bench, each in a process of its own. */
import { run } from "./lib/run.ts";

const ROOT = new URL("..", import.meta.url).pathname.replace(/\/$/, "");

function programs(wanted: readonly string[]): string[] {
  return [...Deno.readDirSync(`${ROOT}/tests/bench`)]
    .filter(({ name }) => name.endsWith(".ts") && !name.endsWith("_test.ts"))
    .filter(({ name }) => /^if \(import\.meta\.main\)/m.test(Deno.readTextFileSync(`${ROOT}/tests/bench/${name}`)))
    .map(({ name }) => name.replace(/\.ts$/, ""))
    .filter((name) => wanted.length === 0 || wanted.includes(name))
    .sort();
}

if (import.meta.main) {
  const found = programs(Deno.args);
  if (found.length === 0) {
    console.error(`bench: nothing to run; there are: ${programs([]).join(", ") || "none"}`);
    Deno.exit(1);
  }
  let failed = 0;
  for (const name of found) {
    console.log(`\n== ${name}`);
    const { code } = await run([Deno.execPath(), "run", "-A", `tests/bench/${name}.ts`], { cwd: ROOT, inherit: true });
    if (code !== 0) failed++;
  }
  Deno.exit(failed === 0 ? 0 : 1);
}
