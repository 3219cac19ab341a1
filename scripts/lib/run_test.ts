/** What the test runner rests on: counting, and finding what tests leave behind. */
import assert from "node:assert/strict";
import { countJunit } from "./junit.ts";
import { run } from "./run.ts";
import { sweep } from "./sweep.ts";

Deno.test("the report of deno test is counted by tests and steps", async () => {
  const folder = await Deno.makeTempDir();
  await Deno.writeTextFile(
    `${folder}/x_test.ts`,
    `Deno.test("parent", async (t) => {
       await t.step("a < b", () => {});
       await t.step("c", () => { throw new Error("planted </failure>"); });
       await t.step({ name: "d", ignore: true, fn() {} });
     });
     Deno.test({ name: "ignored", ignore: true, fn() {} });
     Deno.test("fails", () => { throw new Error("planted"); });
     Deno.test("passes", () => {});`,
  );
  const { code } = await run([
    Deno.execPath(),
    "test",
    "-A",
    "--no-check",
    "--no-config",
    `--junit-path=${folder}/x.xml`,
    `${folder}/x_test.ts`,
  ]);
  assert.equal(code, 1);
  assert.deepEqual(countJunit(await Deno.readTextFile(`${folder}/x.xml`)), { passed: 2, failed: 2, skipped: 2 });
  await Deno.remove(folder, { recursive: true });
});

Deno.test("a process that carries the mark is found, named and ended; others are left alone", async () => {
  const folder = await Deno.makeTempDir();
  const mark = crypto.randomUUID();
  const sleep = (env: Record<string, string>) =>
    new Deno.Command("sleep", { args: ["100"], env, stdin: "null" }).spawn();
  const left = sleep({ SWEEP_TEST: mark });
  const other = sleep({ SWEEP_TEST: "another" });
  const found = await sweep(folder, `SWEEP_TEST=${mark}`);
  assert.equal(found.length, 1);
  assert.match(found[0] ?? "", new RegExp(`^process ${left.pid}: .*sleep 100$`));
  assert.equal((await left.status).signal, "SIGKILL");
  other.kill("SIGTERM");
  assert.equal((await other.status).signal, "SIGTERM");
  assert.deepEqual(await sweep(folder, `SWEEP_TEST=${mark}`), []);
  await Deno.remove(folder, { recursive: true });
});

Deno.test({
  name: "a mount below the folder is found and taken away",
  ignore: Deno.uid() !== 0 ||
    (await run(["sh", "-c", "d=$(mktemp -d); mount -t tmpfs none $d && umount $d; rmdir $d"])).code !== 0,
  async fn() {
    const folder = await Deno.makeTempDir();
    await Deno.mkdir(`${folder}/a b`);
    assert.equal((await run(["mount", "-t", "tmpfs", "none", `${folder}/a b`])).code, 0);
    assert.deepEqual(await sweep(folder, "SWEEP_TEST=none"), [`mount ${folder}/a b`]);
    assert.deepEqual(await sweep(folder, "SWEEP_TEST=none"), []);
    await Deno.remove(folder, { recursive: true });
  },
});

Deno.test("a command that takes too long is ended and says so", async () => {
  const { code } = await run(["sleep", "100"], { timeoutMs: 50 });
  assert.equal(code, 124);
});
