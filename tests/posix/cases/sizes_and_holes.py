"""truncate(2), fallocate(2), holes and what stat tells of a size."""

import errno, os, resource, signal, time
from case import USER, add, case, digest, make, read_file, write_file
from system_calls import FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_UNSHARE_RANGE, FALLOC_ZERO_RANGE, raw


def truncation(c, how, size0):
    write_file("a", b"abcdefgh" * (size0 // 8))
    os.chown("a", USER, USER)
    fd = os.open("a", os.O_RDWR)
    c.watch("a", ".")

    def cut(n):
        return raw.truncate("a", n) if how == "path" else raw.ftruncate(fd, n)

    for n in (size0, size0 + 1, size0 + 5000, 10, 4096, 0, 0, 123456, 123456, 3, 2**32 + 7, 1):
        c.step(f"to {n}", cut, n)
        if n < 200000:
            c.note("data", digest(read_file("a")))
    for n in (-1, -(2**63), 2**63 - 1):
        c.step(f"to {n}", cut, n)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))
    c.step("over limit", cut, 5001)
    c.step("in limit", cut, 5000)
    c.step("write over limit", os.pwrite, fd, b"x" * 100, 4950)
    c.step("write beyond", os.pwrite, fd, b"x", 5000)
    c.step("fallocate over limit", raw.fallocate, fd, 0, 0, 6000)


for how in ("path", "fd"):
    for n in (0, 8, 8192, 200000):
        add(f"truncate/{how}/{n}", truncation, how, n)


@case
def truncate__errors(c):
    write_file("a", b"x")
    os.mkdir("d")
    os.mkfifo("p")
    os.symlink("a", "l")
    os.symlink("d", "ld")
    make("sock", "s")
    make("chr", "n")
    c.watch("a", "d", "p")
    for p in ("d", "p", "s", "n", "l", "ld", ".", "d/"):
        c.step(p, raw.truncate, p, 0)
    fd = os.open("a", os.O_RDONLY)
    c.step("read only", raw.ftruncate, fd, 0)
    fd = os.open("a", os.O_PATH)
    c.step("O_PATH", raw.ftruncate, fd, 0)
    fd = os.open("d", os.O_RDONLY)
    c.step("dir", raw.ftruncate, fd, 0)
    fd = os.open("p", os.O_RDWR)
    c.step("fifo", raw.ftruncate, fd, 0)
    c.step("bad fd", raw.ftruncate, 999, 0)
    for mode in (0o444, 0o222, 0o000):
        os.chmod("a", mode)
        os.chown("a", USER, USER)
        c.step(f"user {mode:o}", c.as_user, USER, raw.truncate, "a", 2)
    os.chmod("a", 0o400)
    c.step("root", raw.truncate, "a", 3)
    # opened for writing before the permission went
    os.chmod("a", 0o600)
    c.become(USER)
    fd = os.open("a", os.O_RDWR)
    os.chmod("a", 0)
    c.step("by fd", raw.ftruncate, fd, 9)
    c.step("write", os.write, fd, b"1")


def allocation(c, size, mode, off, ln):
    write_file("a", bytes(range(256)) * (size // 256))
    fd = os.open("a", os.O_RDWR)
    c.watch("a")
    c.step("fallocate", raw.fallocate, fd, mode, off, ln)
    c.note("data", digest(os.pread(fd, 1 << 21, 0)))
    os.close(fd)
    c.note("again", digest(read_file("a")))


MODES = {
    "allocate": 0,
    "keep": FALLOC_KEEP_SIZE,
    "punch": FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE,
    "zero": FALLOC_ZERO_RANGE,
    "zero_keep": FALLOC_ZERO_RANGE | FALLOC_KEEP_SIZE,
}
NO_MODES = {
    "punch_without_keep": FALLOC_PUNCH_HOLE,
    "zero_and_punch": FALLOC_ZERO_RANGE | FALLOC_PUNCH_HOLE,
    "unknown": 0x100,
    "unshare": FALLOC_UNSHARE_RANGE,
}
"""those that ext4 does not have"""
RANGES = (
    (0, 4096),
    (1000, 5000),
    (65536, 65536),
    (100000, 100000),
    (0, 0),
    (-1, 10),
    (10, -1),
    (0, 2**63 - 1),
    (2**62, 2**62),
)
for size in (0, 4096, 131072):
    for mode in {**MODES, **NO_MODES}:
        for offset, length in RANGES:
            if mode in NO_MODES and (size == 131072 or offset != 0):
                continue
            name = f"fallocate/{size}/{mode}/{offset}+{length}"
            add(name, allocation, size, {**MODES, **NO_MODES}[mode], offset, length)


@case
def fallocate__errors(c):
    write_file("a", b"x")
    os.mkdir("d")
    os.mkfifo("p")
    c.watch("a")
    for label, fd in (
        ("ro", os.open("a", os.O_RDONLY)),
        ("path", os.open("a", os.O_PATH)),
        ("dir", os.open("d", os.O_RDONLY)),
        ("fifo", os.open("p", os.O_RDWR)),
        ("wo", os.open("a", os.O_WRONLY)),
        ("append", os.open("a", os.O_WRONLY | os.O_APPEND)),
        ("bad", 999),
    ):
        for m in (0, 1, 3, 16):
            c.step(f"{label} {m}", raw.fallocate, fd, m, 0, 100)
        c.step(f"{label} posix", os.posix_fallocate, fd, 0, 200)


@case
def holes__seek(c):
    fd = os.open("a", os.O_CREAT | os.O_RDWR)

    def extents():
        found, at, n = [], 0, os.fstat(fd).st_size
        while at < n:
            try:
                d = os.lseek(fd, at, os.SEEK_DATA)
            except OSError as e:
                found.append(errno.errorcode[e.errno])
                break
            h = os.lseek(fd, d, os.SEEK_HOLE)
            found.append([d, h])
            at = h
        return found

    c.step("empty", extents)
    c.step("seek empty", os.lseek, fd, 0, os.SEEK_DATA)
    c.step("hole empty", os.lseek, fd, 0, os.SEEK_HOLE)
    os.ftruncate(fd, 1 << 20)
    c.step("all hole", extents)
    c.step("hole", os.lseek, fd, 5, os.SEEK_HOLE)
    os.pwrite(fd, b"x" * 4096, 65536)
    c.step("one", extents)
    os.pwrite(fd, b"x", 300000)
    c.step("two", extents)
    c.note("blocks", os.fstat(fd).st_blocks)
    for w in (os.SEEK_DATA, os.SEEK_HOLE):
        for at in (0, 65535, 65536, 65537, 69631, 69632, 300000, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, -1):
            c.step(f"seek {w} {at}", os.lseek, fd, at, w)
    c.step("pos", os.lseek, fd, 0, 1)
    c.step("whence 9", os.lseek, fd, 0, 9)
    raw.fallocate(fd, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, 65536, 4096)
    c.step("punched", extents)
    os.fsync(fd)
    c.step("fsynced", extents)
    raw.fallocate(fd, 0, 0, 8192)
    c.step("fallocated", lambda: len(extents()))
    os.pwrite(fd, b"q" * 200000, 500000)
    c.note("md5", digest(os.pread(fd, 1 << 20, 0)))
    c.note("zero", os.pread(fd, 10, 65530))
    d = os.open(".", os.O_RDONLY)
    c.step("dir", os.lseek, d, 0, os.SEEK_DATA)


@case
def holes__shrink_and_grow(c):
    fd = os.open("a", os.O_CREAT | os.O_RDWR)
    for a, b in ((10000, 5000), (5000, 4096), (4097, 4095), (100000, 1), (8192, 100), (70000, 65536)):
        os.ftruncate(fd, 0)
        os.pwrite(fd, b"\xff" * a, 0)
        os.pread(fd, a, 0)
        os.ftruncate(fd, b)
        os.ftruncate(fd, a + 500)
        x = os.pread(fd, a + 1000, 0)
        c.note(f"{a}>{b}", [len(x), x[:b] == b"\xff" * b, x[b:] == bytes(a + 500 - b)])
        os.ftruncate(fd, b)
        os.pwrite(fd, b"Z", a + 100)
        x = os.pread(fd, a + 1000, 0)
        c.note("write beyond", [len(x), x[b : a + 100] == bytes(a + 100 - b)])
    os.close(fd)
    c.note("d", digest(read_file("a")))


@case
def stat__blocks(c):
    for n in (0, 1, 511, 4096, 4097, 100000):
        write_file("f", b"x" * n)
        time.sleep(0.02)
        f = os.open("f", os.O_RDWR)
        os.fsync(f)
        os.close(f)
        st = os.stat("f")
        c.note(str(n), [st.st_blocks >= (n + 511) // 512, st.st_blksize])
    os.mkdir("d")
    c.note("dev same", os.stat("d").st_dev == os.stat("f").st_dev)
    os.link("f", "g")
    c.note("ino", os.stat("f").st_ino == os.stat("g").st_ino)
