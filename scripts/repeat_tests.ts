/** `deno task repeat [MINUTES]`: runs the tests that mount, kill and restart over and over, and stops at the first failure. */
import { run } from "./lib/run.ts";

const ROOT = new URL("..", import.meta.url).pathname.replace(/\/$/, "");
const FOLDERS = ["tests/e2e", "tests/faults", "fuse"];

if (import.meta.main) {
  const minutes = Number(Deno.args[0] ?? 30);
  if (!(minutes > 0)) {
    console.error(`repeat: ${JSON.stringify(Deno.args[0])} is not a number of minutes`);
    Deno.exit(2);
  }
  const end = Date.now() + minutes * 60_000;
  let rounds = 0;
  do {
    const { code } = await run([Deno.execPath(), "run", "-A", "scripts/run_tests.ts", ...FOLDERS], {
      cwd: ROOT,
      inherit: true,
    });
    rounds++;
    if (code !== 0) {
      console.log(`repeat: round ${rounds} failed`);
      Deno.exit(1);
    }
  } while (Date.now() < end);
  console.log(`repeat: ${rounds} rounds without a failure`);
}
