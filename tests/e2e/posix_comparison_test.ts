/**
 * The cases of tests/posix, each a few system calls, on an ext4 folder and on a mount: outcomes and effects are the same,
 * but for what tests/posix/known.py lists. `deno task posix -- --only PREFIX --verbose` runs some of them and says more.
 */
import assert from "node:assert/strict";
import { mountObstacle, run } from "../support/mount_child.ts";
import { MountHouse } from "./mount_house.ts";

const ROOT = new URL("../..", import.meta.url).pathname.replace(/\/$/, "");
const LIMIT_SECONDS = Deno.args.includes("--settle") ? 1800 : 300;

/** Runs compare.py; killed after `seconds`. */
async function compare(args: readonly string[], seconds: number): Promise<{ code: number; out: string }> {
  const script = `${ROOT}/tests/posix/compare.py`;
  // Without -B it would leave compiled files beside its own.
  const command = ["-s", "KILL", String(seconds), "python3", "-B", script, ...args];
  const { code, out, err } = await run("timeout", command, {}, (seconds + 10) * 1000);
  return { code, out: `${out}${err}`.trim() };
}

/** A folder in which folders can be made to compare a mount with, or why there is none. */
async function referencePlace(): Promise<{ parent: string } | { obstacle: string }> {
  const obstacles: string[] = [];
  for (const parent of [Deno.env.get("TMPDIR") ?? "/tmp", ROOT]) {
    const { code, out } = await compare(["--obstacle", "--reference", parent], 20);
    if (code === 0) return { parent };
    obstacles.push(out);
  }
  return { obstacle: [...new Set(obstacles)].join("; ") };
}

const noMount = mountObstacle();
const place = noMount === null ? await referencePlace() : { obstacle: noMount };

function test(name: string, body: (reference: string) => Promise<void>): void {
  Deno.test({
    name: "obstacle" in place ? `${name} (skipped: ${place.obstacle})` : name,
    ignore: "obstacle" in place,
    fn: async () => {
      assert.ok("parent" in place);
      const reference = await Deno.makeTempDir({ dir: place.parent, prefix: "anyfs-posix-" });
      try {
        await body(reference);
      } finally {
        await Deno.remove(reference, { recursive: true });
      }
    },
  });
}

test("what is not as on ext4 is noticed: a tmpfs zeroes no ranges", async (reference) => {
  const folder = await Deno.makeTempDir({ dir: "/dev/shm", prefix: "anyfs-posix-" });
  try {
    const one = ["--only", "fallocate/4096/zero/0+4096"];
    const { code, out } = await compare(["--reference", reference, "--mount", folder, ...one], 60);
    assert.equal(code, 1, out);
    assert.match(out, /fallocate\/4096\/zero\/0\+4096: fallocate\s+reference 0\s+mount +ENOTSUP/);
    assert.match(out, /1 cases, 3 steps: 4 differences, 0 broken/);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

test("system calls on a mount do what they do on ext4", async (reference) => {
  await using house = new MountHouse((LIMIT_SECONDS + 60) * 1000);
  await house.serve();
  const dir = await house.mount("m");
  // The cases try calls as other users too.
  for (const folder of [house.folder, `${house.folder}/mnt`, reference]) await Deno.chmod(folder, 0o755);
  const { code, out } = await compare(["--reference", reference, "--mount", dir, ...Deno.args], LIMIT_SECONDS);
  assert.equal(code, 0, `${out}\n\nThe mount and the server said:\n${house.log}`);
  console.log(Deno.args.length > 0 ? out : out.split("\n").at(-1));
  assert.doesNotMatch(house.log, /conflict|internal|can't/, house.log);
});
