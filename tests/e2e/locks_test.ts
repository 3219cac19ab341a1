/** File locks between two real mounts of one real server: taken, waited for, released, lost; and what programs make of them. */
import assert from "node:assert/strict";
import { mountObstacle, run } from "../support/mount_child.ts";
import { MountHouse } from "./mount_house.ts";

const obstacle = mountObstacle();
const LEASE = `[daemon]\nlock_lease = "3s"\n`;

function test(name: string, body: (t: Deno.TestContext) => Promise<void>): void {
  Deno.test({ name: obstacle === null ? name : `${name} (skipped: ${obstacle})`, ignore: obstacle !== null, fn: body });
}
async function python(script: string, ...args: string[]): Promise<string> {
  const ran = await run("timeout", ["50", "python3", "-c", script, ...args]);
  assert.equal(ran.code, 0, `${ran.out}${ran.err}`);
  return ran.out.trim();
}
async function sh(script: string, ...args: string[]): Promise<string> {
  const ran = await run("timeout", ["80", "bash", "-euo", "pipefail", "-c", script, "bash", ...args]);
  assert.equal(ran.code, 0, `${script}\nexit ${ran.code}\n${ran.out}\n${ran.err}`);
  return ran.out.trim();
}

/** A python process that does what it is told, one expression a line, and answers each with a line. */
class Program implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  readonly #lines: ReadableStreamDefaultReader<string>;
  #rest = "";

  constructor() {
    this.#child = new Deno.Command("timeout", {
      args: ["-s", "KILL", "90", "python3", "-u", "-c", PROGRAM],
      stdin: "piped",
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    this.#writer = this.#child.stdin.getWriter();
    this.#lines = this.#child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  }
  async tell(line: string): Promise<void> {
    await this.#writer.write(new TextEncoder().encode(`${line}\n`));
  }
  async hear(): Promise<string> {
    while (!this.#rest.includes("\n")) {
      const { value, done } = await this.#lines.read();
      if (done) return "gone";
      this.#rest += value;
    }
    const at = this.#rest.indexOf("\n");
    const line = this.#rest.slice(0, at);
    this.#rest = this.#rest.slice(at + 1);
    return line;
  }
  async do(line: string): Promise<string> {
    await this.tell(line);
    return await this.hear();
  }
  /** Kills the python process itself. */
  async kill(): Promise<void> {
    const pid = Number(await this.do("os.getpid()"));
    Deno.kill(pid, "SIGKILL");
    await this.#child.status;
  }
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#writer.close().catch(() => {});
    await this.#child.status;
    await this.#lines.cancel().catch(() => {});
  }
}
/** `None` is what a lock that was got answers; failures answer their errno's name. */
const PROGRAM = `
import errno, fcntl, os, signal, struct, sys
files = {}
def op(path, mode="r+b"):
    files[path] = open(path, mode, buffering=0); return "open"
def lock(path, how=fcntl.LOCK_EX | fcntl.LOCK_NB, length=0, start=0): return fcntl.lockf(files[path], how, length, start)
def flock(path, how=fcntl.LOCK_EX | fcntl.LOCK_NB): return fcntl.flock(files[path], how)
def ofd(path, type=fcntl.F_WRLCK, start=0, length=0):
    fcntl.fcntl(files[path], fcntl.F_OFD_SETLK, struct.pack("hhqqhh", type, 0, start, length, 0, 0))
def getlk(path, start=0, length=0):
    t, w, s, l, pid = struct.unpack("hhqqi", fcntl.fcntl(files[path], fcntl.F_GETLK, struct.pack("hhqqi", fcntl.F_WRLCK, 0, start, length, 0)))
    return (t, s, l, pid == os.getpid() or pid)
def put(path, text, at=0): return os.pwrite(files[path].fileno(), text.encode(), at)
def get(path, n=100, at=0): return os.pread(files[path].fileno(), n, at).decode()
def close(path): files.pop(path).close()
def alarm(seconds):
    def ring(*a): raise InterruptedError(errno.EINTR, "rung")
    signal.signal(signal.SIGALRM, ring); signal.setitimer(signal.ITIMER_REAL, seconds)
EX, SH, NB, UN = fcntl.LOCK_EX, fcntl.LOCK_SH, fcntl.LOCK_NB, fcntl.LOCK_UN
for line in sys.stdin:
    try: print(eval(line))
    except OSError as e: print(errno.errorcode[e.errno])
`;

test("locks hold between two mounts of one server", async (t) => {
  await using house = new MountHouse(150_000, LEASE);
  await house.serve();
  const [a, b] = [await house.mount("a"), await house.mount("b")];
  await using pa = new Program();
  await using pb = new Program();
  const ready = async (name: string) => {
    const [fa, fb] = [`${a}/${name}`, `${b}/${name}`];
    await Deno.writeTextFile(`${house.folder}/x`, "0123456789");
    await sh(`cp "$1" "$2"; cat "$3" > /dev/null`, `${house.folder}/x`, fa, fb);
    assert.equal(await pa.do(`op(${JSON.stringify(fa)})`), "open");
    assert.equal(await pb.do(`op(${JSON.stringify(fb)})`), "open");
    return [JSON.stringify(fa), JSON.stringify(fb)] as const;
  };
  await t.step("fcntl: write locks exclude each other, read locks do not, ranges are their own", async () => {
    const [fa, fb] = await ready("fcntl");
    assert.equal(await pa.do(`lock(${fa})`), "None");
    assert.equal(await pb.do(`lock(${fb})`), "EAGAIN");
    assert.equal(await pb.do(`lock(${fb}, SH | NB)`), "EAGAIN");
    assert.equal(await pb.do(`getlk(${fb})`), "(1, 0, 0, 0)");
    assert.equal(await pa.do(`lock(${fa}, UN)`), "None");
    assert.equal(await pb.do(`getlk(${fb})`), "(2, 0, 0, 0)");
    assert.equal(await pb.do(`lock(${fb}, EX | NB, 10, 0)`), "None");
    assert.equal(await pa.do(`lock(${fa}, EX | NB, 10, 10)`), "None");
    assert.equal(await pa.do(`lock(${fa}, SH | NB, 1, 9)`), "EAGAIN");
    assert.equal(await pa.do(`getlk(${fa})`), "(1, 0, 10, 0)");
    assert.equal(await pb.do(`lock(${fb}, SH | NB, 10, 0)`), "None");
    assert.equal(await pa.do(`lock(${fa}, SH | NB, 1, 9)`), "None");
    assert.equal(await pb.do(`close(${fb})`), "None");
    assert.equal(await pa.do(`lock(${fa}, EX | NB)`), "None");
    await pa.do(`close(${fa})`);
  });
  await t.step("flock and open file description locks too; the kinds know nothing of each other", async () => {
    const [fa, fb] = await ready("flock");
    assert.equal(await pa.do(`flock(${fa}, SH | NB)`), "None");
    assert.equal(await pb.do(`flock(${fb}, SH | NB)`), "None");
    assert.equal(await pb.do(`flock(${fb}, EX | NB)`), "EAGAIN");
    assert.equal(await pa.do(`flock(${fa}, EX | NB)`), "None", "the one who could not convert has none any more");
    assert.equal(await pb.do(`lock(${fb})`), "None");
    assert.equal(await pb.do(`lock(${fb}, UN)`), "None");
    assert.equal(await pa.do(`flock(${fa}, UN)`), "None");
    assert.equal(await pb.do(`flock(${fb}, EX | NB)`), "None");
    assert.equal(await pb.do(`close(${fb})`), "None");
    assert.equal(await pa.do(`flock(${fa}, EX)`), "None");
    assert.equal(await pa.do(`ofd(${fa})`), "None");
    assert.equal(await pb.do(`op(${fb})`), "open");
    assert.equal(await pb.do(`ofd(${fb})`), "EAGAIN");
    assert.equal(await pb.do(`lock(${fb})`), "EAGAIN");
    assert.equal(await pa.do(`close(${fa})`), "None");
    // The kernel tells of a last close in the background, so these locks go a moment after it.
    for (let i = 0; i < 200 && await pb.do(`ofd(${fb}) or flock(${fb}, EX | NB)`) !== "None"; i++);
    assert.equal(await pb.do(`ofd(${fb}) or flock(${fb}, EX | NB)`), "None");
    await pb.do(`close(${fb})`);
  });
  await t.step("who waits gets it when the other unlocks, closes or is killed; a signal ends the wait", async () => {
    const [fa, fb] = await ready("wait");
    assert.equal(await pa.do(`lock(${fa})`), "None");
    await pb.tell(`lock(${fb}, EX)`);
    assert.equal(await pa.do(`lock(${fa}, UN)`), "None");
    assert.equal(await pb.hear(), "None");
    await pa.tell(`lock(${fa}, EX)`);
    assert.equal(await pb.do(`close(${fb})`), "None");
    assert.equal(await pa.hear(), "None");
    assert.equal(await pb.do(`op(${fb})`), "open");
    assert.equal(await pb.do(`alarm(0.3) or lock(${fb}, EX)`), "EINTR");
    {
      await using third = new Program();
      await third.do(`op(${fa})`);
      assert.equal(await third.do(`flock(${fa})`), "None");
      await pb.tell(`flock(${fb}, EX)`);
      await third.kill();
      assert.equal(await pb.hear(), "None");
    }
    await pb.do(`close(${fb})`);
    await pa.do(`close(${fa})`);
  });
  await t.step("two that would wait for each other: one is told EDEADLK", async () => {
    const [fa, fb] = await ready("circle");
    assert.equal(await pa.do(`lock(${fa}, EX, 1, 0)`), "None");
    assert.equal(await pb.do(`lock(${fb}, EX, 1, 1)`), "None");
    await pa.tell(`lock(${fa}, EX, 1, 1)`);
    // Whoever comes second is told; which one that is depends on the way to the server.
    await pb.tell(`lock(${fb}, EX, 1, 0)`);
    const [ha, hb] = [pa.hear(), pb.hear()];
    const first = await Promise.race([ha.then(() => "a"), hb.then(() => "b")]);
    assert.equal(await (first === "a" ? ha : hb), "EDEADLOCK");
    await (first === "a" ? pa : pb).do(first === "a" ? `lock(${fa}, UN)` : `lock(${fb}, UN)`);
    assert.equal(await (first === "a" ? hb : ha), "None");
    await pa.do(`close(${fa})`);
    await pb.do(`close(${fb})`);
  });
  await t.step(
    "after taking a lock one reads what the other wrote before it released it, without closing",
    async () => {
      const [fa, fb] = await ready("fresh");
      for (let i = 0; i < 30; i++) {
        const [p, f, q, g] = i % 2 ? [pa, fa, pb, fb] as const : [pb, fb, pa, fa] as const;
        await q.do(`get(${g})`);
        assert.equal(await p.do(`lock(${f}, EX)`), "None");
        assert.equal(await p.do(`put(${f}, "turn ${1000 + i}")`), "9");
        assert.equal(await p.do(`lock(${f}, UN)`), "None");
        assert.equal(await q.do(`lock(${g}, SH)`), "None");
        assert.equal(await q.do(`get(${g}, 9)`), `turn ${1000 + i}`);
        assert.equal(await q.do(`lock(${g}, UN)`), "None");
      }
      await pa.do(`close(${fa})`);
      await pb.do(`close(${fb})`);
    },
  );
  await t.step("of two that create one name with O_EXCL, mkdir or link, exactly one succeeds", async () => {
    const script = `
import os, sys, time
base, other, start = sys.argv[1], sys.argv[2], float(sys.argv[3])
won = []
os.close(os.open(base + "/own" + other, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
os.chdir(base)
for i in range(40):
    while time.time() < start + i * 0.05: pass
    kind = i % 4
    try:
        if kind == 0: os.close(os.open(f"n{i}", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        elif kind == 1: os.mkdir(f"n{i}")
        elif kind == 2: os.link("own" + other, f"n{i}")
        else: os.symlink("x", f"n{i}")
        won.append(i)
    except FileExistsError: pass
print(*won)
`;
    await sh(`mkdir "$1/excl"; for i in $(seq 100); do [ -d "$2/excl" ] && break; sleep 0.05; done`, a, b);
    const start = `${Date.now() / 1000 + 0.5}`;
    const [x, y] = await Promise.all([
      python(script, `${a}/excl`, "a", start),
      python(script, `${b}/excl`, "b", start),
    ]);
    const all = `${x} ${y}`.trim().split(/\s+/).map(Number).sort((m, n) => m - n);
    assert.deepEqual(all, Array.from({ length: 40 }, (_, i) => i));
    await house.drain("a");
    await house.drain("b");
    assert.equal(await sh(`find "$1/excl" -name '*conflict*' | wc -l`, a), "0");
    // The same name again, removed and made by turns.
    await sh(`cd "$1/excl"; for i in $(seq 30); do set -C; : > again; set +C; rm again; done`, a);
  });
  await t.step("two sqlite3 on two mounts add to one counter, and no addition is lost", async () => {
    await sh(
      `sqlite3 "$1/count.db" 'create table t(n integer, a integer, b integer); insert into t values(0, 0, 0)'`,
      a,
    );
    const script = `
import sqlite3, sys
db = sqlite3.connect(sys.argv[1] + "/count.db", timeout=60, isolation_level=None)
for i in range(40):
    db.execute("BEGIN IMMEDIATE")
    n = db.execute("SELECT n FROM t").fetchone()[0]
    db.execute(f"UPDATE t SET n = ?, {sys.argv[2]} = {sys.argv[2]} + 1", (n + 1,))
    db.execute("COMMIT")
`;
    await Promise.all([python(script, a, "a"), python(script, b, "b")]);
    for (const dir of [a, b]) {
      assert.equal(
        await sh(`sqlite3 "$1/count.db" 'select n, a, b from t; pragma integrity_check'`, dir),
        "80|40|40\nok",
      );
    }
  });
  await t.step("git on two mounts: every commit that succeeded is in the history", async () => {
    await sh(
      `git init -q -b main "$1/repo"; cd "$1/repo"; git config user.email a@b; git config user.name n; git commit -q --allow-empty -m 0
      for i in $(seq 100); do [ -e "$2/repo/.git/refs/heads/main" ] && break; sleep 0.05; done`,
      a,
      b,
    );
    const script = `cd "$1/repo"; done=0; for i in $(seq 12); do echo "$2 $i" > "$2$i"
      for try in $(seq 100); do if git add "$2$i" 2> /dev/null && git commit -qm "$2 $i" -- "$2$i" 2> /dev/null; then done=$((done + 1)); break; fi; sleep 0.05; done; done; echo $done`;
    const [x, y] = await Promise.all([sh(script, a, "a"), sh(script, b, "b")]);
    assert.deepEqual([x, y], ["12", "12"]);
    await house.drain("a");
    await house.drain("b");
    const log = await sh(
      `cd "$1/repo"; git fsck --full --strict 2>&1 | grep -v dangling || true; git log --format=%s | sort`,
      b,
    );
    assert.equal(log.split("\n").length, 25, log);
    assert.equal(await sh(`find "$1/repo" -name '*conflict*' | wc -l`, a), "0");
  });
});

test("locks outlive a broken connection and a restart of the server, and a lost one is told", async (t) => {
  await using house = new MountHouse(150_000, LEASE);
  await house.serve();
  const [a, b] = [await house.mount("a"), await house.mount("b")];
  await using pa = new Program();
  await using pb = new Program();
  await sh(`echo 0123456789 > "$1/f"; echo x > "$1/g"; cat "$2/f" "$2/g" > /dev/null`, a, b);
  const [fa, fb, ga, gb] = [`${a}/f`, `${b}/f`, `${a}/g`, `${b}/g`].map((path) => JSON.stringify(path));
  await pa.do(`op(${fa})`);
  await pb.do(`op(${fb})`);
  await pa.do(`op(${ga})`);
  await pb.do(`op(${gb})`);
  await t.step("a killed server: locks go on, also new ones, and hold again when it is back", async () => {
    assert.equal(await pa.do(`lock(${fa}, EX | NB, 5, 0)`), "None");
    assert.equal(await pb.do(`lock(${fb}, EX | NB, 5, 5)`), "None");
    await house.killServer();
    assert.equal(await pa.do(`lock(${ga}, EX)`), "None", "without a server this machine decides");
    await house.serve();
    for (const name of ["a", "b"]) {
      await sh(
        `for i in $(seq 200); do [ "$(curl -s --unix-socket "$1"/mounts/*/control.sock -d '{"id":1,"method":"status"}' http://m/ | grep -c '"mode":"online"')" = 1 ] && exit; sleep 0.05; done; exit 1`,
        `${house.folder}/cache-${name}`,
      );
    }
    assert.equal(await pb.do(`lock(${fb}, EX | NB, 5, 0)`), "EAGAIN");
    assert.equal(await pa.do(`lock(${fa}, EX | NB, 5, 5)`), "EAGAIN");
    assert.equal(await pb.do(`lock(${gb}, EX | NB)`), "EAGAIN");
    assert.equal(await pa.do(`lock(${fa}, UN) or lock(${ga}, UN)`), "None");
    assert.equal(await pb.do(`lock(${fb}, EX | NB) or lock(${gb}, EX | NB)`), "None");
  });
  await t.step(
    "taken on both sides without a connection: one keeps it, the other gets EIO until it unlocks",
    async () => {
      assert.equal(await pb.do(`lock(${fb}, UN) or lock(${gb}, UN)`), "None");
      await house.killServer();
      assert.equal(await pa.do(`lock(${fa}, EX)`), "None");
      assert.equal(await pb.do(`lock(${fb}, EX)`), "None");
      await house.serve();
      const lost = /(a|b): .*has lost its record lock/;
      for (let i = 0; i < 400 && !lost.test(house.log); i++) await new Promise((resolve) => setTimeout(resolve, 50));
      const [, who] = lost.exec(house.log) ?? assert.fail(`nobody lost a lock:\n${house.log}`);
      const [loser, lf, keeper, kf] = who === "a" ? [pa, fa, pb, fb] as const : [pb, fb, pa, fa] as const;
      assert.equal(await keeper.do(`put(${kf}, "kept")`), "4");
      assert.equal(await loser.do(`put(${lf}, "lost")`), "EIO");
      assert.equal(await loser.do(`os.fsync(files[${lf}])`), "EIO");
      assert.equal(await loser.do(`lock(${lf}, SH | NB)`), "EIO");
      assert.equal(await loser.do(`lock(${lf}, UN)`), "EIO");
      assert.equal(await loser.do(`lock(${lf}, EX | NB)`), "EAGAIN");
      assert.equal(await keeper.do(`lock(${kf}, UN)`), "None");
      assert.equal(await loser.do(`lock(${lf}, EX) or get(${lf}, 4)`), "kept");
      assert.equal(await loser.do(`lock(${lf}, UN)`), "None");
    },
  );
  await t.step("a mount that is killed: who waits gets its locks when the lease is over", async () => {
    assert.equal(await pb.do(`lock(${fb}, EX)`), "None");
    await pa.tell(`lock(${fa}, EX)`);
    await house.killMount("b");
    assert.equal(await pa.hear(), "None");
    assert.equal(await pa.do(`lock(${fa}, UN)`), "None");
  });
});
