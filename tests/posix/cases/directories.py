"""mkdir(2), rmdir(2) and listings: folders that are removed but held, and names that change while they are listed."""

import ctypes, os, stat
from case import case, in_order, make, open_and_close, write_file
from system_calls import (
    AT_SYMLINK_FOLLOW,
    RENAME_EXCHANGE,
    RENAME_WHITEOUT,
    futimens,
    get_xattr,
    getdents,
    linkat,
    raw,
    renameat2,
    set_xattr,
    utimensat,
    xattr_names,
)


@case
def mkdir__and_rmdir(c):
    c.watch(".", "d", "d/e", "d/f")
    c.step("mkdir", raw.mkdir, "d", 0o755)
    c.step("sub", raw.mkdir, "d/e", 0o700)
    c.step("sub2", raw.mkdir, "d/f", 0o1777)
    c.step("exists", raw.mkdir, "d/e", 0o755)
    c.step("file inside", make, "reg", "d/e/x")
    c.step("not empty", raw.rmdir, "d/e")
    c.step("not empty d", raw.rmdir, "d")
    c.step("rm", os.unlink, "d/e/x")
    c.step("rmdir", raw.rmdir, "d/e")
    c.step("rmdir .", raw.rmdir, "d/f/.")
    c.step("rmdir ..", raw.rmdir, "d/f/..")
    c.step("rmdir slash", raw.rmdir, "d/f/")
    c.step("rmdir", raw.rmdir, "d")
    c.step("again", raw.rmdir, "d")
    c.step("mkdir slash", raw.mkdir, "d/", 0o755)
    c.step("mkdir slashes", raw.mkdir, "d/e//", 0o755)
    c.step("mkdir dot", raw.mkdir, "d/f/.", 0o755)
    c.step("mkdir .", raw.mkdir, ".", 0o755)
    c.step("mkdir ..", raw.mkdir, "d/..", 0o755)


@case
def rmdir__of_the_working_directory(c):
    os.mkdir("d")
    os.chdir("d")
    fd = os.open(".", os.O_RDONLY)
    os.rmdir("../d")
    for label, fn in (
        ("getcwd", os.getcwd),
        ("stat .", lambda: [os.stat(".").st_nlink, oct(os.stat(".").st_mode)]),
        ("fstat", lambda: os.fstat(fd).st_nlink),
        ("create", lambda: open_and_close("x", os.O_CREAT | os.O_WRONLY)),
        ("mkdir", lambda: raw.mkdir("x", 0o755)),
        ("symlink", lambda: raw.symlink("a", "x")),
        ("mknod", lambda: raw.mknod("x", stat.S_IFIFO | 0o644, 0)),
        ("link", lambda: raw.link("../f", "x")),
        ("list", lambda: os.listdir(".")),
        ("list fd", lambda: os.listdir(fd)),
        ("getdents", lambda: getdents(fd)),
        ("lookup", lambda: os.stat("x")),
        ("..", lambda: oct(os.stat("..").st_mode)),
        ("rmdir .", lambda: raw.rmdir(".")),
        ("rmdir ../d", lambda: raw.rmdir("../d")),
        ("chmod", lambda: raw.chmod(".", 0o700)),
        ("chmod seen", lambda: oct(os.stat(".").st_mode)),
        ("chown", lambda: raw.chown(".", 1, 1)),
        ("utimens", lambda: utimensat(".", (1, 1), (2, 2))),
        ("times", lambda: [os.stat(".").st_atime_ns, os.stat(".").st_mtime_ns]),
        ("setx", lambda: set_xattr(".", "user.a", b"1")),
        ("getx", lambda: get_xattr(".", "user.a")),
        ("listx", lambda: xattr_names(".")),
        ("fsync", lambda: os.fsync(fd)),
        ("tmpfile", lambda: open_and_close(".", os.O_TMPFILE | os.O_RDWR)),
        ("rename into", lambda: raw.rename("../f", "x")),
        ("open .", lambda: open_and_close(".", os.O_RDONLY)),
        ("opendir ..", lambda: sorted(os.listdir(".."))),
        ("proc", lambda: os.readlink("/proc/self/cwd").endswith("/d (deleted)")),
        ("flock", lambda: raw.flock(fd, 6)),
        ("access", lambda: raw.access(".", 2)),
        ("statfs", lambda: raw.statfs(".", ctypes.create_string_buffer(200))),
        ("new d", lambda: raw.mkdir("../d", 0o755)),
        ("still", lambda: os.listdir(".")),
        ("create again", lambda: open_and_close("x", os.O_CREAT | os.O_WRONLY)),
        ("new d list", lambda: os.listdir("../d")),
    ):
        write_file("../f", b"1")
        c.step(label, fn)


@case
def rmdir__working_directory_renamed_over(c):
    os.mkdir("d")
    os.mkdir("e")
    os.chdir("d")
    os.rename("../e", "../d")
    c.step("stat", lambda: os.stat(".").st_nlink)
    c.step("create", open_and_close, "x", os.O_CREAT | os.O_WRONLY)
    c.step("list", os.listdir, ".")
    c.step("getcwd", os.getcwd)
    c.step("inode differs", lambda: os.stat(".").st_ino != os.stat("../d").st_ino)


@case
def rmdir__of_an_open_directory(c):
    os.mkdir("d")
    make("reg", "d/x")
    fd = os.open("d", os.O_RDONLY)
    getdents(fd)
    os.unlink("d/x")
    c.watch(".", fd)
    c.step("rmdir", raw.rmdir, "d")
    c.step("getdents", getdents, fd)
    c.step("rewound", listing, fd)
    c.step("openat", raw.openat, fd, "x", os.O_CREAT | os.O_WRONLY, 0o644)
    c.step("fchmod", os.fchmod, fd, 0o711)
    c.step("fchown", os.fchown, fd, 3, 4)
    c.step("fsync", os.fsync, fd)
    c.step("futimens", futimens, fd, (1, 0), (2, 0))
    c.step("stat proc", lambda: os.stat(f"/proc/self/fd/{fd}").st_nlink)


def rest_of_listing(fd, size=32768):
    """The entries from the descriptor's place on."""
    got = []
    while entries := getdents(fd, size):
        got += entries
    return got


def listing(fd, size=32768):
    os.lseek(fd, 0, 0)
    return rest_of_listing(fd, size)


@case
def readdir__types(c):
    os.mkdir("d")
    for t in ("reg", "dir", "fifo", "blk", "chr", "sock", "lnk"):
        make(t, f"d/{t}")
    fd = os.open("d", os.O_RDONLY)
    e = {n: (i, t) for n, i, o_, t in getdents(fd)}
    c.note("types", {n.decode(): t for n, (i, t) in sorted(e.items())})
    c.note("inos", {n.decode(): i == os.lstat(b"d/" + n).st_ino for n, (i, t) in sorted(e.items())})


@case
def readdir__many_entries(c):
    os.mkdir("d")
    for i in range(1500):
        os.close(os.open(f"d/file{i:05d}", os.O_CREAT, 0o644))
    names = {f"file{i:05d}".encode() for i in range(1500)} | {b".", b".."}
    fd = os.open("d", os.O_RDONLY)

    for size in (280, 1000, 32768):
        g = listing(fd, size)
        c.note(f"{size}", [len(g), {x[0] for x in g} == names])
    g = listing(fd, 4000)
    c.note("offsets unique", len({x[2] for x in g}) == len(g))
    ok = True
    for k in range(0, 1500, 97):
        os.lseek(fd, g[k][2], 0)
        nxt = getdents(fd, 300)[0][0]
        ok &= nxt == g[k + 1][0]
    c.note("seek to each", ok)
    # removed behind and ahead while reading with a small buffer (rm -r)
    os.lseek(fd, 0, 0)
    seen = set()
    while entries := getdents(fd, 1200):
        for n, *_ in entries:
            if n in (b".", b".."):
                continue
            seen.add(n)
            os.unlink(b"d/" + n)
    c.note("all seen once", [len(seen), os.listdir("d")])
    c.step("rmdir", raw.rmdir, "d")


@case
def readdir__while_names_change(c):
    os.mkdir("d")
    for i in range(300):
        os.close(os.open(f"d/f{i:04d}", os.O_CREAT, 0o644))
    fd = os.open("d", os.O_RDONLY)
    x = getdents(fd, 500)
    seen = [n for n, *_ in x]
    rest0 = [f"f{i:04d}".encode() for i in range(300) if f"f{i:04d}".encode() not in seen]
    for n in rest0[::2]:
        os.unlink(b"d/" + n)
    for i in range(50):
        os.close(os.open(f"d/new{i}", os.O_CREAT, 0o644))
    seen += [n for n, *_ in rest_of_listing(fd, 500)]
    c.note("no doubles", len(seen) == len(set(seen)))
    c.note("kept all seen", all(n in seen for n in rest0[1::2]))
    got = [n for n, *_ in listing(fd)]
    c.note("after rewind", sorted(got) == sorted([b".", b".."] + [n.encode() for n in os.listdir("d")]))
    c.note("new ones", sum(n.startswith(b"new") for n in got))
    # renames while reading: a file is never missed nor seen doubled under one name
    os.lseek(fd, 0, 0)
    x = getdents(fd, 500)
    os.rename("d/new3", "d/zzz")
    os.rename("d/new4", "d/aaa")
    got = [n for n, *_ in x + rest_of_listing(fd)]
    c.note("renamed", [len(got) == len(set(got))])


@case
def readdir__through_libc(c):
    """opendir, readdir, telldir, seekdir, rewinddir"""
    os.mkdir("d")
    for i in range(200):
        os.close(os.open(f"d/f{i:04d}", os.O_CREAT, 0o644))
    dirent = ctypes.CDLL(None)
    dirent.opendir.restype = ctypes.c_void_p
    dirent.readdir.restype = ctypes.c_void_p
    dirent.readdir.argtypes = [ctypes.c_void_p]
    dirent.telldir.restype = ctypes.c_long
    dirent.telldir.argtypes = [ctypes.c_void_p]
    dirent.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
    dirent.rewinddir.argtypes = [ctypes.c_void_p]
    d = dirent.opendir(b"d")

    def name(entry):
        return ctypes.string_at(entry + 19) if entry else None

    at, names = [], []
    while True:
        at.append(dirent.telldir(d))
        p = dirent.readdir(d)
        if not p:
            break
        names.append(name(p))
    bad = 0
    for k in list(range(0, 202, 7))[::-1] + [0, 201, 100, 5]:
        dirent.seekdir(d, at[k])
        bad += name(dirent.readdir(d)) != names[k]
    c.note("seekdir", [len(names), bad])
    os.unlink("d/f0010")
    os.close(os.open("d/nn", os.O_CREAT))
    dirent.rewinddir(d)
    again = []
    while True:
        p = dirent.readdir(d)
        if not p:
            break
        again.append(name(p))
    c.note("rewinddir", [len(again), b"nn" in again, b"f0010" in again])
    fd = os.open("d", os.O_RDONLY)
    c.step("seek end", lambda: os.lseek(fd, 0, 2) >= 0)
    c.step("seek neg", os.lseek, fd, -1, 0)
    os.lseek(fd, 0, 0)
    c.step("tiny buffer", getdents, fd, 10)
    c.step("cur", in_order(lambda: getdents(fd), lambda: os.lseek(fd, 0, 1) != 0))
    c.step("notdir", lambda: getdents(os.open("d/nn", os.O_RDONLY)))
    c.step("eof", in_order(lambda: getdents(fd), lambda: getdents(fd), lambda: getdents(fd)))


@case
def readdir__sees_every_change(c):
    """every change is seen by the next listing, also through a directory that was open before"""
    os.mkdir("d")
    os.mkdir("e")
    fd = os.open("d", os.O_RDONLY)

    def ls():
        os.lseek(fd, 0, 0)
        return [
            sorted(n.decode() for n, *_ in getdents(fd)),
            sorted(os.listdir("d")),
            sorted(x.name + ("/" if x.is_dir() else "") for x in os.scandir("d")),
        ]

    for label, fn in (
        ("empty", lambda: 0),
        ("create", lambda: make("reg", "d/a")),
        ("mkdir", lambda: os.mkdir("d/b")),
        ("link", lambda: os.link("d/a", "d/c")),
        ("symlink", lambda: os.symlink("x", "d/l")),
        ("rename", lambda: os.rename("d/a", "d/z")),
        ("rename out", lambda: os.rename("d/z", "e/z")),
        ("rename in", lambda: os.rename("e/z", "d/y")),
        ("rename over", lambda: os.rename("d/y", "d/l")),
        ("exchange", lambda: renameat2("d/l", "d/b", RENAME_EXCHANGE)),
        ("unlink", lambda: os.unlink("d/b")),
        ("rmdir", lambda: os.rmdir("d/l")),
        ("tmp", lambda: linkat(f'/proc/self/fd/{os.open("d", os.O_TMPFILE | os.O_RDWR)}', "d/t", AT_SYMLINK_FOLLOW)),
        ("whiteout", lambda: renameat2("d/t", "d/u", RENAME_WHITEOUT)),
    ):
        c.step(label, fn)
        c.note("ls", ls())


@case
def mkdir__link_counts_of_many(c):
    os.mkdir("d")
    for i in range(40):
        os.mkdir(f"d/{i}")
    c.note("nlink", os.stat("d").st_nlink)
    for i in range(20):
        os.rmdir(f"d/{i}")
    for i in range(20, 30):
        os.rename(f"d/{i}", f"d/x{i}")
    for i in range(30, 35):
        os.rename(f"d/{i}", f"{i}")
    c.note("nlink", [os.stat("d").st_nlink, os.stat(".").st_nlink])
