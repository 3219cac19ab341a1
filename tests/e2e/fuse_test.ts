/** The kernel protocol through real mounts: what programs see, memory, invalidation, crashes, interrupts, stopping. */
import assert from "node:assert/strict";
import {
  bash,
  type ChildOptions,
  isMounted,
  type MountedChild,
  MountFailed,
  mountInChild,
  mountObstacle,
  run,
} from "../support/mount_child.ts";
import { POSIX_TESTS } from "../support/posix_suite.ts";

const obstacle = mountObstacle();

function test(name: string, body: (t: Deno.TestContext) => Promise<void>): void {
  Deno.test({ name: obstacle === null ? name : `${name} (skipped: ${obstacle})`, ignore: obstacle !== null, fn: body });
}

async function posixSuite(t: Deno.TestContext, mount: MountedChild): Promise<void> {
  let next = 0;
  for (const [name, body] of Object.entries(POSIX_TESTS)) {
    const dir = `${mount.dir}/t${next++}`;
    await run("mkdir", [dir]);
    await t.step(name, () => body(dir));
  }
}

/** Ends the mount and checks that the filesystem was left as it should be. */
async function endCleanly(mount: MountedChild): Promise<void> {
  const { inFlight, handles, openDirectories, errorsSeen } = await mount.stats();
  assert.deepEqual({ inFlight, handles, openDirectories, errorsSeen }, {
    inFlight: 0,
    handles: 0,
    openDirectories: 0,
    errorsSeen: [],
  });
  void mount.ask({ command: "unmount" }).catch(() => undefined);
  const end = await mount.ended;
  assert.equal(end?.destroyed, true);
  assert.equal(await isMounted(mount.dir), false);
}

for (
  const [title, options] of [
    ["a filesystem that answers at once", { fs: "memory" }],
    ["a filesystem that answers later", { fs: "async" }],
    ["a filesystem without locks and without kernel caching", {
      fs: "memory",
      noLocks: true,
      options: { entryTimeoutSec: 0, attrTimeoutSec: 0, negativeTimeoutSec: 0 },
    }],
  ] as [string, ChildOptions][]
) {
  test(`programs find POSIX behaviour on ${title}`, async (t) => {
    await using mount = await mountInChild(options);
    await posixSuite(t, mount);
    await endCleanly(mount);
  });
}

test("100,000 entries are listed completely, and from the kernel's cache the second time", async () => {
  await using mount = await mountInChild({ fs: "memory", entries: 100_000 });
  const list = `cd "$1"; ls -U | sort | md5sum; ls -U | wc -l`;
  const expected = await bash("/", `seq -f 'entry-%06g' 0 99999 | sort | md5sum; echo 100000`);
  assert.equal(await bash(mount.dir, list), expected);
  const { readdir } = (await mount.stats()).calls;
  assert.equal(await bash(mount.dir, `find "$1" -mindepth 1 -type f | wc -l`), "100000");
  assert.equal((await mount.stats()).calls["readdir"], readdir);
  assert.equal(await bash(mount.dir, `find "$1" -type f -size 0 | wc -l`), "100000");
  // Every entry that came with its attributes is a reference the kernel holds.
  assert.equal((await mount.stats()).inodes, 100_000);
});

/** Lists a folder slowly: what changes behind what was read already must not come with the attributes it had before. */
const LIST_SLOWLY = `
import os, sys
listing = os.scandir(sys.argv[1])
next(listing)
os.write(1, b"begun\\n")
sys.stdin.readline()
os.stat(sys.argv[1] + "/entry-000599")  # the kernel asks for attributes again in what follows
assert sum(1 for _ in listing) == 599
os.write(1, b"%d\\n" % os.stat(sys.argv[1] + "/entry-000300").st_size)
`;

test("a folder being listed does not show what changed meanwhile as it was", async () => {
  await using mount = await mountInChild({ fs: "memory", entries: 600 });
  const lister = new Deno.Command("python3", { args: ["-c", LIST_SLOWLY, mount.dir], stdin: "piped", stdout: "piped" })
    .spawn();
  const reader = lister.stdout.pipeThrough(new TextDecoderStream()).getReader();
  assert.equal((await reader.read()).value, "begun\n");
  await mount.ask({ command: "write", name: "entry-000300", text: "changed meanwhile" });
  const writer = lister.stdin.getWriter();
  await writer.write(new TextEncoder().encode("go on\n"));
  assert.equal((await reader.read()).value, "17\n");
  await writer.close();
  await reader.cancel();
  assert.ok((await lister.status).success);
});

test("bug 14: what the kernel forgets leaves the inode table and the filesystem", async () => {
  await using mount = await mountInChild({ fs: "memory" });
  await bash(mount.dir, `mkdir "$1/d"; cd "$1/d"; seq 20000 | xargs touch; ls -l > /dev/null`);
  const held = await mount.stats();
  assert.ok(held.inodes > 20_000, `${held.inodes} inodes`);
  await bash(mount.dir, `cd "$1/d"; seq 1 10000 | xargs rm; sync; echo 2 > /proc/sys/vm/drop_caches`);
  const left = await mount.stats();
  assert.ok(left.inodes < 200, `${left.inodes} inodes left`);
  assert.ok(left.inodeTableBytes < held.inodeTableBytes);
  assert.equal(left.nodes, 10_000 + 2);
  assert.equal(await bash(mount.dir, `ls "$1/d" | wc -l`), "10000");
});

test("a change behind the kernel's back is seen once the notifier was told, and not before", async () => {
  await using mount = await mountInChild({ fs: "memory" });
  const { dir } = mount;
  const cat = (name: string) => run("cat", [`${dir}/${name}`]).then((ran) => ran.out);
  const ls = () => bash(dir, `ls "$1"`);
  await bash(dir, `echo old > "$1/f"; cat "$1/f"; ls "$1"`);
  await mount.ask({ command: "write", name: "f", text: "a new and longer text", silent: true });
  assert.equal(await cat("f"), "old\n");
  await mount.ask({ command: "write", name: "f", text: "a new and longer text" });
  assert.equal(await cat("f"), "a new and longer text");
  assert.equal(await bash(dir, `stat -c %s "$1/f"`), "21");

  assert.equal(await cat("g"), "");
  await mount.ask({ command: "write", name: "g", text: "here" });
  assert.equal(await cat("g"), "here");
  assert.equal(await ls(), "f\ng");

  await mount.ask({ command: "remove", name: "g" });
  assert.equal((await run("stat", [`${dir}/g`])).code, 1);
  assert.equal(await ls(), "f");

  await mount.ask({ command: "write", name: "f", text: "changed while disconnected", silent: true });
  await mount.ask({ command: "write", name: "h", text: "made while disconnected", silent: true });
  const held = new Deno.Command("bash", {
    args: ["-c", `cd "$1"; exec 3< f; echo ready; read -r _; cat f; ls`, "bash", dir],
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  const writer = held.stdin.getWriter();
  const reader = held.stdout.pipeThrough(new TextDecoderStream()).getReader();
  assert.equal((await reader.read()).value, "ready\n");
  await mount.ask({ command: "invalidateAll" });
  await writer.write(new TextEncoder().encode("go\n"));
  await writer.close();
  let seen = "";
  for (let part; !(part = await reader.read()).done;) seen += part.value;
  await held.status;
  if ((await mount.stats()).kernelMinor >= 44) assert.equal(seen, "changed while disconnectedf\nh\n");
});

test("200,000 invalidations at once neither block the mount nor pile up", async () => {
  await using mount = await mountInChild({ fs: "memory" });
  const storm = mount.ask({ command: "storm", count: 200_000 });
  assert.equal(await bash(mount.dir, `cd "$1"; echo x > f; cat f`), "x");
  await storm;
  const { notifications } = await mount.stats();
  assert.equal(notifications.queued, 0);
  assert.ok(notifications.all >= 1);
  assert.ok(notifications.sent <= 2 * 65536 + 100);
});

/** Resolves when `condition` holds; the watchdog of the mount ends a wait in vain. */
async function until(condition: () => Promise<boolean>): Promise<void> {
  while (!await condition()) await new Promise((resolve) => setTimeout(resolve, 5));
}

test("a program that is killed while it waits ends at once; what it waited for may come later", async () => {
  await using mount = await mountInChild({ fs: "held" });
  await bash(mount.dir, `echo x > "$1/hello"`);
  let waiting = 0;
  const waits = async (signal: Deno.Signal): Promise<number | null> => {
    waiting++;
    const child = new Deno.Command("stat", { args: [`${mount.dir}/hold`], stdout: "null", stderr: "null" }).spawn();
    // Not any request that is in flight: the one for the attributes of the root comes before the one that is held.
    await until(async () => (await mount.stats()).held === waiting);
    child.kill(signal);
    const status = await child.status;
    return status.signal === signal ? null : status.code;
  };
  assert.equal(await waits("SIGKILL"), null);
  assert.equal(await waits("SIGINT"), null);
  await until(async () => (await mount.stats()).interrupted === 2);
  await mount.ask({ command: "letGo" });
  await until(async () => (await mount.stats()).inFlight === 0);
  assert.equal(await bash(mount.dir, `cat "$1/hello"`), "x");
  await endCleanly(mount);
});

/** A mount on which one program reads a page and has no answer, and another opens the file, which is to drop that page. */
async function withAPageBeingRead() {
  const mount = await mountInChild({ fs: "unread" });
  await bash(mount.dir, `echo x > "$1/f"`);
  const read = () => new Deno.Command("cat", { args: [`${mount.dir}/f`], stdout: "piped", stderr: "null" }).spawn();
  const reader = read();
  await until(async () => (await mount.stats()).held === 1);
  const opened = (await mount.stats()).requests["OPEN"] ?? 0;
  const opener = read();
  await until(async () => (await mount.stats()).requests["OPEN"] === opened + 1);
  // It has its answer or waits for it, and then for the page.
  await new Promise((resolve) => setTimeout(resolve, 200));
  return { mount, reader, opener };
}

test("an open that has old pages dropped does not wait for who reads them where nothing ends it", async () => {
  const { mount, reader, opener } = await withAPageBeingRead();
  await using _mount = mount;
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    void mount.ask({ command: "letGo" });
  }, 5000);
  opener.kill("SIGTERM");
  const { signal } = await opener.status;
  clearTimeout(timer);
  await mount.ask({ command: "letGo" });
  await opener.output();
  assert.equal(new TextDecoder().decode((await reader.output()).stdout), "x\n");
  assert.equal(signal, "SIGTERM");
  assert.ok(!late, "it ended only when the page was there");
  await until(async () => (await mount.stats()).handles === 0);
  await endCleanly(mount);
});

test("an open of a file that was empty waits until the kernel knows that it is not any more", async () => {
  await using mount = await mountInChild({ fs: "held", entries: 1 });
  await bash(mount.dir, `test ! -s "$1/entry-000000"`);
  const looks = new Deno.Command("stat", { args: [`${mount.dir}/hold`], stdout: "null", stderr: "null" }).spawn();
  await until(async () => (await mount.stats()).held === 1);
  // Each occupies a thread until the folder is free again; the news of the file comes behind them.
  const told = Array.from({ length: 8 }, (_, i) => mount.ask({ command: "write", name: `new-${i}`, text: "x" }));
  told.push(mount.ask({ command: "write", name: "entry-000000", text: "no longer empty" }));
  await until(async () => (await mount.stats()).notifications.sent >= 8);
  const opened = (await mount.stats()).requests["OPEN"] ?? 0;
  const reader = new Deno.Command("cat", { args: [`${mount.dir}/entry-000000`], stdout: "piped" }).spawn();
  await until(async () => (await mount.stats()).requests["OPEN"] === opened + 1);
  await new Promise((resolve) => setTimeout(resolve, 100));
  await mount.ask({ command: "letGo" });
  assert.equal(new TextDecoder().decode((await reader.output()).stdout), "no longer empty");
  await Promise.all(told);
  await looks.status;
  await endCleanly(mount);
});

for (const [how, end] of [["killed", "SIGKILL"], ["stopped", "abort"]] as const) {
  test(`a mount that is ${how} while a notification waits in the kernel lets go of everybody`, async () => {
    await using mount = await mountInChild({ fs: "held" });
    await bash(mount.dir, `ls "$1"; test ! -e "$1/new"`);
    const looks = new Deno.Command("stat", { args: [`${mount.dir}/hold`], stdout: "null", stderr: "null" }).spawn();
    await until(async () => (await mount.stats()).held === 1);
    // The kernel has the folder locked for the lookup, and waits for that to drop a name in it.
    void mount.ask({ command: "write", name: "new", text: "x" }).catch(() => undefined);
    await until(async () => (await mount.stats()).notifications.sent > 0);
    await new Promise((resolve) => setTimeout(resolve, 100));
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      void run("umount", ["-f", mount.dir]);
    }, 5000);
    if (end === "abort") void mount.ask({ command: "abort" }).catch(() => undefined);
    else Deno.kill(mount.pid, end);
    assert.equal((await looks.output()).code, 1);
    await mount.ended;
    clearTimeout(timer);
    assert.ok(!late, "it waited for ever");
    await until(async () => !await isMounted(mount.dir));
  });
}

test("what shortens a file waits for its readers where it can be interrupted, and is then not done", async () => {
  await using mount = await mountInChild({ fs: "unread" });
  await bash(mount.dir, `echo x > "$1/f"`);
  const reader = new Deno.Command("cat", { args: [`${mount.dir}/f`], stdout: "piped", stderr: "null" }).spawn();
  await until(async () => (await mount.stats()).held === 1);
  for (
    const call of [
      "open(sys.argv[1], 'w')",
      "os.truncate(sys.argv[1], 0)",
      "os.open(sys.argv[1], os.O_RDWR | os.O_TRUNC)",
    ]
  ) {
    const asked = (await mount.stats()).inFlight;
    const child = new Deno.Command("python3", {
      args: ["-c", `import os, sys; ${call}`, `${mount.dir}/f`],
      stderr: "null",
    }).spawn();
    await until(async () => (await mount.stats()).inFlight > asked);
    child.kill("SIGTERM");
    assert.equal((await child.status).signal, "SIGTERM");
  }
  await mount.ask({ command: "letGo" });
  assert.equal(new TextDecoder().decode((await reader.output()).stdout), "x\n");
  assert.equal(await bash(mount.dir, `cat "$1/f"; : > "$1/f"; wc -c < "$1/f"`), "x\n0");
  await until(async () => (await mount.stats()).handles === 0);
  await endCleanly(mount);
});

/** Tries to lock a file without waiting; prints the errno, or what ended it. */
const TRY_LOCK = `
import fcntl, signal, sys
class Rang(Exception): pass
def ring(*_): raise Rang()
signal.signal(signal.SIGALRM, ring)
f = open(sys.argv[1], "w")
signal.setitimer(signal.ITIMER_REAL, float(sys.argv[2]))
try: fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB); print("locked")
except Rang: print("rang")
except OSError as e: print(e.errno)
`;

test("a lock that nobody waits for has an answer in time, and can be interrupted before", async () => {
  await using mount = await mountInChild({ fs: "unlocked", options: { requestTimeoutMs: 1500 } });
  const tryLock = async (seconds: number) =>
    (await run("timeout", ["20", "python3", "-c", TRY_LOCK, `${mount.dir}/f`, String(seconds)])).out.trim();
  assert.equal(await tryLock(15), "110");
  assert.equal(await tryLock(0.5), "rang");
  assert.equal((await mount.stats()).interrupted, 1);
  await mount.ask({ command: "letGo" });
  // What was got after all has been given back.
  await until(async () => await tryLock(15) === "locked");
  await endCleanly(mount);
});

test("a caught signal that asks for no end lets a slow operation finish; SIGINT and SIGKILL after it do not wait", async () => {
  await using mount = await mountInChild({ fs: "held" });
  const script = `
import os, signal, sys
signal.signal(signal.SIGUSR1, lambda *a: None)
print("up", flush=True)
try: os.stat(sys.argv[1])
except OSError as e: print(e.errno, flush=True)`;
  const child = new Deno.Command("python3", {
    args: ["-c", script, `${mount.dir}/hold`],
    stdout: "piped",
    stderr: "null",
  }).spawn();
  const killed = new Deno.Command("python3", { args: ["-c", script, `${mount.dir}/hold2`], stdout: "null" }).spawn();
  await until(async () => (await mount.stats()).held === 2);
  child.kill("SIGUSR1");
  killed.kill("SIGUSR1");
  await until(async () => ((await mount.stats()).requests["INTERRUPT"] ?? 0) === 2);
  assert.equal((await mount.stats()).interrupted, 0);
  killed.kill("SIGKILL");
  assert.equal((await killed.status).signal, "SIGKILL");
  await mount.ask({ command: "letGo" });
  assert.equal(new TextDecoder().decode((await child.output()).stdout), "up\n2\n");
});

test("a mount whose server was killed is cleared by its guard, and the place can be mounted again", async () => {
  const dir = await Deno.makeTempDir({ prefix: "anyfs-mount-" });
  {
    await using mount = await mountInChild({ fs: "memory", dir });
    await bash(dir, `echo x > "$1/f"`);
    await mount.kill();
    await until(async () => !await isMounted(dir));
  }
  await using again = await mountInChild({ fs: "memory", dir });
  assert.equal(await bash(dir, `ls -A "$1"`), "");
  await endCleanly(again);
  await Deno.remove(dir);
});

test("bug 15: a dead mount that nobody cleared is detected and replaced", async () => {
  const dir = await Deno.makeTempDir({ prefix: "anyfs-mount-" });
  await using mount = await mountInChild({ fs: "memory", dir });
  await bash(dir, `ls "$1"; stat "$1"`);
  // The guard dies first, as it does when a whole process group is killed.
  await bash(dir, `for p in $(pgrep -f "[s]tat -f -- .* $1 0:"); do kill -9 $p; done`);
  await mount.kill();
  assert.equal(await isMounted(dir), true);
  assert.match((await run("ls", [dir])).err, /not connected/);
  {
    await using again = await mountInChild({ fs: "memory", dir });
    assert.equal(await bash(dir, `echo new > "$1/f"; cat "$1/f"`), "new");
    await endCleanly(again);
  }
  await Deno.remove(dir);
});

test("a busy mount is taken off the tree and served until its last user leaves", async () => {
  await using mount = await mountInChild({ fs: "memory" });
  const user = new Deno.Command("bash", {
    args: [
      "-c",
      `cd "$1"; exec 3> f; echo ready; read -r _; echo late >&3; cat f; cat ../$(basename $1)/f 2>&1 | tail -c 28`,
      "bash",
      mount.dir,
    ],
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  const reader = user.stdout.pipeThrough(new TextDecoderStream()).getReader();
  assert.equal((await reader.read()).value, "ready\n");
  await mount.ask({ command: "unmount" });
  assert.equal(await isMounted(mount.dir), false);
  const writer = user.stdin.getWriter();
  await writer.write(new TextEncoder().encode("go\n"));
  await writer.close();
  assert.equal((await reader.read()).value, "late\n");
  await reader.cancel();
  await user.status;
  assert.equal((await mount.ended)?.destroyed, true);
});

test("umount(8) from outside ends the server; abort ends it under its users", async () => {
  {
    await using mount = await mountInChild({ fs: "memory" });
    await run("umount", [mount.dir]);
    assert.equal((await mount.ended)?.destroyed, true);
  }
  await using mount = await mountInChild({ fs: "held" });
  const child = new Deno.Command("stat", { args: [`${mount.dir}/hold`], stderr: "piped" }).spawn();
  await until(async () => (await mount.stats()).held === 1);
  void mount.ask({ command: "abort" }).catch(() => undefined);
  assert.match(new TextDecoder().decode((await child.output()).stderr), /connection abort|not connected/);
  assert.equal((await mount.ended)?.destroyed, true);
});

test("a mount point that can't be used is refused with the cause", async () => {
  const base = await Deno.makeTempDir({ prefix: "anyfs-mount-" });
  await Deno.mkdir(`${base}/full`);
  await Deno.writeTextFile(`${base}/full/file`, "x");
  await Deno.mkdir(`${base}/empty`);
  await Deno.symlink("empty", `${base}/link`);
  const refused = async (dir: string, code: string, text: RegExp) => {
    await assert.rejects(mountInChild({ fs: "memory", dir }), (error: unknown) => {
      assert.ok(error instanceof MountFailed, String(error));
      assert.equal(error.code, code);
      assert.match(error.message, text);
      return true;
    });
  };
  await refused(`${base}/none`, "not_found", /does not exist.*mkdir/);
  await refused(`${base}/full/file`, "not_a_directory", /not a directory/);
  await refused(`${base}/full`, "directory_not_empty", /not empty/);
  {
    await using first = await mountInChild({ fs: "memory", dir: `${base}/empty` });
    await refused(`${base}/empty`, "conflict", /in use.*anyfs unmount/);
    await refused(`${base}/link`, "conflict", /in use/);
    await endCleanly(first);
  }
  {
    await using over = await mountInChild({
      fs: "memory",
      dir: `${base}/full`,
      options: { allowNonEmpty: true, readOnly: true, fsName: "a, b" },
    });
    assert.equal(
      await bash(`${base}/full`, `ls -A "$1"; (touch "$1/x" 2>&1 || :) | grep -c 'Read-only'; findmnt -no SOURCE "$1"`),
      "1\na, b",
    );
    await endCleanly(over);
  }
  await Deno.remove(base, { recursive: true });
});

const userObstacle = obstacle ??
  ((await run("which", ["fusermount3", "setpriv"])).code === 0 ? null : "needs fusermount3 and setpriv");

Deno.test({
  name: "an ordinary user mounts through fusermount3" + (userObstacle === null ? "" : ` (skipped: ${userObstacle})`),
  ignore: userObstacle !== null,
  async fn(t) {
    const mode = ((await Deno.stat("/dev/fuse")).mode ?? 0) & 0o777;
    const base = await Deno.makeTempDir({ prefix: "anyfs-mount-" });
    const wrap = [
      "setpriv",
      "--reuid=65534",
      "--regid=65534",
      "--clear-groups",
      "env",
      `HOME=${base}`,
      `DENO_DIR=${base}/deno`,
    ];
    await bash(base, `chmod 755 "$1"; mkdir "$1/m" "$1/deno"; chown 65534:65534 "$1/m" "$1/deno"`);
    // Fetched by root's npm, the runtime lies where nobody else may go.
    let runtime = Deno.execPath();
    if ((await run("setpriv", [...wrap.slice(1), runtime, "--version"])).code !== 0) {
      runtime = `${base}/runtime`;
      await Deno.copyFile(Deno.execPath(), runtime);
      await Deno.chmod(runtime, 0o755);
    }
    const options: ChildOptions = { fs: "memory", dir: `${base}/m`, wrap, runtime };
    const failure = async (more: Partial<ChildOptions>, text: RegExp) => {
      await assert.rejects(mountInChild({ ...options, ...more }), (error: unknown) => {
        assert.match(String(error), text);
        return true;
      });
    };
    try {
      await t.step("fusermount3's refusals are passed on with a fix", async () => {
        await Deno.chmod("/dev/fuse", 0o600);
        await failure({}, /\/dev\/fuse.*chmod 666/);
        await Deno.chmod("/dev/fuse", 0o666);
        await failure({ options: { allowOther: true } }, /allow_other.*without allow-other/);
        await bash(base, `mkdir "$1/theirs"`);
        await failure({ dir: `${base}/theirs` }, /write access.*directory you own/);
      });
      await Deno.chmod("/dev/fuse", 0o666);
      await t.step("it works, is private to the user, and is unmounted cleanly", async () => {
        await using mount = await mountInChild(options);
        const script =
          `cd "$0"; echo hi > f; mkdir d; cp -r /etc/hostname d/ 2>/dev/null || :; ls; cat f; stat -c %U:%s f`;
        const ran = await run(wrap[0] ?? "", [...wrap.slice(1), "bash", "-c", script, mount.dir]);
        assert.equal(ran.out, "d\nf\nhi\nnobody:3\n", ran.err);
        assert.match((await run("ls", [mount.dir])).err, /Permission denied/);
        await endCleanly(mount);
      });
      await t.step("after a crash the guard clears the place", async () => {
        await using mount = await mountInChild(options);
        await mount.kill();
        await until(async () => !await isMounted(mount.dir));
      });
    } finally {
      await Deno.chmod("/dev/fuse", mode);
      await Deno.remove(base, { recursive: true });
    }
  },
});
