"""Locks of records, of open file descriptions and flock(2), between descriptors and processes."""

import errno, fcntl, os, signal, struct
from case import OtherProcess, case, effects_of, eventually, in_child, write_file
from system_calls import F_GETLK, F_OFD_GETLK, F_OFD_SETLK, F_SETLK, F_SETLKW, raw


def flock_structure(kind, start, length, whence, pid=0):
    """struct flock of fcntl(2); kind: r, w or u (unlock)."""
    return struct.pack(
        "hhqqii", {"r": fcntl.F_RDLCK, "w": fcntl.F_WRLCK, "u": fcntl.F_UNLCK}[kind], whence, start, length, pid, 0
    )


def set_lock(fd, kind, start=0, length=0, whence=os.SEEK_SET, command=F_SETLK):
    fcntl.fcntl(fd, command, flock_structure(kind, start, length, whence))
    return "locked"


def get_lock(fd, kind, start, length, owner=None, command=F_GETLK):
    """The lock that is in the way: kind, whence, start, length and pid, "pid" for the owner that is expected."""
    found = fcntl.fcntl(fd, command, flock_structure(kind, start, length, os.SEEK_SET))
    kind, whence, start, length, pid, _ = struct.unpack("hhqqii", found)
    return "free" if kind == fcntl.F_UNLCK else [kind, whence, start, length, "pid" if pid == owner else pid]


@case
def locks__posix(c):
    write_file("f", b"x" * 100)
    fd = os.open("f", os.O_RDWR)
    other = OtherProcess("f")
    c.step("w", set_lock, fd, "w", 10, 10)
    c.step("other get", other, get_lock, "w", 0, 0, os.getpid())
    c.step("other r", other, set_lock, "r", 15, 1)
    c.step("other w before", other, set_lock, "w", 0, 10)
    c.step("own get", get_lock, fd, "w", 0, 10, other.pid)
    c.step("downgrade", set_lock, fd, "r", 12, 4)
    c.step("other r in", other, set_lock, "r", 12, 4)
    c.step("other w in", other, set_lock, "w", 12, 4)
    c.step("other get split", other, get_lock, "w", 12, 4, os.getpid())
    c.step("upgrade against", set_lock, fd, "w", 12, 4)
    c.step("unlock", set_lock, fd, "u", 0, 0)
    c.step("other w in", other, set_lock, "w", 12, 4)
    c.step("get", get_lock, fd, "r", 0, 0, other.pid)
    c.step("other unlock", other, set_lock, "u")
    c.step("end", set_lock, fd, "w", -10, 5, os.SEEK_END)
    c.step("other get end", other, get_lock, "w", 0, 0, os.getpid())
    c.step("neg len", set_lock, fd, "w", 50, -10)
    c.step("other get", other, get_lock, "w", 0, 60, os.getpid())
    c.step("neg start", set_lock, fd, "w", -1, 5)
    c.step("overflow", set_lock, fd, "w", 2**63 - 1, 5)
    c.step("max", set_lock, fd, "w", 2**63 - 1, 1)
    c.step("bad type", lambda: fcntl.fcntl(fd, F_SETLK, struct.pack("hhqqii", 7, 0, 0, 0, 0, 0)))
    c.step("all", set_lock, fd, "u")
    c.step("w all", set_lock, fd, "w")
    c.step("other nonblock", other, set_lock, "w", 2**62, 1)
    g = os.open("f", os.O_RDONLY)
    c.step("close of another fd drops", os.close, g)
    c.step("other now", other, set_lock, "w")
    c.step("and mine?", get_lock, fd, "w", 0, 0, other.pid)
    other.end()
    c.step("after its death", set_lock, fd, "w")
    c.step("child does not inherit", in_child, lambda: set_lock(os.open("f", os.O_RDWR), "w"))
    c.step("child by same fd", in_child, lambda: set_lock(fd, "r", 0, 1))
    c.step("ro write lock", set_lock, os.open("f", os.O_RDONLY), "w", 200, 1)
    c.step("wo read lock", set_lock, os.open("f", os.O_WRONLY), "r", 200, 1)
    c.step("opath", lambda: set_lock(os.open("f", os.O_PATH), "r"))
    c.step("dir", set_lock, os.open(".", os.O_RDONLY), "r")
    c.step("dir w", set_lock, os.open(".", os.O_RDONLY), "w")
    os.mkfifo("p")
    c.step("fifo", set_lock, os.open("p", os.O_RDWR), "w")
    os.unlink("f")
    c.step("unlinked", set_lock, fd, "w", 1, 1)


@case
def locks__wait(c):
    write_file("f", b"x" * 100)
    fd = os.open("f", os.O_RDWR)
    other = OtherProcess("f")
    c.step("w", set_lock, fd, "w", 0, 10)
    other.post(set_lock, "w", 5, 10, os.SEEK_SET, F_SETLKW)
    c.step("it waits", other.result, 0.3)
    c.step("unlock", set_lock, fd, "u", 0, 10)
    c.step("it has it", other.result)
    c.step("mine", set_lock, fd, "w", 50, 10)
    other.post(set_lock, "w", 50, 1, os.SEEK_SET, F_SETLKW)
    c.step("waits", other.result, 0.2)
    c.step("deadlock", set_lock, fd, "w", 5, 1, os.SEEK_SET, F_SETLKW)
    set_lock(fd, "u")
    c.step("then", other.result)

    def interrupt(*_):
        raise InterruptedError(errno.EINTR, "")

    signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    c.step("interrupted", set_lock, fd, "w", 50, 1, os.SEEK_SET, F_SETLKW)
    other.end()


@case
def locks__ofd(c):
    write_file("f", b"x" * 100)
    fd = os.open("f", os.O_RDWR)
    g = os.open("f", os.O_RDWR)
    c.step("ofd w", set_lock, fd, "w", 0, 10, os.SEEK_SET, F_OFD_SETLK)
    c.step("other ofd", set_lock, g, "w", 5, 1, os.SEEK_SET, F_OFD_SETLK)
    c.step("other ofd r", set_lock, g, "r", 5, 1, os.SEEK_SET, F_OFD_SETLK)
    c.step("get", get_lock, g, "w", 0, 0, None, F_OFD_GETLK)
    c.step("posix of same process", set_lock, fd, "w", 5, 1)
    c.step("posix get", get_lock, fd, "w", 5, 1)
    c.step("dup shares", lambda: set_lock(os.dup(fd), "w", 0, 10, os.SEEK_SET, F_OFD_SETLK))
    c.step("child shares", in_child, lambda: set_lock(fd, "r", 0, 10, os.SEEK_SET, F_OFD_SETLK))
    c.step("now r", set_lock, g, "r", 0, 10, os.SEEK_SET, F_OFD_SETLK)
    h = os.open("f", os.O_RDWR)
    c.step("close of another keeps", os.close, h)
    c.step("w", set_lock, g, "w", 0, 10, os.SEEK_SET, F_OFD_SETLK)
    c.step("close", os.close, fd)
    # The kernel tells a FUSE filesystem of the last close in the background.
    c.step("w now", eventually, lambda: set_lock(g, "w", 0, 10, os.SEEK_SET, F_OFD_SETLK), "locked")
    c.step("pid not 0", effects_of(fcntl.fcntl), g, F_OFD_SETLK, flock_structure("w", 0, 0, os.SEEK_SET, 5))
    c.step("child same ofd unlock", in_child, lambda: set_lock(g, "u", 0, 0, os.SEEK_SET, F_OFD_SETLK))
    c.step("free", get_lock, os.open("f", os.O_RDWR), "w", 0, 0, None, F_OFD_GETLK)


@case
def locks__flock(c):
    write_file("f", b"x")
    a, b = os.open("f", os.O_RDWR), os.open("f", os.O_RDONLY)
    SH, EX, NB, UN = 1, 2, 4, 8
    c.step("ex", raw.flock, a, EX)
    c.step("second ex", raw.flock, b, EX | NB)
    c.step("second sh", raw.flock, b, SH | NB)
    q = os.dup(a)
    c.step("dup", raw.flock, q, EX | NB)
    os.close(q)
    c.step("child same", in_child, lambda: raw.flock(a, EX | NB))
    c.step("posix free", lambda: set_lock(b, "r"))
    c.step("downgrade", raw.flock, a, SH)
    c.step("sh", raw.flock, b, SH | NB)
    c.step("upgrade", raw.flock, a, EX | NB)
    c.step("unlock", raw.flock, b, UN)
    c.step("upgrade", raw.flock, a, EX | NB)
    read_end, write_end = os.pipe()
    heir = os.fork()
    if heir == 0:
        os.close(write_end)
        os.read(read_end, 1)
        os._exit(0)
    c.step("close with child", os.close, a)
    c.step("still", raw.flock, b, EX | NB)
    os.close(write_end)
    os.waitpid(heir, 0)
    c.step("now", eventually, lambda: raw.flock(b, EX | NB), 0)
    c.step("bad op", raw.flock, b, 0)
    c.step("dir", raw.flock, os.open(".", os.O_RDONLY), EX | NB)
    os.mkfifo("p")
    c.step("fifo", raw.flock, os.open("p", os.O_RDWR), EX | NB)
    os.unlink("f")
    c.step("unlinked", raw.flock, b, SH)
    c.step("wo", lambda: raw.flock(os.open("g2", os.O_CREAT | os.O_WRONLY), SH | NB))
    write_file("g", b"")
    c.step("symlink path", lambda: raw.flock(os.open("g", os.O_PATH), SH))
    other = OtherProcess("g")
    g = os.open("g", os.O_RDWR)
    raw.flock(g, EX)
    other.post(fcntl.flock, fcntl.LOCK_SH)
    c.step("waits", other.result, 0.2)
    raw.flock(g, UN)
    c.step("got", other.result)
    other.end()
