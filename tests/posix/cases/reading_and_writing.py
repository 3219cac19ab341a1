"""Writes and reads of every kind, copies within the kernel, races, and random operations on one file."""

import ctypes, fcntl, mmap, os, random, socket, time
from case import add, case, digest, in_order, open_and_close, outcome, read_file, write_file
from system_calls import (
    RWF_APPEND,
    RWF_ATOMIC,
    RWF_DONTCACHE,
    RWF_DSYNC,
    RWF_HIPRI,
    RWF_NOAPPEND,
    RWF_NOWAIT,
    RWF_SYNC,
    copy_file_range,
    preadv2,
    pwritev2,
    raw,
)

FICLONE, FIDEDUPERANGE = 0x40049409, 0xC0189436


@case
def write__append(c):
    fd = os.open("f", os.O_CREAT | os.O_RDWR | os.O_APPEND)
    g = os.open("f", os.O_RDWR)
    c.watch("f")
    c.step("w", os.write, fd, b"abc")
    c.step("g", os.write, g, b"12345")
    c.step("w", os.write, fd, b"def")
    c.step("pos", os.lseek, fd, 0, 1)
    c.step("pwrite", os.pwrite, fd, b"X", 0)
    c.step("writev", os.writev, fd, [b"p", b"q"])
    c.note("d", read_file("f"))
    c.step("ftruncate", os.ftruncate, fd, 2)
    c.step("w", os.write, fd, b"end")
    c.step("read", os.pread, fd, 100, 0)
    fcntl.fcntl(fd, fcntl.F_SETFL, 0)
    c.step("no append", os.pwrite, fd, b"Z", 0)
    fcntl.fcntl(g, fcntl.F_SETFL, os.O_APPEND)
    c.step("append set", os.pwrite, g, b"Y", 0)
    c.note("d", read_file("f"))
    c.step("rwf append", pwritev2, fd, b"R", 0, RWF_APPEND)
    c.step("rwf append -1", pwritev2, fd, b"S", -1, RWF_APPEND)
    c.step("rwf noappend", pwritev2, g, b"T", 0, RWF_NOAPPEND)
    c.note("d", read_file("f"))
    c.step("pos", os.lseek, fd, 0, 1)
    c.step("dsync", pwritev2, fd, b"U", 1, RWF_DSYNC)
    c.step("sync", pwritev2, fd, b"V", 2, RWF_SYNC)
    c.step("nowait", pwritev2, fd, b"W", 3, RWF_NOWAIT)
    c.step("hipri", pwritev2, fd, b"W", 3, RWF_HIPRI)
    c.step("bad", pwritev2, fd, b"W", 3, 0x1000)
    c.note("d", read_file("f"))
    c.step("read nowait", preadv2, fd, 5, 0, RWF_NOWAIT)
    c.step("read hipri", preadv2, fd, 5, 0, RWF_HIPRI)
    c.step("read append flag", preadv2, fd, 5, 0, RWF_APPEND)
    c.step("atomic", pwritev2, fd, b"W", 3, RWF_ATOMIC)
    c.step("dontcache", pwritev2, fd, b"W", 3, RWF_DONTCACHE)
    c.step("read dontcache", preadv2, fd, 5, 0, RWF_DONTCACHE)


@case
def write__direct(c):
    write_file("a", b"a" * 65536)
    fd = os.open("a", os.O_RDWR | os.O_DIRECT)
    g = os.open("a", os.O_RDWR)
    m = mmap.mmap(-1, 65536)
    c.watch("a")
    m.write(b"D" * 8192)
    c.step("aligned write", os.pwritev, fd, [memoryview(m)[:4096]], 4096)
    c.note("r", os.pread(g, 3, 4095))
    c.pause()
    os.pwrite(g, b"B" * 10, 0)
    c.step("aligned read", os.preadv, fd, [memoryview(m)[:4096]], 0)
    c.note("m", m[:12])
    c.step("at end", os.preadv, fd, [memoryview(m)[:4096]], 65536)
    c.step("beyond", os.preadv, fd, [memoryview(m)[:4096]], 1 << 20)
    c.step("extend", os.pwritev, fd, [memoryview(m)[:4096]], 65536)
    c.note("d", digest(read_file("a")))
    q = mmap.mmap(g, 65536)
    c.pause()
    q[4096] = 90
    c.step("sees map", in_order(lambda: os.preadv(fd, [memoryview(m)[:4096]], 4096), lambda: m[:2]))
    os.pwritev(fd, [memoryview(m)[4096:8192]], 4096)
    c.note("map sees", q[4096:4098])


@case
def write__everything(c):
    fd = os.open("a", os.O_CREAT | os.O_RDWR | os.O_SYNC)
    c.watch("a")
    big = os.urandom(1 << 20) * 3
    c.step("3 MiB", lambda: os.write(fd, big))
    c.note("same", read_file("a") == big)
    c.step("seek", os.lseek, fd, 2**41, 0)
    c.step("far", os.write, fd, b"far")
    c.step("read far", os.pread, fd, 10, 2**41 - 2)
    c.step("gap", os.pread, fd, 10, 2**40)
    c.step("neg", os.pwrite, fd, b"x", -1)
    c.step("max", os.pwrite, fd, b"x", 2**63 - 1)
    c.step("cut", os.ftruncate, fd, 10)
    c.step("readv", lambda: os.readv(fd, [bytearray(5)]))
    c.step("pos", os.lseek, fd, 0, 1)
    c.step("end", os.lseek, fd, -3, 2)
    c.step("neg seek", os.lseek, fd, -100, 2)
    c.step("bad ptr", raw.write, fd, ctypes.c_void_p(1), 10)
    c.step("bad ptr read", raw.read, fd, ctypes.c_void_p(1), 3)
    c.step("writev", os.writev, fd, [b"a" * 10, b"", b"b" * 5000])
    c.step("preadv", lambda: os.preadv(fd, [bytearray(7), bytearray(9)], 5))
    c.step("write ro", os.write, os.open("a", os.O_RDONLY), b"1")
    c.step("read wo", os.read, os.open("a", os.O_WRONLY), 1)
    c.step("read dir", os.read, os.open(".", os.O_RDONLY), 1)
    d = os.open("b", os.O_CREAT | os.O_WRONLY | os.O_DSYNC)
    c.step("dsync", os.write, d, b"1", watch=["b"])
    c.step("fdatasync", os.fdatasync, d)
    c.step("sync range", raw.sync_file_range, d, 0, 1, 7)
    c.step("syncfs", raw.syncfs, d)
    c.step("fsync ro", os.fsync, os.open("b", os.O_RDONLY))
    c.step("fsync dir", os.fsync, os.open(".", os.O_RDONLY))
    c.step("fdatasync dir", os.fdatasync, os.open(".", os.O_RDONLY))
    c.step("fadvise", raw.fadvise64, d, 0, 0, 4)
    c.step("fsync path", os.fsync, os.open("b", os.O_PATH))


@case
def race__append(c):
    pids = []
    for k in range(3):
        p = os.fork()
        if p == 0:
            fd = os.open("log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
            for i in range(100):
                os.write(fd, (f"{k}" * 37 + "\n").encode())
            os._exit(0)
        pids.append(p)
    for p in pids:
        os.waitpid(p, 0)
    lines = read_file("log").split(b"\n")
    c.note("lines", [len(lines), all(len(set(l)) == 1 and len(l) == 37 for l in lines[:-1])])


@case
def race__exclusive_create(c):
    wins = 0
    for i in range(20):
        rs = []
        for k in range(3):
            r, w = os.pipe()
            p = os.fork()
            if p == 0:
                time.sleep(0.005)
                os.write(
                    w, b"1" if outcome(open_and_close, f"x{i}", os.O_CREAT | os.O_EXCL | os.O_WRONLY) == "ok" else b"0"
                )
                os._exit(0)
            os.close(w)
            rs.append((p, r))
        n = 0
        for p, r in rs:
            n += os.read(r, 1) == b"1"
            os.close(r)
            os.waitpid(p, 0)
        wins += n == 1
    c.note("exactly one", wins)


@case
def race__rename_over(c):
    write_file("f", b"0" * 100)
    p = os.fork()
    if p == 0:
        for i in range(200):
            write_file("t", bytes([48 + i % 10]) * 100)
            os.rename("t", "f")
        os._exit(0)
    bad = []
    while os.waitpid(p, os.WNOHANG)[0] == 0:
        try:
            x = read_file("f")
            if len(x) != 100 or len(set(x)) != 1:
                bad.append(x)
        except OSError as e:
            bad.append(e.errno)
    c.note("bad", bad)


RANDOM_OPERATIONS = "write write append trunc punch zero falloc copy self mmap read reopen sendfile pause link"


def fsx(c, seed):
    """random operations on a file; its size and content after each must agree"""
    r = random.Random(seed)
    fd = os.open("a", os.O_CREAT | os.O_RDWR)
    other = os.open("b", os.O_CREAT | os.O_RDWR)
    for i in range(60):
        op = r.choice(RANDOM_OPERATIONS.split())
        a, n = r.randrange(200000), r.choice([1, 10, 4096, 5000, 65536, 100000])
        b = r.randrange(200000)
        data = bytes([r.randrange(256)]) * n
        sz = os.fstat(fd).st_size
        res = None
        if op == "write":
            res = outcome(os.pwrite, fd, data, a)
        elif op == "append":
            res = outcome(os.pwrite, fd, data, sz)
        elif op == "trunc":
            res = outcome(os.ftruncate, fd, a)
        elif op == "punch":
            res = outcome(raw.fallocate, fd, 3, a, n)
        elif op == "zero":
            res = outcome(raw.fallocate, fd, r.choice([16, 17]), a, n)
        elif op == "falloc":
            res = outcome(raw.fallocate, fd, r.choice([0, 1]), a, n)
        elif op == "copy":
            res = outcome(copy_file_range, fd, a, other, b, n)
        elif op == "self":
            res = outcome(copy_file_range, fd, a, fd, b, n)
        elif op == "mmap" and sz > a:
            m = mmap.mmap(fd, sz)
            m[a : a + min(n, sz - a)] = data[: min(n, sz - a)]
            m.close()
        elif op == "read":
            res = digest(os.pread(fd, n, a))
        elif op == "reopen":
            os.close(fd)
            fd = os.open("a", os.O_RDWR)
        elif op == "sendfile":
            os.lseek(other, b, 0)
            res = outcome(os.sendfile, other, fd, a, n)
        elif op == "pause":
            time.sleep(0.03)
        elif op == "link":
            raw.rename("b", "c")
            raw.rename("c", "b")
        if isinstance(res, str) and len(res) > 40:
            res = res[:40]
        c.note(
            f"{i} {op} {a} {n} {b}",
            [res, os.fstat(fd).st_size, os.fstat(other).st_size, digest(os.pread(fd, 1 << 20, 0))],
        )
    c.note("end", [digest(read_file("a")), digest(read_file("b"))])
    time.sleep(0.4)
    c.note("later", [digest(read_file("a")), digest(read_file("b")), os.stat("a").st_size])


for seed in range(25):
    add(f"fsx/{seed}", fsx, seed)


@case
def copy__range(c):
    write_file("a", b"0123456789" * 1000)
    write_file("b", b"")
    i, to = os.open("a", os.O_RDONLY), os.open("b", os.O_RDWR)
    os.mkdir("d")
    os.mkfifo("p")
    c.watch("a", "b")
    c.step("100", copy_file_range, i, None, to, None, 100)
    c.note("pos", [os.lseek(i, 0, 1), os.lseek(to, 0, 1)])
    c.step("offsets", copy_file_range, i, 5, to, 50, 20)
    c.note("pos", [os.lseek(i, 0, 1), os.lseek(to, 0, 1), read_file("b")])
    c.step("past end", copy_file_range, i, 20000, to, 0, 10)
    c.step("over end", copy_file_range, i, 9990, to, 0, 100)
    c.step("0", copy_file_range, i, 0, to, 0, 0)
    c.step("flags", copy_file_range, i, 0, to, 0, 1, 1)
    c.step("beyond dst", copy_file_range, i, 0, to, 100000, 10)
    c.pause()
    c.note("b", [os.stat("b").st_size, digest(read_file("b"))])
    f = os.open("b", os.O_RDWR)
    # The kernel has the page then, whether the file was delivered meanwhile or not.
    os.pread(f, 1, 0)
    c.step("same file", copy_file_range, f, 0, f, 5000, 100)
    c.step("overlap", copy_file_range, f, 0, f, 50, 100)
    c.step("append dst", copy_file_range, i, 0, os.open("b", os.O_WRONLY | os.O_APPEND), None, 10)
    c.step("ro dst", copy_file_range, i, 0, os.open("b", os.O_RDONLY), 0, 10)
    c.step("wo src", copy_file_range, os.open("a", os.O_WRONLY), 0, to, 0, 10)
    c.step("dir", copy_file_range, os.open("d", os.O_RDONLY), 0, to, 0, 10)
    c.step("fifo", copy_file_range, os.open("p", os.O_RDWR), None, to, 0, 10)
    c.step("to fifo", copy_file_range, i, 0, os.open("p", os.O_RDWR), None, 10)
    c.step("path", copy_file_range, os.open("a", os.O_PATH), 0, to, 0, 10)
    c.step("neg", copy_file_range, i, -1, to, 0, 10)
    c.step("huge", copy_file_range, i, 0, to, 2**63 - 5, 10)
    c.step(
        "whole",
        lambda: copy_file_range(os.open("a", os.O_RDONLY), None, os.open("w", os.O_CREAT | os.O_WRONLY), None, 1 << 30),
    )
    c.note("w", digest(read_file("w")))
    c.step(
        "whole on longer",
        lambda: copy_file_range(os.open("w", os.O_RDONLY), None, os.open("b", os.O_WRONLY), None, 1 << 30),
    )
    c.note("b", digest(read_file("b")))
    c.step("empty src", lambda: copy_file_range(os.open("d/e", os.O_CREAT | os.O_RDONLY), None, to, 0, 5))
    time.sleep(0.3)
    c.step(
        "whole delivered",
        lambda: copy_file_range(os.open("a", os.O_RDONLY), None, os.open("z", os.O_CREAT | os.O_WRONLY), None, 1 << 30),
    )
    c.note("z", digest(read_file("z")))
    write_file("z2", b"old" * 100)
    mapped = mmap.mmap(os.open("z2", os.O_RDWR), 300)
    c.step(
        "onto a mapped one",
        lambda: [
            copy_file_range(os.open("a", os.O_RDONLY), None, os.open("z2", os.O_WRONLY), None, 1 << 30),
            mapped[:3],
        ],
    )
    c.note("z2", digest(read_file("z2")))
    elsewhere = os.open("/dev/shm", os.O_TMPFILE | os.O_WRONLY)
    c.step("to other fs", lambda: copy_file_range(os.open("a", os.O_RDONLY), None, elsewhere, None, 100))
    c.step("clone", lambda: raw.ioctl(os.open("w", os.O_WRONLY), FICLONE, i))
    c.step("dedupe-ish", lambda: raw.ioctl(i, FIDEDUPERANGE, 0))


@case
def copy__sendfile_and_splice(c):
    write_file("a", b"0123456789" * 1000)
    i = os.open("a", os.O_RDONLY)
    to = os.open("b", os.O_CREAT | os.O_RDWR)
    c.watch("b")
    c.step("sendfile", os.sendfile, to, i, 5, 5000)
    c.step("past", os.sendfile, to, i, 20000, 5)
    c.note("b", digest(read_file("b")))
    r, w = os.pipe()
    c.step("splice in", raw.splice, i, None, w, None, 4000, 0)
    c.step("splice out", raw.splice, r, None, to, None, 4000, 0)
    c.note("b", digest(read_file("b")))
    c.step("append", os.sendfile, os.open("b", os.O_WRONLY | os.O_APPEND), i, 0, 10)
    a, b_ = socket.socketpair()
    c.step("to socket", os.sendfile, a.fileno(), i, 3, 100)
    c.step("got", b_.recv, 200)


@case
def write__noappend(c):
    fd = os.open("f", os.O_CREAT | os.O_RDWR | os.O_APPEND)
    os.write(fd, b"0123456789")
    c.step("noappend", pwritev2, fd, b"XX", 2, RWF_NOAPPEND)
    c.note("d", read_file("f"))
