/** What the tests of faults share: a house with a seen and an unseen folder, every system call under a fault, and what must hold. */
import assert from "node:assert/strict";
import type { MountHouse, MountOptions } from "../e2e/mount_house.ts";
import { mountObstacle, run } from "../support/mount_child.ts";

const EVERY_CALL = new URL("./every_call.py", import.meta.url).pathname;

const obstacle = mountObstacle();

/** A test that needs a real mount. */
export function faultTest(
  name: string,
  body: () => Promise<void>,
  options: { sanitizeResources?: boolean; sanitizeOps?: boolean } = {},
): void {
  Deno.test({
    ...options,
    name: obstacle === null ? name : `${name} (skipped: ${obstacle})`,
    ignore: obstacle !== null,
    fn: body,
  });
}
/** The mount's connection mode. */
export async function mode(house: MountHouse, name: string): Promise<unknown> {
  return (await house.control(name, "status"))["mode"];
}

/** How one system call ended. */
export interface Ended {
  /** Milliseconds; null: it had not ended. */
  readonly ms: number | null;
  /** Name of the errno, "" for success, "HANGS". */
  readonly errno: string;
  readonly value: unknown;
}

/** Runs a program with all of its output; killed with SIGKILL after `limitMs`. */
export async function runFor(
  limitMs: number,
  program: string,
  args: readonly string[],
): Promise<{ code: number; out: string; err: string }> {
  const child = new Deno.Command(program, {
    args: [...args],
    env: { LC_ALL: "C.UTF-8" },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const timer = setTimeout(() => child.kill("SIGKILL"), limitMs);
  const { code, stdout, stderr } = await child.output();
  clearTimeout(timer);
  return { code, out: new TextDecoder().decode(stdout), err: new TextDecoder().decode(stderr) };
}

export async function sh(script: string, ...args: string[]): Promise<string> {
  const ran = await runFor(60_000, "bash", ["-euo", "pipefail", "-c", script, "bash", ...args]);
  assert.equal(ran.code, 0, `${script}\nexit ${ran.code}\n${ran.out}\n${ran.err}`);
  return ran.out.trim();
}

export async function waitFor(what: string, ms: number, ready: () => Promise<boolean> | boolean): Promise<void> {
  const end = Date.now() + ms;
  while (!await ready()) {
    assert.ok(Date.now() < end, `${what}, within ${ms} ms`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** Fills the tree through a mount `f` that goes again, mounts `name`, and looks at `seen/` there. Returns its folder. */
export async function furnish(house: MountHouse, name: string, options: MountOptions = {}): Promise<string> {
  const filler = await house.mount("f");
  await sh(
    `for s in seen unseen; do mkdir -p "$1/$s/sub"; ln -s f0 "$1/$s/link"; for i in 0 1 2 3 4 5 6 7 8; do seq 500 > "$1/$s/f$i"; done
     echo x > "$1/$s/sub/inside"; head -c 300000 /dev/urandom > "$1/$s/f9"; done; mkdir "$1/elsewhere"; seq 9 > "$1/elsewhere/f"`,
    filler,
  );
  assert.ok(await house.drain("f"));
  await house.killMount("f", "SIGTERM");
  const dir = await house.mount(name, options);
  await sh(
    `ls -lR "$1/seen" > /dev/null; ls "$1" > /dev/null; for i in 0 1 2 3 4 5 6 7 8; do cat "$1/seen/f$i" > /dev/null; done; readlink "$1/seen/link" > /dev/null
     for f in "$1"/seen/*; do getfattr -d "$f" > /dev/null 2>&1; done; df "$1" > /dev/null`,
    dir,
  );
  return dir;
}

let calls = 0;
/** Every system call at once. */
export async function everyCall(dir: string, limitSecs: number): Promise<Record<string, Ended>> {
  const ran = await runFor((limitSecs + 10) * 1000, "python3", [EVERY_CALL, dir, String(limitSecs), `t${++calls}`]);
  assert.equal(ran.code, 0, ran.out + ran.err);
  return JSON.parse(ran.out) as Record<string, Ended>;
}

/** Errnos with which a call may say that the server can't be asked. */
const AWAY = new Set(["EHOSTUNREACH", "ETIMEDOUT"]);
/** Calls that answer the same whether the server is there or not. */
const ALWAYS: Record<string, readonly string[]> = {
  "stat missing": ["ENOENT"],
  "rename over": ["ENOENT"],
  unlink: ["ENOENT"],
  rmdir: ["ENOTEMPTY"],
  getxattr: ["ENODATA"],
};

/** Who makes a name that must not exist has to ask whether another mount was first, until the server is known to be gone. */
const EXCLUSIVE = /^(create|mkdir|symlink|link)/;

/**
 * What must hold when the server can't be asked: all that was looked at works, the rest gives data or says why in time,
 * and no folder is shown empty. `unnoticed`: the mount does not know yet that it is alone. `ms` is the longest a call may take.
 */
export function checkCalls(
  ended: Readonly<Record<string, Ended>>,
  ms: number,
  fault: "unnoticed" | "away" | "none",
): void {
  const wrong: string[] = [];
  for (const [name, { ms: took, errno, value }] of Object.entries(ended)) {
    const said = `${name}: ${errno === "" ? JSON.stringify(value) : errno} after ${took} ms`;
    const kind = name.split(": ")[1] ?? name;
    const right = ALWAYS[kind] ?? [""];
    const mayFail = fault !== "none" &&
      (name.startsWith("unseen") || kind === "read uncached" || (fault === "unnoticed" && EXCLUSIVE.test(kind)));
    if (took === null || took > ms) wrong.push(`too late: ${said}`);
    else if (!right.includes(errno) && !(mayFail && AWAY.has(errno))) wrong.push(`wrong: ${said}`);
    else if (kind.startsWith("readdir") && errno === "" && value === 0) wrong.push(`empty: ${said}`);
    else if (kind.startsWith("read") && errno === "" && value === 0) wrong.push(`no bytes: ${said}`);
  }
  assert.deepEqual(wrong, []);
}

/** No process that has the house's folder in its command line is in an uninterruptible wait. */
export async function assertNoneStuck(house: MountHouse): Promise<void> {
  const ran = await run("ps", ["-eo", "pid,stat,args"]);
  const mine = ran.out.split("\n").filter((line) => line.includes(house.folder));
  assert.ok(mine.length > 0);
  // One look may meet a disk wait: it must be over at the next.
  const stuck = mine.filter((line) => /^\s*\d+\s+D/.test(line)).map((line) => Number(line.trim().split(/\s+/)[0]));
  for (const pid of stuck) {
    await waitFor(`process ${pid} leaves state D`, 2000, async () => {
      const state = await Deno.readTextFile(`/proc/${pid}/stat`).catch(() => "gone (x) Z");
      return !/\) D /.test(state);
    });
  }
}
