"""The three times: set, kept and moved by reads and writes."""

import mmap, os, time
from case import OTHER_USER, USER, case, effects_of, make, open_and_close, read_file, write_file
from system_calls import (
    AT_SYMLINK_NOFOLLOW,
    UTIME_NOW,
    UTIME_OMIT,
    copy_file_range,
    futimens,
    get_xattr,
    getdents,
    raw,
    readlink,
    utimensat,
    utimes,
)


def times_of(path):
    """When it was read and written last, in nanoseconds."""
    st = os.stat(path)
    return [st.st_atime_ns, st.st_mtime_ns]


@case
def symlink__atime(c):
    make("data", "f")
    os.symlink("f", "l")
    c.watch("l")
    c.step("readlink", readlink, "l")
    c.step("again", readlink, "l")
    utimensat("l", (1000, 0), (2000, 0), AT_SYMLINK_NOFOLLOW)
    c.step("readlink after old atime", readlink, "l")
    utimensat("l", (1000, 0), (2000, 0), AT_SYMLINK_NOFOLLOW)
    c.step("follow", effects_of(os.stat), "l")


@case
def utimensat__values(c):
    make("data", "f")
    os.mkdir("d")
    for p in ("f", "d"):
        c.watch(p, ".")
        for a, m in (
            ((1, 1), (2, 2)),
            ((0, 0), (0, 0)),
            ((1 << 31, 5), ((1 << 32) + 1, 999999999)),
            ((-1, 0), (-2, 999999999)),
            ((-(1 << 31), 0), (-(1 << 31) - 1, 0)),
            ((9999999999, 0), (15032385535, 0)),
            ((1700000000, 123456789), (1700000000, 987654321)),
            ((0, UTIME_OMIT), (77, 0)),
            ((78, 0), (0, UTIME_OMIT)),
            ((0, 1000000000), (0, 0)),
            ((0, 0), (0, -1)),
            ((0, UTIME_OMIT), (0, 1000000000)),
            ((5, UTIME_OMIT), (6, UTIME_OMIT)),
        ):
            c.step(f"{a} {m}", utimensat, p, a, m)
            c.note("t", times_of(p))
        c.step("now omit", utimensat, p, (0, UTIME_NOW), (0, UTIME_OMIT))
        c.step("omit now", utimensat, p, (0, UTIME_OMIT), (0, UTIME_NOW))
        c.step("now now", utimensat, p, (0, UTIME_NOW), (0, UTIME_NOW))
        c.step("now explicit", utimensat, p, (0, UTIME_NOW), (99, 9))
        c.step("null", utimensat, p, None, None)
        st = os.stat(p)
        c.note("equal", st.st_atime_ns == st.st_mtime_ns == st.st_ctime_ns)
        fd = os.open(p, os.O_RDONLY)
        c.step("futimens", futimens, fd, (3, 4), (5, 6))
        c.note("t", times_of(p))
    c.step("omit missing", utimensat, "none", (0, UTIME_OMIT), (0, UTIME_OMIT))
    c.step("bad flag", utimensat, "f", None, None, 1)


@case
def utimensat__perm(c):
    make("data", "f")
    os.mkdir("d")
    for p in ("f", "d"):
        for own, mode in (
            (USER, 0o000),
            (OTHER_USER, 0o666 if p == "f" else 0o777),
            (OTHER_USER, 0o644),
            (0, 0o444),
            (0, 0o222),
        ):
            os.chown(p, own, own)
            os.chmod(p, mode)
            c.watch(p)
            for label, a, m in (
                ("null", None, None),
                ("now", (0, UTIME_NOW), (0, UTIME_NOW)),
                ("now omit", (0, UTIME_NOW), (0, UTIME_OMIT)),
                ("omit now", (0, UTIME_OMIT), (0, UTIME_NOW)),
                ("omit", (0, UTIME_OMIT), (0, UTIME_OMIT)),
                ("set", (1, 1), (2, 2)),
                ("set omit", (1, 1), (0, UTIME_OMIT)),
                ("omit set", (0, UTIME_OMIT), (1, 1)),
                ("now set", (0, UTIME_NOW), (1, 1)),
            ):
                c.step(f"{p} {own} {mode:o} {label}", c.as_user, USER, utimensat, p, a, m)


@case
def utimensat__link(c):
    make("data", "f")
    os.symlink("f", "l")
    c.watch("f", "l")
    c.step("nofollow", utimensat, "l", (1, 2), (3, 4), AT_SYMLINK_NOFOLLOW)
    c.note("t", [os.lstat("l").st_mtime_ns, os.stat("l").st_mtime_ns > 10**18])
    c.step("follow", utimensat, "l", (5, 6), (7, 8))
    c.note("t", os.stat("f").st_mtime_ns)
    c.step("utimes", utimes, "l", (9, 999999), (10, 1))
    c.note("t", times_of("f"))


@case
def utimensat__after_write(c):
    """times set while written bytes are not flushed yet, and writes after that"""
    fd = os.open("f", os.O_CREAT | os.O_RDWR)
    os.write(fd, b"abc")
    futimens(fd, (11, 1), (22, 2))
    c.note("t", times_of(fd))
    os.close(fd)
    time.sleep(0.3)
    c.note("t", times_of("f"))
    fd = os.open("f", os.O_RDWR)
    futimens(fd, (11, 1), (22, 2))
    c.watch("f")
    c.step("write", os.write, fd, b"x")
    futimens(fd, (11, 1), (22, 2))
    c.step("close", os.close, fd)
    c.note("t", os.stat("f").st_mtime_ns)
    c.step("read", read_file, "f")
    fd = os.open("f", os.O_RDWR)
    os.write(fd, b"1")
    os.fchmod(fd, 0o640)
    os.fchown(fd, 7, 8)
    futimens(fd, (3, 3), (4, 4))
    os.ftruncate(fd, 1)
    c.note("m>", os.fstat(fd).st_mtime_ns > 10**18)
    futimens(fd, (3, 3), (4, 4))
    os.setxattr(fd, "user.z", b"1")
    c.note("t", os.fstat(fd).st_mtime_ns)
    os.link("f", "g")
    os.rename("f", "h")
    c.note("t", os.fstat(fd).st_mtime_ns)
    os.close(fd)
    c.facts("h", "g")
    time.sleep(0.3)
    c.note("t", times_of("h"))


@case
def atime__rules(c):
    write_file("f", b"data" * 5000)
    os.mkdir("d")
    make("reg", "d/x")
    c.watch("f", "d")
    read_whole = effects_of(lambda: read_file("f"))
    read_some = effects_of(lambda fd: os.pread(fd, 10, 0))
    c.step("read", read_whole)
    c.step("read again", read_whole)
    utimensat("f", (1000, 0), (2000, 0))
    c.step("old atime", read_whole)
    c.step("again", read_whole)
    os.chmod("f", 0o600)
    c.step("after ctime", read_whole)
    c.step("again", read_whole)
    fd = os.open("f", os.O_RDWR)
    c.step("by fd", read_some, fd)
    os.pwrite(fd, b"x", 0)
    c.step("same fd after write", read_some, fd)
    c.step("again", read_some, fd)
    write_file("g", b"1")
    g = os.open("f", os.O_WRONLY)
    os.pwrite(g, b"y", 0)
    c.step("same fd after write of another", read_some, fd)
    os.fchmod(fd, 0o644)
    c.step("same fd after chmod", read_some, fd)
    utimensat("f", (1, 0), (2, 0))
    c.step("same fd after utimens", read_some, fd)
    r = os.open("f", os.O_RDONLY)
    c.step("ro fd", read_some, r)
    time.sleep(0.02)
    os.pwrite(g, b"z", 3)
    c.step("ro fd after write", read_some, r)
    utimensat("f", (1, 0), (2, 0))
    c.step("ro fd after utimens", read_some, r)
    utimensat("f", (1, 0), (2, 0))
    n = os.open("f", os.O_RDONLY | os.O_NOATIME)
    c.step("noatime", read_some, n)
    c.step("empty read", os.read, r, 0)
    c.step("at end", os.pread, r, 10, 10**6)
    utimensat("f", (1, 0), (2, 0))

    def read_mapped():
        h = os.open("f", os.O_RDONLY)
        m = mmap.mmap(h, 4096, prot=mmap.PROT_READ)
        m[0]
        m.close()
        os.close(h)

    c.step("mmap", read_mapped)
    utimensat("f", (1, 0), (2, 0))
    c.step("sendfile", lambda: os.sendfile(os.open("o", os.O_CREAT | os.O_WRONLY), os.open("f", os.O_RDONLY), 0, 10))
    utimensat("f", (1, 0), (2, 0))
    c.step(
        "copy_file_range", lambda: copy_file_range(os.open("f", os.O_RDONLY), None, os.open("o", os.O_WRONLY), None, 10)
    )
    utimensat("f", (1, 0), (2, 0))
    c.step(
        "copy whole",
        lambda: copy_file_range(os.open("f", os.O_RDONLY), None, os.open("o2", os.O_CREAT | os.O_WRONLY), None, 10**6),
    )
    utimensat("f", (1, 0), (2, 0))

    def splice():
        a, b = os.pipe()
        return raw.splice(os.open("f", os.O_RDONLY), None, b, None, 10, 0)

    c.step("splice", splice)
    utimensat("f", (1, 0), (2, 0))
    c.step("seek", lambda: os.lseek(r, 0, 3))
    c.step("stat", lambda: os.stat("f").st_size)
    c.step("open close", lambda: os.close(os.open("f", os.O_RDONLY)))
    c.step("getx", get_xattr, "f", "user.a")
    c.step("readdir", lambda: os.listdir("d"))
    c.step("readdir again", lambda: os.listdir("d"))
    utimensat("d", (1, 0), (2, 0))
    c.step("readdir old", lambda: os.listdir("d"))
    utimensat("d", (1, 0), (2, 0))
    c.step("lookup", lambda: os.stat("d/x").st_size)
    c.step("opendir only", lambda: os.close(os.open("d", os.O_RDONLY)))
    dd = os.open("d", os.O_RDONLY)
    c.step("getdents", lambda: len(getdents(dd)))
    utimensat("d", (1, 0), (2, 0))
    os.lseek(dd, 0, 0)
    c.step("rewound", lambda: len(getdents(dd)))
    make("reg", "d/y")
    c.step("after create", lambda: len(os.listdir("d")))
    utimensat("d", (1, 0), (2, 0))
    na = os.open("d", os.O_RDONLY | os.O_NOATIME)
    c.step("noatime", lambda: len(getdents(na)))
    write_file("prog", read_file("/bin/true"), 0o755)
    utimensat("prog", (1, 0), (2, 0))
    c.watch("prog")
    c.step("exec", os.spawnv, os.P_WAIT, "./prog", ["x"])
    time.sleep(0.1)
    now = time.time()
    utimensat("f", (int(now) - 90000, 0), (int(now) - 100000, 0))
    c.watch("f")
    c.step("a day old", read_whole)
    utimensat("f", (int(now) - 80000, 0), (int(now) - 100000, 0))
    c.step("less than a day, but ctime", read_whole)
    utimensat("f", (int(now) + 1000, 0), (5, 0))
    c.step("future atime", read_whole)
    write_file("e", b"")
    c.watch("e")
    utimensat("e", (1, 0), (2, 0))
    c.step("empty file", lambda: read_file("e"))


@case
def times__tree_as_tar_makes_it(c):
    """a tree as tar makes it: read-only directories, then times, then modes"""
    for i in range(5):
        os.mkdir(f"d{i}")
        write_file(f"d{i}/f", str(i).encode())
        os.symlink("f", f"d{i}/l")
        os.link(f"d{i}/f", f"d{i}/h")
        os.chown(f"d{i}/f", i, i)
        os.chmod(f"d{i}/f", 0o4750 + i)
        utimensat(f"d{i}/f", (i, i), (i + 1, i))
        utimensat(f"d{i}/l", (i, i), (i + 1, i), AT_SYMLINK_NOFOLLOW)
        utimensat(f"d{i}", (9, i), (10, i))
        os.chmod(f"d{i}", 0o555)
    time.sleep(0.5)
    for i in range(5):
        c.facts(f"d{i}", f"d{i}/f", f"d{i}/l", f"d{i}/h")
        c.note("t", [os.lstat(f"d{i}{x}").st_mtime_ns for x in ("", "/f", "/l", "/h")])


@case
def times__link_keeps_the_read_time(c):
    """link(2) does not take back the time of the last read"""
    write_file("f", b"x" * 100)
    utimensat("f", (1000, 0), (2000, 0))
    c.watch("f", "g")
    c.step("read", lambda: len(read_file("f")))
    c.step("link", raw.link, "f", "g")
    c.step("later", time.sleep, 1.2)
    c.step("open", open_and_close, "f", os.O_RDONLY)
    c.step("readdir", lambda: len(list(os.scandir("."))))


@case
def atime__read_write_descriptors(c):
    write_file("f", b"x" * 10000)
    read_file("f")
    time.sleep(0.3)
    read_file("f")
    c.watch("f")

    def open_and_read(fl):
        fd = os.open("f", fl)
        os.read(fd, 10)
        os.close(fd)

    for fl in (os.O_RDONLY, os.O_RDWR, os.O_RDWR | os.O_APPEND):
        utimensat("f", (1000, 0), (2000, 0))
        c.step(f"read {fl}", open_and_read, fl)

    def read_mapped(fl, prot):
        fd = os.open("f", fl)
        m = mmap.mmap(fd, 4096, prot=prot)
        m[0]
        m.close()
        os.close(fd)

    utimensat("f", (1000, 0), (2000, 0))
    c.step("mmap ro", read_mapped, os.O_RDONLY, mmap.PROT_READ)
    utimensat("f", (1000, 0), (2000, 0))
    c.step("mmap rw", read_mapped, os.O_RDWR, mmap.PROT_READ | mmap.PROT_WRITE)
