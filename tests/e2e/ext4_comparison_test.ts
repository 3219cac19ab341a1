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
const REGRESSIONS: Readonly<Record<string, Operation[]>> = {
  "a clone onto a file whose last bytes are still on their way is not taken for a conflict": [
    ["open", 0, "a", "c", 0o644],
    ["pwrite", 0, 0, 1, 300_000],
    ["fsync", 0],
    ["open", 1, "b", "c", 0o644],
    ["copy", 0, 1, 0, 0, 1_000_000],
    ["pwrite", 0, 5, 2, 5000],
    ["pwrite", 1, 5, 3, 5000],
    ["fsync", 1],
    ["open", 1, "b", "t", 0o644],
    ["copy", 0, 1, 0, 0, 1_000_000],
    ["pwrite", 1, 9, 2, 100],
    ["pread", 1, 0, 300_000],
  ],
  "a fifo that is held has attributes after its name went": [
    ["mkfifo", "a", 0o644],
    ["open", 0, "a", "r", 0o644],
    ["unlink", "a"],
    ["fstat", 0],
  ],
  "a directory that is held is empty and has no links": [
    ["mkdir", "d", 0o755],
    ["open", 0, "d", "d", 0],
    ["rmdir", "d"],
    ["fstat", 0],
    ["fchmod", 0, 0o700],
    ["fstat", 0],
  ],
  "the name of an attribute is checked before the file is looked at": [
    ["open", 0, "d", "t", 0o644],
    ["getxattr", "d", "system.x"],
    ["getxattr", "d", "user."],
  ],
  "chown clears setuid": [
    ["open", 0, "a", "c", 0o6755],
    ["chown", "a", -1, -1],
    ["fchmod", 0, 0o6755],
    ["chown", "a", 65534, -1],
    ["fstat", 0],
  ],
  "a whiteout stays where a file was": [["mkdir", "d", 0o644], ["rename", "d", "a", 4], ["lstat", "d"]],
};

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
