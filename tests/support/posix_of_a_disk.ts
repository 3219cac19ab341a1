/** What programs expect of a filesystem that keeps everything a disk would: run over real mounts, beside POSIX_TESTS. */
import assert from "node:assert/strict";
import { bash, run } from "./mount_child.ts";
import type { PosixTest } from "./posix_suite.ts";

async function python(dir: string, script: string): Promise<void> {
  const ran = await run("python3", ["-c", `${PRELUDE}\n${script}`, dir]);
  assert.equal(ran.code, 0, `${ran.out}${ran.err}`);
}

const PRELUDE = `
import ctypes, errno, mmap, os, stat, sys, time
d = sys.argv[1]; os.chdir(d); libc = ctypes.CDLL(None, use_errno=True)
def fails(code, fn, *a, **k):
    try: fn(*a, **k)
    except OSError as e: assert e.errno == code, (e, code); return
    assert False, f"no error {code}"
def fallocate(f, mode, at, n):
    if libc.fallocate(f, mode, ctypes.c_long(at), ctypes.c_long(n)): raise OSError(ctypes.get_errno(), "fallocate")
def linkfd(f, name):
    if libc.linkat(-100, f"/proc/self/fd/{f}".encode(), -100, name.encode(), 0x400): raise OSError(ctypes.get_errno(), "linkat")
def renameat2(a, b, flags):
    if libc.renameat2(-100, a.encode(), -100, b.encode(), flags): raise OSError(ctypes.get_errno(), "rename")
def as_user(uid, groups, fn, *a):
    pid = os.fork()
    if pid == 0:
        code = 0
        try:
            os.setgroups(groups); os.setresgid(uid, uid, uid); os.setresuid(uid, uid, uid); fn(*a)
        except OSError as e: code = e.errno
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
`;

export const DISK_TESTS: Readonly<Record<string, PosixTest>> = {
  "holes: written around, punched, zeroed, preallocated, and seen by du": (dir) =>
    python(
      dir,
      `
f = os.open("h", os.O_RDWR | os.O_CREAT); B = 65536
os.pwrite(f, b"d" * B, 0); os.pwrite(f, b"e" * B, 20 * B)
assert os.lseek(f, 0, os.SEEK_HOLE) == B and os.lseek(f, B, os.SEEK_DATA) == 20 * B
assert os.fstat(f).st_blocks * 512 == 2 * B
fallocate(f, 3, 20 * B, B); assert os.pread(f, 4, 20 * B) == bytes(4) and os.fstat(f).st_size == 21 * B
fails(errno.ENXIO, os.lseek, f, B, os.SEEK_DATA)
fallocate(f, 16, 30 * B, B); assert os.fstat(f).st_size == 31 * B
fallocate(f, 1, 50 * B, B); assert os.fstat(f).st_size == 31 * B
fallocate(f, 0, 39 * B, B); assert os.fstat(f).st_size == 40 * B
fails(errno.EOPNOTSUPP, fallocate, f, 8, 0, B); fails(errno.EOPNOTSUPP, fallocate, f, 2, 0, B)
os.fsync(f); os.close(f); assert open("h", "rb").read() == b"d" * B + bytes(39 * B)
f = os.open("big", os.O_RDWR | os.O_CREAT); os.ftruncate(f, 100 << 30); os.pwrite(f, b"end", (100 << 30) - 3); os.close(f)
assert os.stat("big").st_size == 100 << 30 and os.stat("big").st_blocks < 100000; assert os.stat("h").st_blocks * 512 < 40 * B; os.unlink("big")`,
    ),
  "O_TMPFILE: nothing to see until linkat, and then all of it": (dir) =>
    python(
      dir,
      `
f = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o640); data = os.urandom(3000000); os.write(f, data); os.fchmod(f, 0o604)
os.setxattr(f, "user.t", b"q"); os.utime(f, ns=(5, 6)); assert os.listdir(".") == [] and os.fstat(f).st_nlink == 0
linkfd(f, "named"); s = os.stat("named"); assert (s.st_mode, s.st_nlink, s.st_size, s.st_mtime_ns) == (0o100604, 1, 3000000, 6), s
assert open("named", "rb").read() == data and os.getxattr("named", "user.t") == b"q"
os.write(f, b"more"); os.link("named", "again"); os.close(f); assert os.stat("again").st_size == 3000004
e = os.open(".", os.O_TMPFILE | os.O_WRONLY | os.O_EXCL); fails(errno.ENOENT, linkfd, e, "never"); os.close(e)`,
    ),
  "a whole file is cloned by copy_file_range, and both go on by themselves": (dir) =>
    python(
      dir,
      `
data = os.urandom(3000000); a = os.open("a", os.O_RDWR | os.O_CREAT); os.write(a, data)
for how in (0, os.O_TRUNC, 0):
    b = os.open("b", os.O_RDWR | os.O_CREAT | how); n = 0
    while n < len(data): n += os.copy_file_range(a, b, len(data) - n, n, n)
    assert os.pread(b, len(data) + 1, 0) == data; os.pwrite(b, b"mine", 1000); os.close(b)
    assert open("b", "rb").read() == data[:1000] + b"mine" + data[1004:]; assert os.pread(a, len(data), 0) == data
    os.pwrite(a, b"new", 5); data = data[:5] + b"new" + data[8:]; os.fsync(a)`,
    ),
  "what is removed but held stays: files, attributes, fifos, the working directory": (dir) =>
    python(
      dir,
      `
f = os.open("f", os.O_RDWR | os.O_CREAT); os.setxattr(f, "user.k", b"v"); os.unlink("f"); os.write(f, b"x"); os.fchown(f, 5, 6)
s = os.fstat(f); assert (s.st_nlink, s.st_size, s.st_uid) == (0, 1, 5) and os.getxattr(f, "user.k") == b"v"
os.setxattr(f, "user.z", b"w"); assert sorted(os.listxattr(f)) == ["user.k", "user.z"]; fails(errno.ENOENT, linkfd, f, "back")
os.mkfifo("p"); p = os.open("p", os.O_RDWR); os.unlink("p"); assert os.fstat(p).st_nlink == 0
os.mkdir("w"); os.chdir("w"); os.rmdir("../w"); assert os.listdir(".") == [] and os.stat(".").st_nlink == 0
fails(errno.ENOENT, open, "n", "w")`,
    ),
  "what only a descriptor of O_PATH holds can be opened again, with all it has": (dir) =>
    python(
      dir,
      `
def again(p, flags): return os.open(f"/proc/self/fd/{p}", flags)
os.chmod(".", 0o777); f = os.open("f", os.O_RDWR | os.O_CREAT); os.write(f, b"first"); os.setxattr(f, "user.k", b"v")
p = os.open("f", os.O_PATH); before = os.fstat(f).st_ctime_ns; time.sleep(0.02); os.unlink("f"); assert os.fstat(f).st_ctime_ns > before
os.close(f); time.sleep(0.3); assert os.fstat(p).st_nlink == 0
r = again(p, os.O_RDONLY); assert os.read(r, 9) == b"first" and os.getxattr(r, "user.k") == b"v"; os.close(r)
data = os.urandom(700000); w = again(p, os.O_RDWR); os.pwrite(w, data, 3); os.fsync(w); before = os.fstat(w).st_ctime_ns; time.sleep(0.02)
os.setxattr(w, "user.z", b"w"); changed = os.fstat(w).st_ctime_ns; assert changed > before; os.fchmod(w, 0o4777)
def write(): x = again(p, os.O_WRONLY); os.pwrite(x, b"F", 0); os.close(x)
assert as_user(65534, [], write) == 0 and stat.S_IMODE(os.fstat(p).st_mode) == 0o777; os.close(w); time.sleep(0.3)
r = again(p, os.O_RDONLY); assert os.pread(r, 800000, 0) == b"Fir" + data and os.getxattr(r, "user.z") == b"w"
os.truncate(f"/proc/self/fd/{p}", 4); assert os.pread(r, 9, 0) == b"Fir" + data[:1]; os.close(r); fails(errno.ENOENT, linkfd, p, "back")
os.mkdir("d"); os.setxattr("d", "user.d", b"1"); q = os.open("d", os.O_RDONLY); os.rmdir("d"); assert os.getxattr(q, "user.d") == b"1"
def tmp(): os.open(f"/proc/self/fd/{q}", os.O_TMPFILE | os.O_RDWR)
fails(errno.EPERM, tmp)`,
    ),
  "a file that is replaced all the time is read whole": (dir) =>
    bash(
      dir,
      `cd "$1"; echo 0 > f; ( for i in $(seq 300); do echo "$i" > t; mv t f; done ) & n=0
      while kill -0 $! 2>/dev/null; do read -r x < f; [ -n "$x" ]; n=$((n + 1)); done; [ "$(cat f)" = 300 ]; [ "$n" -gt 20 ]`,
    ).then(() => {}),
  "O_TRUNC truncates whatever else is asked, but no program that runs": (dir) =>
    python(
      dir,
      `
open("f", "w").write("text"); os.close(os.open("f", os.O_RDONLY | os.O_TRUNC)); assert os.stat("f").st_size == 0 and open("f").read() == ""
import shutil, subprocess; shutil.copy("/bin/sleep", "run"); size = os.stat("run").st_size
child = subprocess.Popen(["./run", "30"]); time.sleep(0.2)
for how in (os.O_RDONLY, os.O_WRONLY): fails(errno.ETXTBSY, os.open, "run", how | os.O_TRUNC)
assert os.stat("run").st_size == size; child.kill(); child.wait()`,
    ),
  "setuid and setgid go when they must; a setgid directory gives its group": (dir) =>
    Deno.uid() !== 0 ? Promise.resolve() : python(
      dir,
      `
os.chmod(".", 0o777)
def mode(): return stat.S_IMODE(os.stat("f").st_mode)
os.close(os.open("f", os.O_CREAT)); os.chmod("f", 0o6777); os.chown("f", 7, -1); assert mode() == 0o777
for change in (lambda: fallocate(os.open("f", os.O_RDWR), 0, 0, 50), lambda: fallocate(os.open("f", os.O_RDWR), 3, 0, 5)):
    os.chmod("f", 0o6777); assert as_user(65534, [], change) == 0; assert mode() == 0o777, oct(mode())
os.chmod("f", 0o4777); assert as_user(65534, [], os.chown, "f", -1, -1) in (0, errno.EPERM); assert mode() == 0o4777
os.mkdir("g"); os.chown("g", 0, 1234); os.chmod("g", 0o2777)
assert as_user(65534, [], os.mkdir, "g/d") == 0 and as_user(65534, [], lambda: os.open("g/f", os.O_CREAT)) == 0
assert os.stat("g/d").st_gid == os.stat("g/f").st_gid == 1234 and os.stat("g/d").st_mode & 0o2000 and not os.stat("g/f").st_mode & 0o2000
os.mkdir("s"); os.chmod("s", 0o1777); open("s/x", "w").close(); assert as_user(65534, [], os.unlink, "s/x") == errno.EPERM
os.chmod("g", 0o070); os.chown("g", 0, 1234); assert as_user(65534, [], os.listdir, "g") == errno.EACCES and as_user(65534, [1234], os.listdir, "g") == 0`,
    ),
  "attributes of three namespaces, each for whom it is for": (dir) =>
    Deno.uid() !== 0 ? Promise.resolve() : python(
      dir,
      `
open("x", "w").close(); os.chmod(".", 0o777); os.chmod("x", 0o666)
for n in ("user.a", "trusted.a", "security.a"): os.setxattr("x", n, n.encode()); assert os.getxattr("x", n) == n.encode()
assert sorted(os.listxattr("x")) == ["security.a", "trusted.a", "user.a"]
def listed():
    if sorted(os.listxattr("x")) != ["security.a", "user.a"]: raise OSError(1, "")
assert as_user(65534, [], listed) == 0; assert as_user(65534, [], os.setxattr, "x", "trusted.a", b"1") == errno.EPERM
fails(errno.EOPNOTSUPP, os.setxattr, "x", "system.a", b"1"); fails(errno.EINVAL, os.setxattr, "x", "user.", b"1")
fails(errno.ERANGE, os.setxattr, "x", "user." + "n" * 251, b"1"); os.setxattr("x", "user." + "n" * 250, b"1")
fails(errno.E2BIG, os.setxattr, "x", "user.b", bytes(65537)); os.setxattr("x", "user.b", bytes(65536))
os.setxattr("x", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
open("x", "a").write("y"); fails(errno.ENODATA, os.getxattr, "x", "security.capability")`,
    ),
  "fifos, sockets, devices and whiteouts are made; a device can't be opened": (dir) =>
    Deno.uid() !== 0 ? Promise.resolve() : python(
      dir,
      `
import socket
os.mkfifo("p", 0o600); s = socket.socket(socket.AF_UNIX); s.bind("s"); os.mknod("c", 0o644 | stat.S_IFCHR, os.makedev(1, 3))
os.mknod("b", 0o600 | stat.S_IFBLK, os.makedev(259, 70000)); assert os.stat("b").st_rdev == os.makedev(259, 70000)
assert stat.S_ISFIFO(os.stat("p").st_mode) and stat.S_ISSOCK(os.stat("s").st_mode) and os.stat("c").st_rdev == os.makedev(1, 3)
fails(errno.EACCES, os.open, "c", os.O_RDONLY); r = os.open("p", os.O_RDWR); os.write(r, b"hi"); assert os.read(r, 2) == b"hi"
open("f", "w").write("f"); renameat2("f", "g", 4); assert os.stat("f").st_rdev == 0 and stat.S_ISCHR(os.stat("f").st_mode)`,
    ),
  "times: nanoseconds, before 1970, after 2106, and which of them a change moves": (dir) =>
    python(
      dir,
      `
open("f", "w").close()
for t in (1, -1, -5 * 10**9 + 7, 2**33 * 10**9 + 999999999): os.utime("f", ns=(t, t)); assert os.stat("f").st_mtime_ns == t
def moved(fn):
    a = os.stat("f"); time.sleep(0.01); fn(); b = os.stat("f")
    return (a.st_mtime_ns != b.st_mtime_ns, a.st_ctime_ns != b.st_ctime_ns)
assert moved(lambda: os.chmod("f", 0o600)) == (False, True); assert moved(lambda: os.link("f", "g")) == (False, True)
assert moved(lambda: os.rename("g", "h")) == (False, True); assert moved(lambda: os.setxattr("f", "user.a", b"")) == (False, True)
assert moved(lambda: open("f", "w").close()) == (True, True); assert moved(lambda: os.truncate("f", 9)) == (True, True)
assert moved(lambda: os.chown("f", -1, -1)) == (False, True); assert moved(lambda: open("f").close()) == (False, False)`,
    ),
  "access times by relatime: the first read after a change counts, the next does not, O_NOATIME never": (dir) =>
    python(
      dir,
      `
def read(name, flags=0):
    f = os.open(name, os.O_RDONLY | flags); data = os.read(f, 100); os.close(f); return data
def access(name): return os.stat(name).st_atime_ns
open("f", "w").write("text"); made = access("f"); time.sleep(0.02); now = time.time_ns() - 10**7
read("f", os.O_NOATIME); assert access("f") == made
assert read("f") == b"text"; first = access("f"); assert first > now, (first, now)
c = os.stat("f").st_ctime_ns; time.sleep(0.02); read("f"); read("f"); assert access("f") == first and os.stat("f").st_ctime_ns == c
time.sleep(0.02); os.chmod("f", 0o600); read("f"); second = access("f"); assert second > first
time.sleep(0.02); open("f", "a").write("more"); assert access("f") == second; read("f"); assert access("f") > second
os.utime("f", ns=(0, time.time_ns() - 10**9)); assert access("f") == 0; read("f"); assert access("f") > now
old = time.time_ns() - 2 * 86400 * 10**9; os.utime("f", ns=(old, old - 1)); read("f"); assert access("f") > now
os.mkdir("d"); open("d/x", "w").close(); before = access("d"); time.sleep(0.02); os.listdir("d"); assert access("d") > before
os.utime("d", ns=(0, time.time_ns())); o = os.open("d", os.O_RDONLY | os.O_NOATIME); os.listdir(o); os.close(o); assert access("d") == 0
os.listdir("d"); assert access("d") > before
r = os.open("f", os.O_RDONLY); os.read(r, 1); time.sleep(0.02); os.utime("f", ns=(0, time.time_ns())); os.posix_fadvise(r, 0, 0, os.POSIX_FADV_DONTNEED)
os.pread(r, 1, 0); assert access("f") > before; os.utime("f", ns=(0, time.time_ns())); os.read(os.open("f", os.O_RDWR), 1); assert access("f") > before
os.symlink("f", "l"); made = os.lstat("l").st_atime_ns; time.sleep(0.02); os.readlink("l"); assert os.lstat("l").st_atime_ns > made
os.utime("f", ns=(0, 0)); read("f"); assert access("f") > before; os.link("f", "again"); assert access("f") > before
s = os.statvfs("."); assert 0 < s.f_files - s.f_ffree < s.f_files`,
    ),
  "too long, too deep, too many": async (dir) => {
    await python(
      dir,
      `
fails(errno.ENAMETOOLONG, open, "n" * 256, "w"); fails(errno.ENAMETOOLONG, os.stat, "./" * 2100); open("n" * 255, "w").close()
os.symlink("b", "a"); os.symlink("a", "b"); fails(errno.ELOOP, os.stat, "a"); fails(errno.ELOOP, os.open, "a", os.O_NOFOLLOW)
os.symlink("s" * 4095, "long"); assert os.readlink("long") == "s" * 4095; fails(errno.ENAMETOOLONG, os.symlink, "s" * 4096, "longer")
f = os.open("f", os.O_CREAT | os.O_RDWR); fails(errno.EFBIG, fallocate, f, 0, 2**62, 5); fails(errno.EINVAL, os.lseek, f, -1, 0)`,
    );
    await bash(
      dir,
      `cd "$1"; d=$(df -P . | awk 'END {print $2, $3, $4}'); set -- $d; [ "$1" -gt 0 ]; [ "$3" -le "$1" ]`,
    );
  },
  "many writers with O_APPEND lose nothing": (dir) =>
    bash(
      dir,
      `cd "$1"; for p in 1 2 3 4; do ( for i in $(seq 100); do echo "line $p $i" >> log; done ) & done; wait
      [ "$(wc -l < log)" = 400 ]; [ "$(sort -u log | wc -l)" = 400 ]; ! grep -qvE '^line [1-4] [0-9]+$' log`,
    ).then(() => {}),
};
