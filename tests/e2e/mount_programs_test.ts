/** A real server, a real mount and the programs people run on it; then two mounts of one server. */
import assert from "node:assert/strict";
import { mountObstacle, run } from "../support/mount_child.ts";
import { DISK_TESTS } from "../support/posix_of_a_disk.ts";
import { POSIX_TESTS } from "../support/posix_suite.ts";
import { MountHouse } from "./mount_house.ts";

const obstacle = mountObstacle();

function test(name: string, body: (t: Deno.TestContext) => Promise<void>): void {
  Deno.test({ name: obstacle === null ? name : `${name} (skipped: ${obstacle})`, ignore: obstacle !== null, fn: body });
}

/** A shell function that repeats a check until it holds, for ten seconds at most. */
const SOON = `soon() { for _ in $(seq 200); do "$@" && return 0; sleep 0.05; done; return 1; }`;

/** Runs a bash script with its arguments, each of them killed after 50 s; throws with all it printed unless it succeeds. */
async function sh(script: string, ...args: string[]): Promise<string> {
  const ran = await run("timeout", ["50", "bash", "-euo", "pipefail", "-c", script, "bash", ...args]);
  assert.equal(ran.code, 0, `${script}\nexit ${ran.code}\n${ran.out}\n${ran.err}`);
  return ran.out.trim();
}
async function python(script: string, ...args: string[]): Promise<string> {
  const ran = await run("timeout", ["50", "python3", "-c", script, ...args]);
  assert.equal(ran.code, 0, `${ran.out}${ran.err}`);
  return ran.out.trim();
}
async function waitFor(what: string, ms: number, ready: () => Promise<boolean>): Promise<void> {
  const end = Date.now() + ms;
  while (!await ready()) {
    assert.ok(Date.now() < end, `${what}, within ${ms} ms`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Name -> script with $1 = a folder of the mount, $2 = a folder of the machine. */
const PROGRAMS: Readonly<Record<string, string>> = {
  "git clones, commits, checks and finds nothing changed":
    `mkdir "$2/repo"; cd "$2/repo"; git init -q -b main; git config user.email a@b; git config user.name n
    for i in $(seq 120); do mkdir -p d$((i % 7)); seq $((i * 20)) > d$((i % 7))/f$i; done; head -c 400000 /dev/urandom > bin
    git add -A; git commit -qm one; git rm -rq d3; git commit -qm two
    git clone -q "$2/repo" "$1/clone"; cd "$1/clone"; git fsck --full --strict 2>&1; test -z "$(git status --porcelain)"
    git config user.email a@b; git config user.name n; echo more >> d1/f1; git commit -qam three; git checkout -q HEAD~2
    git checkout -q main; git gc -q; git fsck --full; test -z "$(git status --porcelain)"; git push -q origin main:other`,
  "rsync mirrors both ways and the second time has nothing to do":
    `mkdir -p "$2/src/a/b"; cd "$2/src"; for i in $(seq 200); do head -c $((i * 97)) /dev/urandom > a/f$i; done
    head -c 3000000 /dev/urandom > a/b/big; ln a/f1 a/b/hard; ln -s f2 a/link; setfattr -n user.k -v v a/f3 || true
    touch -d '2001-02-03 04:05:06.789012345' a/f4 a/b
    rsync -aHX --checksum "$2/src/" "$1/there/"; test -z "$(rsync -aHX --checksum -ni --delete "$2/src/" "$1/there/")"
    rsync -aHX --checksum "$1/there/" "$2/back/"; test -z "$(rsync -aHX --checksum -ni --delete "$1/there/" "$2/back/")"
    diff -r "$2/src" "$2/back"; [ "$(find "$1/there" | wc -l)" = "$(find "$2/src" | wc -l)" ]`,
  "tar unpacks and packs the same tree":
    `mkdir -p "$2/t/x/y"; cd "$2/t"; for i in $(seq 60); do seq $((i * 30)) > x/f$i; done; ln -s f1 x/l; ln x/f2 x/y/h
    tar cf "$2/a.tar" -C "$2/t" .; mkdir "$1/t"; tar xpf "$2/a.tar" -C "$1/t"; tar df "$2/a.tar" -C "$1/t"
    tar czf "$1/b.tgz" -C "$1/t" .; mkdir "$2/u"; tar xzf "$1/b.tgz" -C "$2/u"; diff -r "$2/t" "$2/u"`,
  "vim edits in place":
    `cd "$1"; printf 'one\\ntwo\\nthree\\n' > text; vim -es -u NONE -c '%s/two/2/' -c 'wq' text; [ "$(cat text)" = "$(printf 'one\\n2\\nthree')" ]
    ls -A | grep -v '^text$' && exit 1; true`,
  "make builds, and builds nothing the second time":
    `cd "$1"; printf 'all: out/a.o\\nout/%%.o: %%.c | out\\n\\tcp $< $@.tmp; sleep 0.02; mv $@.tmp $@\\nout:\\n\\tmkdir out\\n' > Makefile
    echo 'int main;' > a.c; make -s; cmp a.c out/a.o; [ "$(make)" = "make: Nothing to be done for 'all'." ]; sleep 0.02; touch a.c; make -q && exit 1
    make -s; make -q`,
  "cp -a keeps links, attributes, times and holes":
    `mkdir -p "$2/s/d"; cd "$2/s"; seq 50000 > big; ln big d/hard; ln -s ../big d/link; echo x > f; chmod 4750 f
    setfattr -n user.n -v val f || true; truncate -s 20000000 hole; echo end >> hole; touch -d '1999-12-31 23:59:59.123456789' f d
    cp -a "$2/s" "$1/s"; test -z "$(rsync -aHXnic --delete "$2/s/" "$1/s/")"; [ "$(stat -c '%a %.9Y %h' "$1/s/f")" = "$(stat -c '%a %.9Y %h' f)" ]
    cmp hole "$1/s/hole"; test "$1/s/big" -ef "$1/s/d/hard"; cp -a "$1/s" "$1/s2"; test -z "$(rsync -aHXnic --delete "$1/s/" "$1/s2/")"`,
};

/** What this filesystem does not do: files without a name (O_TMPFILE), and holes are not told by st_blocks and SEEK_HOLE. */
const NOT_DONE: ReadonlySet<string> = new Set([
  "O_EXCL, O_APPEND, O_TRUNC, O_TMPFILE and O_DIRECTORY mean what they say",
  "holes are found, punched and preallocated",
]);

const SQLITE = `
import hashlib, os, sqlite3, sys
db = sqlite3.connect(sys.argv[1] + "/rows.db", isolation_level=None)
db.execute("PRAGMA synchronous=FULL")
db.execute("CREATE TABLE t(n INTEGER PRIMARY KEY, v TEXT)")
for n in range(150): db.execute("INSERT INTO t VALUES(?, ?)", (n, hashlib.sha256(str(n).encode()).hexdigest() * 20))
db.execute("BEGIN"); db.execute("DELETE FROM t WHERE n % 3 = 0"); db.execute("COMMIT"); db.execute("VACUUM")
other = sqlite3.connect(sys.argv[1] + "/rows.db")
assert other.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
assert other.execute("SELECT count(*) FROM t").fetchone()[0] == 100
`;

const APPEND = `
import os, subprocess, sys
p = sys.argv[1] + "/log"
open(p, "w").close()
code = "import os, sys; f = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)\\nfor i in range(300): os.write(f, (sys.argv[2] * 40 + chr(10)).encode())"
both = [subprocess.Popen([sys.executable, "-c", code, p, c]) for c in "ab"]
assert [x.wait() for x in both] == [0, 0]
lines = open(p).read().split("\\n")
assert len(lines) == 601 and lines.count("a" * 40) == 300 and lines.count("b" * 40) == 300, len(lines)
`;

const OPEN_FILES = `
import mmap, os, sys
d = sys.argv[1]
old = open(d + "/f", "w+b", buffering=0); old.write(b"old" * 100000)
open(d + "/new", "wb").write(b"new")
os.rename(d + "/new", d + "/f")
assert open(d + "/f", "rb").read() == b"new"
old.seek(0); assert old.read() == b"old" * 100000 and os.fstat(old.fileno()).st_nlink == 0
old.write(b"more"); os.fsync(old.fileno()); old.seek(300000); assert old.read() == b"more"; old.close()
gone = open(d + "/gone", "w+b", buffering=0); gone.write(b"1" * 500000); os.fsync(gone.fileno()); os.unlink(d + "/gone")
gone.write(b"2"); os.fsync(gone.fileno()); gone.seek(499999); assert gone.read() == b"12"; gone.close()
assert not os.path.exists(d + "/gone")
with open(d + "/map", "w+b") as f:
    f.truncate(100000)
    m = mmap.mmap(f.fileno(), 100000); m[0:3] = b"abc"; m[99990:100000] = b"0123456789"; m.flush(); m[50000:50003] = b"xyz"; m.close()
data = open(d + "/map", "rb").read()
assert len(data) == 100000 and data[:3] == b"abc" and data[50000:50003] == b"xyz" and data[-10:] == b"0123456789" and data.count(b"\\0") == 100000 - 16
f = os.open(d + "/size", os.O_RDWR | os.O_CREAT); os.write(f, b"x" * 1000); os.ftruncate(f, 10); os.ftruncate(f, 5000); os.pwrite(f, b"y", 9000); os.close(f)
assert open(d + "/size", "rb").read() == b"x" * 10 + bytes(8990) + b"y"
os.truncate(d + "/size", 3); assert open(d + "/size", "rb").read() == b"xxx"
`;

test("programs work on a mount of a real server, and the server has what they made", async (t) => {
  await using house = new MountHouse(120_000);
  await house.serve();
  const dir = await house.mount("a");
  let number = 0;
  const place = async () => {
    const mounted = `${dir}/p${number}`;
    const local = `${house.folder}/p${number++}`;
    await run("mkdir", [mounted, local]);
    return [mounted, local] as const;
  };
  for (const [name, script] of Object.entries(PROGRAMS)) {
    const [mounted, local] = await place();
    await t.step(name, async () => void await sh(script, mounted, local));
  }
  for (
    const [name, script] of [
      ["sqlite3 with synchronous=FULL", SQLITE],
      ["two processes append to one file", APPEND],
      ["files that are open while they are replaced, removed, mapped and cut", OPEN_FILES],
    ] as const
  ) {
    const [mounted] = await place();
    await t.step(name, async () => void await python(script, mounted));
  }
  for (const [name, body] of Object.entries({ ...POSIX_TESTS, ...DISK_TESTS })) {
    if (NOT_DONE.has(name)) continue;
    const [mounted] = await place();
    await t.step(name, () => body(mounted));
  }
  await t.step("what a lone mount has closed is what the server shows at once, though delivery may wait", async () => {
    const [mounted] = await place();
    const name = mounted.split("/").at(-1) ?? "";
    await sh(
      `for round in 1 2 3; do
        for i in $(seq 150); do echo "$round $i" > "$1/f$i"; done
        [ "$(curl -sS --fail "$2/v1/files/$3/f150")" = "$round 150" ]; rm "$1/f7"
        [ "$(curl -sS -o /dev/null -w '%{http_code}' "$2/v1/files/$3/f7")" = 404 ]
      done`,
      mounted,
      house.url,
      name,
    );
    assert.equal((await (await fetch(`${house.url}/v1/ls/${name}`)).json()).entries.length, 149);
  });
  await t.step("everything reaches the server: a second, fresh mount shows the same tree", async () => {
    const fresh = await house.mount("fresh");
    assert.equal(await sh(`rsync -aHXnic --delete "$1/" "$2/"`, dir, fresh), "");
  });
  await t.step("SIGTERM ends the mount though a file is open, and keeps its bytes", async () => {
    const writer = new Deno.Command("python3", {
      args: [
        "-c",
        `import sys, time\nf = open(sys.argv[1], "w", buffering=1)\nf.write("kept\\n")\nprint("open", flush=True)\ntime.sleep(60)`,
        `${dir}/busy`,
      ],
      stdin: "null",
      stdout: "piped",
    }).spawn();
    const said = writer.stdout.getReader();
    await said.read();
    const ended = house.killMount("a", "SIGTERM");
    await new Promise((resolve) => setTimeout(resolve, 300));
    writer.kill("SIGKILL");
    await writer.status;
    await said.cancel();
    assert.equal(await ended, 0);
    assert.equal(await sh(`cat "$1/busy"`, await house.mount("a")), "kept");
  });
});

test("two mounts of one server show each other what they did", async (t) => {
  await using house = new MountHouse(120_000);
  await house.serve();
  const [a, b] = [await house.mount("a"), await house.mount("b")];
  await t.step("what one closes, the other opens at once: small and large", async () => {
    for (let i = 0; i < 20; i++) {
      await sh(
        `echo "version $3" > "$1/small"; got="$(cat "$2/small")"; [ "$got" = "version $3" ] || { echo "wanted $3, got $got"; exit 1; }`,
        i % 2 ? a : b,
        i % 2 ? b : a,
        `${i}`,
      );
    }
    await sh(`head -c 50000000 /dev/urandom > "$1/large"; cmp "$1/large" "$2/large"`, a, b);
    await sh(
      `printf changed | dd of="$2/large" bs=1 seek=25000000 conv=notrunc status=none; cmp "$1/large" "$2/large"`,
      a,
      b,
    );
  });
  await t.step("the same on a busy machine, also where the other has just seen that there is nothing", async () => {
    await sh(
      `busy=; trap 'kill $busy' EXIT
      for i in 1 2 3; do timeout 45 sh -c 'while :; do :; done' > /dev/null 2>&1 & busy="$busy $!"; done
      for i in $(seq 30); do
        [ ! -e "$2/busy $i" ]; echo one > "$1/busy $i"; [ "$(cat "$2/busy $i")" = one ]
        echo two > "$2/busy $i"; [ "$(cat "$1/busy $i")" = two ]
      done`,
      a,
      b,
    );
  });
  await t.step("rename, unlink, chmod and attributes are seen by the other", async () => {
    // Names and attributes travel behind the program's back: they are there soon, not at once.
    await sh(
      `${SOON}
      private() { [ "$(stat -c %a "$1")" = 600 ]; }
      cd "$1"; echo x > f; cat "$2/f" > /dev/null; mv f g; soon test ! -e "$2/f"; soon test -e "$2/g"
      [ "$(cat "$2/g")" = x ]; chmod 600 "$2/g"; soon private g; rm "$2/g"; soon test ! -e g
      mkdir d; soon test -d "$2/d"; rmdir "$2/d"; soon test ! -d d`,
      a,
      b,
    );
  });
  await t.step("10,000 files that one makes come into the other's listing", async () => {
    await python(
      `import os, sys\nos.mkdir(sys.argv[1])\nfor i in range(10000): os.mknod(f"{sys.argv[1]}/{i:05}")`,
      `${a}/many`,
    );
    await waitFor("10,000 names", 60_000, async () => await sh(`find "$1/many" -type f | wc -l`, b) === "10000");
  });
  await t.step("both write different files in one folder", async () => {
    await sh(
      `${SOON}
      complete() { [ "$(ls "$1" | wc -l)" = 300 ]; }
      mkdir "$1/shared"; soon test -d "$2/shared"; for d in "$1" "$2"; do (for i in $(seq 150); do echo "$d $i" > "$d/shared/$(basename "$d")$i"; done) & done; wait
      soon complete "$1/shared"; soon complete "$2/shared"; diff -r "$1/shared" "$2/shared"`,
      a,
      b,
    );
  });
  await t.step("both write one file at once: either version is whole, on both", async () => {
    await sh(
      `for i in $(seq 20); do (head -c 30000 /dev/zero | tr '\\0' a > "$1/one") & (head -c 30000 /dev/zero | tr '\\0' b > "$2/one") & wait; done`,
      a,
      b,
    );
    await house.drain("a");
    await house.drain("b");
    await waitFor(
      "the same on both",
      3000,
      async () => await sh(`cmp "$1/one" "$2/one" > /dev/null && echo same || echo differs`, a, b) === "same",
    );
    assert.match(
      await sh(`for f in "$1"/one*; do fold -w1 "$f" | sort | uniq -c | sed 's/^ */ /'; done | tr -d '\\n'`, a),
      /^(\s*30000 [ab])+$/,
    );
  });
  await t.step("without the server both go on, and afterwards everybody has both changes", async () => {
    await sh(`echo base > "$1/note.txt"; cat "$2/note.txt"`, a, b);
    await house.killServer();
    await sh(
      `echo "from a" > "$1/note.txt"; echo "from b, longer" > "$2/note.txt"; echo new > "$1/made-away"; cat "$1/note.txt"`,
      a,
      b,
    );
    await house.serve();
    assert.ok(await house.drain("a"));
    assert.ok(await house.drain("b"));
    await waitFor(
      "both versions on both mounts",
      5000,
      async () =>
        await sh(`for d in "$1" "$2"; do (cd "$d"; cat note*.txt made-away | sort | tr '\\n' ,); done`, a, b) ===
          "from a,from b, longer,new,from a,from b, longer,new,",
    );
  });
});

/** $1 = the file on a read-only mount, $2 = a program that changes it elsewhere: what an open file keeps, and a new one shows. */
const READ_WHILE_REPLACED = `
import hashlib, mmap, os, subprocess, sys
path, change = sys.argv[1], sys.argv[2]
digest = lambda f: hashlib.sha256(f.read()).hexdigest()
with open(path, "rb") as f: first = digest(f)
with open(path, "rb") as kept, open(path, "rb") as mapped:
    pages = mmap.mmap(mapped.fileno(), 0, prot=mmap.PROT_READ)
    kept.read(100)
    subprocess.run(["bash", "-c", change], check=True)
    for _ in range(200):
        with open(path, "rb") as f: second = digest(f)
        if second != first: break
    kept.seek(0)
    print(first, digest(kept), second, hashlib.sha256(pages).hexdigest())
with open(path, "rb") as f: print(digest(f))
`;

test("a read-only mount lets the kernel read whole files by itself, and shows new ones when they are opened", async () => {
  await using house = new MountHouse(60_000);
  await house.serve();
  const writer = await house.mount("w");
  await sh(`head -c 5000000 /dev/urandom > "$1/f"; head -c 4000000 /dev/urandom > "$2/new"`, writer, house.folder);
  assert.ok(await house.drain("w"));
  const before = (await sh(`sha256sum "$1/f"`, writer)).split(" ")[0];
  const after = (await sh(`sha256sum "$1/new"`, house.folder)).split(" ")[0];
  const reader = await house.mount("r", { args: ["--read-only"] });
  assert.equal((await sh(`sha256sum "$1/f"`, reader)).split(" ")[0], before);
  const said = await python(
    READ_WHILE_REPLACED,
    `${reader}/f`,
    `cat '${house.folder}/new' > '${writer}/f'`,
  );
  const [first, kept, second, mapped, last] = said.split(/\s+/);
  assert.deepEqual([first, kept, second, mapped, last], [before, before, after, before, after]);
  await sh(`! echo x > "$1/f"`, reader);
});
