/**
 * The same operations on an ext4 folder and on a mount: results, errnos, contents, attributes and listings are the same.
 * `deno task compare -- --runs N --seed S` runs longer; a sequence that failed is kept in REGRESSIONS under a name.
 */
import assert from "node:assert/strict";
import fc from "fast-check";
import { mountObstacle, run } from "../support/mount_child.ts";
import { differences, type Operation, Operator, sequences } from "../support/posix_sequences.ts";
import { MountHouse } from "./mount_house.ts";

function option(name: string, otherwise: number): number {
  const at = Deno.args.indexOf(`--${name}`);
  return at < 0 ? otherwise : Number(Deno.args[at + 1]);
}
const RUNS = option("runs", 60);
const FSX = option("fsx", 600);
const LENGTH = option("length", 40);
const seed = option("seed", -1);

/** Sequences that found a difference, by what was wrong. */
const REGRESSIONS: Readonly<Record<string, Operation[]>> = {};

const obstacle = mountObstacle() ?? (Deno.uid() === 0 ? null : "needs root: operations are tried as other users");

Deno.test({
  name: obstacle === null
    ? "a mount answers every sequence of operations as ext4 does"
    : `a mount answers every sequence of operations as ext4 does (skipped: ${obstacle})`,
  ignore: obstacle !== null,
  fn: async (t) => {
    await using house = new MountHouse((120 + RUNS) * 1000);
    await house.serve();
    const dir = await house.mount("m");
    const local = `${house.folder}/ext4`;
    await Deno.mkdir(local);
    for (const folder of [house.folder, `${house.folder}/mnt`, local]) await Deno.chmod(folder, 0o755);
    await using ext4 = new Operator(local);
    await using mount = new Operator(dir);
    const compare = async (ops: Operation[]) => {
      const [here, there] = await Promise.all([ext4.run(ops), mount.run(ops)]);
      return differences(ops, here, there);
    };

    for (const [name, ops] of Object.entries(REGRESSIONS)) {
      await t.step(name, async () => assert.deepEqual(await compare(ops), []));
    }
    await t.step(`${RUNS} random sequences`, async () => {
      await fc.assert(
        fc.asyncProperty(sequences(LENGTH), async (ops) => assert.deepEqual(await compare(ops), [])),
        { numRuns: RUNS, ...(seed < 0 ? {} : { seed }) },
      );
    });
    await t.step("fsx: random operations on one file, against a copy of it in memory", async () => {
      const script = new URL("../support/fsx.py", import.meta.url).pathname;
      for (const n of [1, 2]) {
        const ran = await run("timeout", ["-s", "KILL", "300", "python3", script, dir, `${n}`, `${FSX}`]);
        assert.equal(ran.code, 0, `${ran.out}${ran.err}`);
      }
    });
    assert.doesNotMatch(house.log, /conflict|internal|can't/, house.log);
  },
});
