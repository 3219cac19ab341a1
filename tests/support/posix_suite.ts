/** What programs expect of a mounted filesystem: one map, name -> test, run over every filesystem that is mounted. */
import assert from "node:assert/strict";
import { bash, run } from "./mount_child.ts";

/** A test gets an empty directory inside the mount. */
export type PosixTest = (dir: string) => Promise<void>;

/** Runs Python with the directory as argv[1]; it fails by raising. */
async function python(dir: string, script: string): Promise<string> {
  const ran = await run("python3", ["-c", script, dir]);
  assert.equal(ran.code, 0, `${ran.out}${ran.err}`);
  return ran.out.trim();
}

/** renameat2(2), which Python's library does not have. */
const RENAMEAT2 = `
import ctypes, os, sys
d = sys.argv[1]
libc = ctypes.CDLL(None, use_errno=True)
def renameat2(a, b, flags):
    if libc.renameat2(-100, os.fsencode(a), -100, os.fsencode(b), flags):
        return ctypes.get_errno()
    return 0
`;

export const POSIX_TESTS: Readonly<Record<string, PosixTest>> = {
  "bash reads back what it wrote, appended and truncated": async (dir) => {
    assert.equal(await bash(dir, `cd "$1"; echo one > a; echo two >> a; cat a`), "one\ntwo");
    assert.equal(
      await bash(dir, `cd "$1"; truncate -s 3 a; cat a; truncate -s 10 a; stat -c %s a; : > a; stat -c %s a`),
      "one10\n0",
    );
  },
  "a tree copied with cp -a is the same tree": async (dir) => {
    await bash(
      dir,
      `cd "$1"; mkdir -p s/deep/er; seq 100000 > s/big; echo x > s/deep/er/f; ln -s ../big s/deep/link
      ln s/big s/hard; chmod 4751 s/deep/er/f; touch -d '2001-02-03 04:05:06.789012345' s/deep/er/f; mkfifo s/pipe
      touch -d '1969-07-20 20:17:40.5' s/old; cp -a s t; diff -r --no-dereference s t --exclude=pipe
      cmp s/big t/big; test s/hard -ef s/big; test t/hard -ef t/big; test "$(readlink t/deep/link)" = ../big
      test -p t/pipe
      [ "$(stat -c '%a %.9Y' t/deep/er/f)" = "4751 981173106.789012345" ]
      [ "$(stat -c %.1Y t/old)" = "$(stat -c %.1Y s/old)" ]; stat -c %.1Y t/old | grep -q '^-'`,
    );
  },
  "rsync -aHX mirrors a tree and then finds nothing to do": async (dir) => {
    const again = await bash(
      dir,
      `cd "$1"; mkdir -p s/a/b; for i in $(seq 50); do echo $i > s/a/f$i; done; ln s/a/f1 s/a/b/h
      setfattr -n user.k -v v s/a/f2; rsync -aHX s/ t/; diff -r s t; rsync -aHXni s/ t/`,
    );
    assert.equal(again, "");
  },
  "hard links share one inode and count": async (dir) => {
    assert.equal(
      await bash(
        dir,
        `cd "$1"; echo x > a; ln a b; ln b c; stat -c %h a; rm a; stat -c %h b; echo y >> c; cat b
        ln b c 2>/dev/null || echo refused`,
      ),
      "3\n2\nx\ny\nrefused",
    );
  },
  "rename replaces files, refuses what POSIX refuses": async (dir) => {
    await bash(
      dir,
      `cd "$1"; echo 1 > a; echo 2 > b; mv a b; [ "$(cat b)" = 1 ]; [ ! -e a ]; mkdir d e; touch e/x; mv b d/
      mv d/b .; ! mv -T d e 2>/dev/null; rm e/x; mv -T d e; [ ! -d d ]; ! mv -T b e 2>/dev/null; ! mv -T e b 2>/dev/null
      ! mv e e/inside 2>/dev/null`,
    );
  },
  "RENAME_NOREPLACE and RENAME_EXCHANGE work": async (dir) => {
    await python(
      dir,
      `${RENAMEAT2}
a, b, c = (os.path.join(d, n) for n in "abc")
open(a, "w").write("A"); open(b, "w").write("B")
assert renameat2(a, b, 1) == 17
assert renameat2(a, c, 1) == 0 and open(c).read() == "A"
assert renameat2(c, b, 2) == 0 and open(c).read() == "B" and open(b).read() == "A"
assert renameat2(c, a, 2) == 2
assert renameat2(c, b, 8) == 22
os.mkdir(a); os.mkdir(a + "/in")
assert renameat2(a, b, 2) == 0 and os.path.isdir(b + "/in") and open(a).read() == "A"`,
    );
  },
  "directories are made, listed, counted and removed only when empty": async (dir) => {
    await bash(
      dir,
      `cd "$1"; mkdir d; touch d/f; ! rmdir d 2>/dev/null; rm d/f; rmdir d; ! rmdir d 2>/dev/null
      mkdir -p x/y/z; [ "$(stat -c %h x)" = 3 ]; [ "$(find . | sort | tr '\\n' ' ')" = ". ./x ./x/y ./x/y/z " ]
      rm -r x; [ -z "$(ls -A)" ]; ! mkdir a/b 2>/dev/null; touch f; ! mkdir f 2>/dev/null; ! mkdir f/d 2>/dev/null`,
    );
  },
  "names of any bytes survive: newlines, quotes, non-UTF-8, 255 bytes": async (dir) => {
    await python(
      dir,
      `
import os, sys
d = os.fsencode(sys.argv[1])
names = [b"new\\nline", b" lead", b"trail ", b"-rf", b"a\\\\b", b"q'\\"\`$x", "h\u00e9llo/".encode()[:-1], b"\\xff\\xfe.txt", b"\\xe2\\x28\\xa1",
         b"x" * 255, "\\U0001f600".encode() * 63 + b"abc", b"\\xed\\xa0\\x80", "\\ufeffbom".encode(), b"...", b"~", b"*?", b"\\xf0\\x9f\\x98", b"caf\\xc3\\xa9", b"cafe\\xcc\\x81"]
for n in names:
    with open(d + b"/" + n, "wb") as f: f.write(n)
assert sorted(os.listdir(d)) == sorted(names), os.listdir(d)
for n in names:
    assert open(d + b"/" + n, "rb").read() == n
    os.rename(d + b"/" + n, d + b"/tmp"); os.rename(d + b"/tmp", d + b"/" + n)
    os.symlink(n, d + b"/link"); assert os.readlink(d + b"/link") == n; os.unlink(d + b"/link")
try: open(d + b"/" + b"y" * 256, "wb"); assert False
except OSError as e: assert e.errno == 36
for n in names: os.unlink(d + b"/" + n)
assert os.listdir(d) == []`,
    );
  },
  "an unlinked file lives while it is open": async (dir) => {
    await python(
      dir,
      `
import os, sys
p = sys.argv[1] + "/gone"
f = open(p, "w+b"); f.write(b"still here"); f.flush(); os.unlink(p)
assert not os.path.exists(p)
f.seek(0); assert f.read() == b"still here"
f.write(b", and more"); f.flush(); os.ftruncate(f.fileno(), 30)
s = os.fstat(f.fileno()); assert s.st_nlink == 0 and s.st_size == 30, s
f.close(); open(p, "w").close(); assert os.stat(p).st_size == 0
g = open(p, "rb"); os.rename(p, p + "2"); open(p, "w").write("other"); os.rename(p, p + "2"); assert g.read() == b""; assert os.fstat(g.fileno()).st_nlink == 0`,
    );
  },
  "O_EXCL, O_APPEND, O_TRUNC, O_TMPFILE and O_DIRECTORY mean what they say": async (dir) => {
    await python(
      dir,
      `
import ctypes, os, sys
d = sys.argv[1]; p = d + "/f"
os.close(os.open(p, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
try: os.open(p, os.O_CREAT | os.O_EXCL | os.O_WRONLY); assert False
except FileExistsError: pass
a = os.open(p, os.O_WRONLY | os.O_APPEND); b = os.open(p, os.O_WRONLY | os.O_APPEND)
for i in range(100): os.write(a, b"a" * 10); os.write(b, b"b" * 10)
assert os.stat(p).st_size == 2000 and open(p).read() == ("a" * 10 + "b" * 10) * 100
os.close(os.open(p, os.O_WRONLY | os.O_TRUNC)); assert os.stat(p).st_size == 0
t = os.open(d, os.O_TMPFILE | os.O_RDWR, 0o600); os.write(t, b"unnamed"); assert os.fstat(t).st_nlink == 0 and os.listdir(d) == ["f"]
assert ctypes.CDLL(None).linkat(-100, f"/proc/self/fd/{t}".encode(), -100, (d + "/named").encode(), 0x400) == 0; assert open(d + "/named").read() == "unnamed"
try: os.open(p, os.O_DIRECTORY | os.O_RDONLY); assert False
except NotADirectoryError: pass
try: os.open(d, os.O_WRONLY); assert False
except IsADirectoryError: pass`,
    );
  },
  "extended attributes are set, listed, replaced and removed": async (dir) => {
    await bash(
      dir,
      `cd "$1"; echo x > f; mkdir d
      setfattr -n user.one -v 'hello world' f; setfattr -n user.bin -v 0x00ff0a f; setfattr -n user.dir -v d d
      [ "$(getfattr --only-values -n user.one f)" = 'hello world' ]; getfattr -e hex -n user.bin f | grep -q '=0x00ff0a$'
      [ "$(getfattr f | grep -c ^user)" = 2 ]; setfattr -n user.one -v two f; [ "$(getfattr --only-values -n user.one f)" = two ]
      setfattr -x user.one f; ! getfattr -n user.one f 2>/dev/null; ! setfattr -x user.one f 2>/dev/null`,
    );
    await python(
      dir,
      `
import os, sys
p = sys.argv[1] + "/f"
os.setxattr(p, "user.k", b"v", os.XATTR_CREATE)
for flag, code in ((os.XATTR_CREATE, 17), (os.XATTR_REPLACE, 61)):
    try: os.setxattr(p, "user.k" if flag == os.XATTR_CREATE else "user.none", b"w", flag); assert False
    except OSError as e: assert e.errno == code, e
big = os.urandom(60000); os.setxattr(p, "user.big", big); assert os.getxattr(p, "user.big") == big
import ctypes
libc = ctypes.CDLL(None, use_errno=True); b = ctypes.create_string_buffer(10)
assert libc.getxattr(p.encode(), b"user.big", b, 10) == -1 and ctypes.get_errno() == 34
assert libc.getxattr(p.encode(), b"user.big", None, 0) == 60000
os.setxattr(p, "user.empty", b""); assert os.getxattr(p, "user.empty") == b""`,
    );
  },
  "fcntl and flock locks exclude other processes and end with their owner": async (dir) => {
    await python(
      dir,
      `
import fcntl, os, struct, sys, time
p = sys.argv[1] + "/lock"; f = open(p, "w+b"); f.write(b"x" * 100); f.flush()
def child(fn):
    pid = os.fork()
    if pid == 0:
        try: os._exit(fn())
        except BaseException as e:
            print("child:", repr(e)); sys.stdout.flush(); os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
def attempt(kind, start, length):
    def go():
        g = open(p, "r+b")
        try: fcntl.lockf(g, kind | fcntl.LOCK_NB, length, start)
        except OSError as e: return e.errno
        return 0
    return go
fcntl.lockf(f, fcntl.LOCK_EX, 50, 10)
assert child(attempt(fcntl.LOCK_EX, 0, 20)) == 11
assert child(attempt(fcntl.LOCK_SH, 59, 1)) == 11
assert child(attempt(fcntl.LOCK_EX, 60, 0)) == 0
assert child(attempt(fcntl.LOCK_EX, 0, 10)) == 0
def who():
    g = open(p, "r+b"); r = fcntl.fcntl(g, fcntl.F_GETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
    t, w, s, l, pid = struct.unpack("hhqqi4x", r)
    return 0 if (t, s, l, pid) == (fcntl.F_WRLCK, 10, 50, os.getppid()) else 1
assert child(who) == 0
fcntl.lockf(f, fcntl.LOCK_UN, 10, 20)
assert child(attempt(fcntl.LOCK_EX, 20, 10)) == 0 and child(attempt(fcntl.LOCK_EX, 30, 1)) == 11
open(p, "rb").close()  # closing any descriptor drops them all (POSIX)
assert child(attempt(fcntl.LOCK_EX, 0, 0)) == 0
r, w = os.pipe(); pid = os.fork()
if pid == 0:
    g = open(p, "r+b"); fcntl.lockf(g, fcntl.LOCK_EX); os.write(w, b"!"); time.sleep(0.2); os._exit(0)
os.read(r, 1); fcntl.lockf(f, fcntl.LOCK_EX); os.waitpid(pid, 0); fcntl.lockf(f, fcntl.LOCK_UN)
def fl(kind):
    def go():
        g = open(p, "rb")
        try: fcntl.flock(g, kind | fcntl.LOCK_NB)
        except OSError as e: return e.errno
        return 0
    return go
fcntl.flock(f, fcntl.LOCK_SH)
assert child(fl(fcntl.LOCK_SH)) == 0 and child(fl(fcntl.LOCK_EX)) == 11
f.close(); assert child(fl(fcntl.LOCK_EX)) == 0`,
    );
  },
  "a wait for a lock ends with EINTR when a signal is caught": async (dir) => {
    await python(
      dir,
      `
import fcntl, os, signal, sys, time
p = sys.argv[1] + "/lock"; f = open(p, "w+b"); fcntl.lockf(f, fcntl.LOCK_EX)
pid = os.fork()
if pid == 0:
    class Caught(Exception): pass
    def handler(*a): raise Caught()
    signal.signal(signal.SIGALRM, handler); signal.setitimer(signal.ITIMER_REAL, 0.1)
    g = open(p, "r+b")
    try: fcntl.lockf(g, fcntl.LOCK_EX)
    except Caught: os._exit(7)
    os._exit(1)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7`,
    );
  },
  "holes are found, punched and preallocated": async (dir) => {
    await python(
      dir,
      `
import ctypes, os, sys
p = sys.argv[1] + "/sparse"; f = os.open(p, os.O_RDWR | os.O_CREAT)
os.pwrite(f, b"d" * 4096, 0); os.pwrite(f, b"e" * 4096, 1 << 20)
assert os.lseek(f, 0, os.SEEK_HOLE) == 4096
assert os.lseek(f, 4096, os.SEEK_DATA) == 1 << 20
assert os.lseek(f, 1 << 20, os.SEEK_HOLE) == (1 << 20) + 4096
try: os.lseek(f, 1 << 21, os.SEEK_DATA); assert False
except OSError as e: assert e.errno == 6
os.posix_fallocate(f, 0, 3 << 20); assert os.fstat(f).st_size == 3 << 20
libc = ctypes.CDLL(None, use_errno=True)
assert libc.fallocate(f, 3, ctypes.c_long(0), ctypes.c_long(4096)) == 0
assert os.pread(f, 4096, 0) == bytes(4096) and os.fstat(f).st_size == 3 << 20`,
    );
    await bash(dir, `cd "$1"; cp --sparse=always sparse copy; cmp sparse copy`);
  },
  "copy_file_range copies inside the filesystem": async (dir) => {
    await python(
      dir,
      `
import os, sys
d = sys.argv[1]; data = os.urandom(3 << 20); open(d + "/a", "wb").write(data)
a = os.open(d + "/a", os.O_RDONLY); b = os.open(d + "/b", os.O_RDWR | os.O_CREAT); n = 0
while n < len(data):
    k = os.copy_file_range(a, b, len(data) - n); assert k > 0; n += k
assert os.copy_file_range(a, b, 100) == 0
assert open(d + "/b", "rb").read() == data
assert os.copy_file_range(a, b, 1000, 500, 100) == 1000 and os.pread(b, 1000, 100) == data[500:1500]`,
    );
  },
  "dd in odd block sizes, at offsets and with O_DIRECT gives the same bytes": async (dir) => {
    await bash(
      dir,
      `cd "$1"; head -c 5000001 /dev/urandom > "/tmp/anyfs-dd.$$"; r="/tmp/anyfs-dd.$$"; trap 'rm -f "$r"' EXIT
      dd if="$r" of=a bs=777 status=none; cmp "$r" a; dd if="$r" of=b bs=1M status=none; cmp "$r" b
      dd if=b of=c bs=4096 iflag=direct oflag=direct status=none count=1000; cmp -n 4096000 c "$r"
      dd if="$r" of=b bs=1000 skip=3 seek=3 count=2000 conv=notrunc,fsync status=none; cmp "$r" b
      dd if=b of=/dev/null bs=1M oflag=dsync status=none; dd if="$r" of=s bs=64k oflag=sync status=none count=4; cmp -n 262144 s "$r"; sync -f .`,
    );
  },
  "memory maps, shared and private, agree with reads": async (dir) => {
    await python(
      dir,
      `
import mmap, os, sys
p = sys.argv[1] + "/m"; f = open(p, "w+b"); f.truncate(1 << 20); m = mmap.mmap(f.fileno(), 1 << 20)
m[5000:5005] = b"mmap!"; m.flush(); assert os.pread(f.fileno(), 5, 5000) == b"mmap!"
os.pwrite(f.fileno(), b"write", 9000); assert m[9000:9005] == b"write"
m[70000:70004] = b"late"; m.close(); f.close(); assert open(p, "rb").read()[70000:70004] == b"late"`,
    );
  },
  "chmod, chown, touch and the umask": async (dir) => {
    await bash(
      dir,
      `cd "$1"; umask 027; touch f; mkdir d; [ "$(stat -c %a f)" = 640 ]; [ "$(stat -c %a d)" = 750 ]
      chmod 6755 f; [ "$(stat -c %a f)" = 6755 ]; touch -d @1000000000.5 f; [ "$(stat -c %.1Y f)" = 1000000000.5 ]
      touch -a -d @5 f; [ "$(stat -c '%X %Y' f)" = "5 1000000000" ]; touch -m -d @-5 f; [ "$(stat -c %Y f)" = -5 ]
      c=$(stat -c %Z f); [ "$c" -gt 1000000000 ]; [ "$(stat -c %W f)" -gt 1000000000 ]
      if [ "$(id -u)" = 0 ]; then chown 12:34 f; [ "$(stat -c %u:%g f)" = 12:34 ]; fi`,
    );
  },
  "a write by another user clears setuid": async (dir) => {
    if (Deno.uid() !== 0) return;
    // The kernel learns of the new mode a moment later.
    await bash(
      dir,
      `chmod 777 "$1"; cd "$1"; other() { setpriv --reuid 65534 --regid 65534 --clear-groups "$@"; }
      cleared() { for i in $(seq 200); do [ "$(stat -c %a f)" != 777 ] || return 0; done; stat f; return 1; }
      echo x > f; chmod 6777 f; other sh -c 'echo y >> f'; cleared
      chmod 6777 f; other sh -c ': > f'; cleared
      chmod 6777 f; other truncate -s 1 f; cleared
      chmod 700 f; ! other cat f 2>/dev/null`,
    );
  },
  "seekdir and rewinddir find their places": async (dir) => {
    await bash(dir, `cd "$1"; seq -f 'f%05g' 3000 | xargs touch`);
    await python(
      dir,
      `
import ctypes, os, sys
d = sys.argv[1]
libc = ctypes.CDLL(None)
class Dirent(ctypes.Structure):
    _fields_ = [("ino", ctypes.c_uint64), ("off", ctypes.c_int64), ("len", ctypes.c_uint16), ("type", ctypes.c_uint8), ("name", ctypes.c_char * 256)]
libc.opendir.restype = ctypes.c_void_p; libc.readdir.restype = ctypes.POINTER(Dirent); libc.telldir.restype = ctypes.c_long
libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
for f in ("readdir", "telldir", "rewinddir", "closedir"): getattr(libc, f).argtypes = [ctypes.c_void_p]
h = libc.opendir(d.encode()); seen = []
while True:
    at = libc.telldir(h); e = libc.readdir(h)
    if not e: break
    seen.append((at, e.contents.name))
names = [n for _, n in seen]; assert len(names) == 3002 == len(set(names)), len(names)
for i in (2500, 10, 0, 1, 2, 3001, 1500, 1024, 1025, 2050, 2999):
    libc.seekdir(h, seen[i][0]); assert libc.readdir(h).contents.name == names[i], i
open(d + "/zz-new", "w").close()
libc.rewinddir(h); again = []
while True:
    e = libc.readdir(h)
    if not e: break
    again.append(e.contents.name)
assert sorted(again) == sorted(names + [b"zz-new"])
libc.closedir(h)`,
    );
    assert.equal(await bash(dir, `cd "$1"; rm -f f*; ls`), "zz-new");
  },
  "statfs and statx answer": async (dir) => {
    await bash(
      dir,
      `cd "$1"; [ "$(stat -f -c %l .)" = 255 ]; df -P . | tail -1 | grep -q '%'; echo x > f
      [ "$(stat -c %B f)" = 512 ]; [ "$(stat --cached=never -c '%s %h %F' f)" = '2 1 regular file' ]`,
    );
  },
  "many processes create, rename and remove in one directory": async (dir) => {
    await bash(
      dir,
      `cd "$1"; for p in $(seq 6); do ( for i in $(seq 60); do echo $p > t$p.$i; mv t$p.$i m$p.$i; cat m$p.$i > /dev/null
      [ $((i % 2)) = 0 ] && rm m$p.$i || :; done ) & done; wait; [ "$(ls | wc -l)" = 180 ]`,
    );
  },
};
