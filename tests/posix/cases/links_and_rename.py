"""link(2), symlink(2), rename(2) with its flags: what becomes of both names, of link counts, times and open files."""

import os
from case import (
    OTHER_USER,
    USER,
    add,
    case,
    make,
    open_and_close,
    outcome,
    read_file,
    remove_if_there,
    write_file,
)
from system_calls import (
    AT_EMPTY_PATH,
    AT_SYMLINK_FOLLOW,
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    RENAME_WHITEOUT,
    linkat,
    raw,
    readlink,
    renameat2,
    set_xattr,
    utimensat,
)


@case
def link__counts(c):
    make("data", "a")
    os.mkdir("d")
    fd = os.open("a", os.O_RDONLY)
    c.watch(".", "d", "a", "b", "d/c", fd)
    c.step("link", raw.link, "a", "b")
    c.step("link d", raw.link, "b", "d/c")
    c.step("chmod", raw.chmod, "d/c", 0o600)
    c.step("chown", raw.chown, "b", 1, 2)
    c.step("write", lambda: write_file("b", b"new"))
    c.note("ino", os.stat("a").st_ino == os.stat("b").st_ino == os.stat("d/c").st_ino)
    c.step("unlink a", raw.unlink, "a")
    c.step("rename b over c", raw.rename, "b", "d/c")
    c.step("both there?", lambda: [os.path.exists("b"), os.path.exists("d/c")])
    c.step("unlink b", raw.unlink, "b")
    c.step("link back", raw.link, "d/c", "a")
    c.step("unlink", raw.unlink, "d/c")
    c.step("unlink", raw.unlink, "a")
    c.step("link fd", linkat, f"/proc/self/fd/{fd}", "z", AT_SYMLINK_FOLLOW)
    c.step("link fd empty", linkat, "", "z", AT_EMPTY_PATH, fd)


@case
def link__targets_and_rights(c):
    make("data", "a")
    os.mkdir("d")
    os.symlink("a", "l")
    os.symlink("none", "n")
    os.mkfifo("p")
    c.watch(".", "a", "l", "x")
    c.step("dir", raw.link, "d", "x")
    c.step("dir as user", c.as_user, USER, raw.link, "d", "x")
    c.step("symlink", raw.link, "l", "x")
    c.facts("x")
    remove_if_there("x")
    c.step("follow", linkat, "l", "x", AT_SYMLINK_FOLLOW)
    c.facts("x")
    os.unlink("x")
    c.step("follow dangling", linkat, "n", "x", AT_SYMLINK_FOLLOW)
    c.step("dangling", raw.link, "n", "x")
    os.unlink("x")
    c.step("bad flag", linkat, "a", "x", 1)
    c.step("existing dir", raw.link, "a", "d")
    c.step("over dangling", raw.link, "a", "n")
    c.step("self", raw.link, "a", "a")
    c.step("fifo", raw.link, "p", "x")
    os.unlink("x")
    os.chmod("a", 0o600)
    c.step("foreign unreadable as user", c.as_user, USER, raw.link, "a", "x")
    os.chmod("a", 0o666)
    c.step("foreign rw as user", c.as_user, USER, raw.link, "a", "x")
    remove_if_there("x")
    os.chmod("a", 0o6777)
    c.step("foreign suid", c.as_user, USER, raw.link, "a", "x")
    c.step("foreign fifo", c.as_user, USER, raw.link, "p", "x")
    for i in range(300):
        os.link("a", f"d/{i}")
    c.note("nlink", os.stat("a").st_nlink)
    for i in range(0, 300, 2):
        os.unlink(f"d/{i}")
    c.note("nlink", os.stat("a").st_nlink)


def rename_onto(c, a, b, other, flags):
    os.mkdir("p")
    os.mkdir("q")

    def make_renamed(t, p):
        if t == "full":
            os.mkdir(p)
            make("reg", p + "/x")
        elif t == "sub":
            os.mkdir(p)
            os.mkdir(p + "/s")
        elif t == "hard":
            make("data", p)
            os.link(p, p + "_link")
        elif t == "none":
            pass
        else:
            make(t, p)

    dst = "q/b" if other else "p/b"
    make_renamed(a, "p/a")
    make_renamed(b, dst)
    fds = []
    for p in ("p/a", dst):
        try:
            fds.append(os.open(p, os.O_PATH | os.O_NOFOLLOW))
        except OSError:
            pass
    c.watch(".", "p", "q", "p/a", dst, "p/a_link", dst + "_link", *fds)
    c.step("rename", renameat2, "p/a", dst, flags)
    c.note(
        "..", [outcome(lambda: os.stat(x + "/..").st_ino == os.stat(os.path.dirname(x)).st_ino) for x in ("p/a", dst)]
    )
    c.step("list", lambda: [sorted(os.listdir(x)) for x in ("p", "q")])


RENAMED_KINDS = ["reg", "dir", "full", "sub", "lnk", "fifo", "hard"]


RENAME_FLAGS = {"plain": 0, "noreplace": RENAME_NOREPLACE, "exchange": RENAME_EXCHANGE, "whiteout": RENAME_WHITEOUT}
LEFT_OUT = {"noreplace": "fifo hard", "exchange": "fifo", "whiteout": "fifo full"}
LEFT_OUT_OVER = {"noreplace": "fifo sub hard", "exchange": "fifo", "whiteout": "full sub lnk fifo"}
"""kinds that are not renamed, and not renamed onto: the others show it"""
for flags in RENAME_FLAGS:
    for folder in ("same", "other"):
        for a in RENAMED_KINDS:
            for b in ["none"] + RENAMED_KINDS:
                if a in LEFT_OUT.get(flags, "").split() or b in LEFT_OUT_OVER.get(flags, "").split():
                    continue
                if flags == "plain" and folder == "same" and "fifo" in (a, b):
                    continue
                add(f"rename/{flags}/{folder}/{a}-{b}", rename_onto, a, b, folder == "other", RENAME_FLAGS[flags])


@case
def rename__errors(c):
    os.makedirs("a/b/c")
    make("data", "f")
    os.link("f", "g")
    os.mkdir("e")
    os.symlink("a", "la")
    c.watch(".", "a", "a/b", "f", "g", "e")
    for x, y in (
        ("a", "a/b/z"),
        ("a", "a/z"),
        ("a", "a/b"),
        ("a", "a/b/c"),
        ("a/b", "a"),
        ("a/b/c", "a"),
        ("a", "."),
        (".", "x"),
        ("..", "x"),
        ("a/.", "x"),
        ("a/..", "x"),
        ("f", "."),
        ("f", ".."),
        ("e", "a/.."),
        ("f", "g"),
        ("f", "f"),
        ("a", "a"),
        ("f/", "x"),
        ("f", "x/"),
        ("e", "x/"),
        ("x/", "e/"),
        ("e/", "x"),
        ("x", "e"),
        ("la/", "x"),
        ("la", "x"),
        ("x", "la"),
        ("f", "e/"),
        ("e", "f/"),
        ("e", "f"),
        ("f", "e"),
        ("la", "la/b/z"),
        ("la/b", "bb"),
        ("bb", "la/b"),
        ("/", "x"),
        ("f", "/"),
        ("e", "la"),
        ("e", "la/"),
        ("none", "f"),
        ("none", "none"),
        ("f", "none/x"),
        ("/proc/version", "x"),
        ("f", "/dev/shm/anyfs-posix"),
    ):
        c.step(f"{x} -> {y}", raw.rename, x, y)
    for fl in (3, 5, 6, 7, 8, 16):
        c.step(f"flags {fl}", renameat2, "f", "g", fl)
    c.step("exchange ancestor", renameat2, "a", "a/b", RENAME_EXCHANGE)
    c.step("exchange descendant", renameat2, "a/b/c", "a", RENAME_EXCHANGE)
    c.step("exchange itself", renameat2, "f", "f", RENAME_EXCHANGE)
    c.step("exchange links", renameat2, "f", "g", RENAME_EXCHANGE)
    c.step("noreplace itself", renameat2, "f", "f", RENAME_NOREPLACE)
    c.step("noreplace links", renameat2, "f", "g", RENAME_NOREPLACE)
    c.step("exchange none", renameat2, "f", "nn", RENAME_EXCHANGE)
    c.step("exchange none source", renameat2, "nn", "f", RENAME_EXCHANGE)
    c.step("exchange slash", renameat2, "f", "e/", RENAME_EXCHANGE)
    c.step("exchange slash2", renameat2, "e/", "f", RENAME_EXCHANGE)
    c.step("exchange slash3", renameat2, "e", "f/", RENAME_EXCHANGE)
    c.step("whiteout links", renameat2, "f", "g", RENAME_WHITEOUT)
    c.facts("f", "g")
    c.step("whiteout user", c.as_user, USER, renameat2, "g", "h", RENAME_WHITEOUT)
    c.facts("g", "h")
    c.step("whiteout over", renameat2, "h", "e", RENAME_WHITEOUT)
    c.step("whiteout|noreplace", renameat2, "h", "h2", 5)
    c.facts("h", "h2")
    c.step("open whiteout", open_and_close, "h", os.O_RDONLY)
    c.step("unlink whiteout", raw.unlink, "h")


@case
def rename__rights_on_a_moved_directory(c):
    """moving a directory needs write permission on itself when its parent changes"""
    for p in ("p", "q"):
        os.mkdir(p)
        os.chown(p, USER, USER)
    for mode in (0o755, 0o555, 0o000):
        for own in (USER, OTHER_USER):
            os.mkdir("p/d")
            os.chown("p/d", own, own)
            os.chmod("p/d", mode)
            c.step(f"{mode:o} {own} away", c.as_user, USER, raw.rename, "p/d", "q/d", watch=["p", "q", "p/d", "q/d"])
            c.step(f"{mode:o} {own} within", c.as_user, USER, raw.rename, "p/d", "p/e", watch=["p", "p/d", "p/e"])
            os.mkdir("q/x")
            os.chown("q/x", USER, USER)
            c.step(
                f"{mode:o} {own} exchange",
                c.as_user,
                USER,
                renameat2,
                "p/e",
                "q/x",
                RENAME_EXCHANGE,
                watch=["p", "q", "p/e", "q/x"],
            )
            for p in ("p/d", "p/e", "q/d", "q/x"):
                if os.path.isdir(p):
                    os.rmdir(p)


@case
def rename__open_files(c):
    write_file("a", b"AAAA")
    write_file("b", b"BBBB")
    fa = os.open("a", os.O_RDWR)
    fb = os.open("b", os.O_RDWR)
    c.watch(".", "a", "b", fa, fb)
    c.step("write", os.write, fa, b"12")
    c.step("write", os.write, fb, b"34")
    c.step("rename", raw.rename, "a", "b")
    c.note("d", [read_file("b"), os.pread(fb, 9, 0), os.pread(fa, 9, 0)])
    c.step("write a", os.write, fa, b"56")
    c.step("write b", os.write, fb, b"78")
    c.note("d", [read_file("b"), os.pread(fb, 9, 0)])
    c.step("trunc b", os.ftruncate, fb, 2)
    c.step("chmod b", os.fchmod, fb, 0o600)
    write_file("c", b"CC")
    c.step("exchange", renameat2, "b", "c", RENAME_EXCHANGE)
    c.note("d", [read_file("b"), read_file("c")])
    c.step("close", os.close, fb)
    c.step("rename open", raw.rename, "c", "a")
    c.step("write", os.pwrite, fa, b"Z", 0)
    c.note("d", read_file("a"))
    os.mkdir("d")
    dd = os.open("d", os.O_RDONLY)
    make("reg", "d/f")
    c.step("rename d", raw.rename, "d", "e")
    c.step("list", lambda: sorted(os.listdir(dd)))
    c.step("openat", lambda: os.close(os.open("n", os.O_CREAT, dir_fd=dd)))
    c.step("list", lambda: sorted(os.listdir("e")))


@case
def rename__of_the_working_directory(c):
    os.makedirs("a/b")
    os.mkdir("c")
    top = os.getcwd()
    os.chdir("a/b")
    c.step("cwd", lambda: os.getcwd()[len(top) :])
    os.rename(top + "/a", top + "/c/x")
    c.step("cwd", lambda: os.getcwd()[len(top) :])
    c.step("..", lambda: sorted(os.listdir("../..")))
    c.step("into itself", raw.rename, "../../../c", "z")
    make("reg", "f")
    c.step("list", lambda: os.listdir(top + "/c/x/b"))
    os.rename(top + "/c/x/b", top + "/moved")
    c.step("..", lambda: os.stat("..").st_ino == os.stat(top).st_ino)


@case
def rename__link_counts(c):
    for p in ("a", "b", "a/1", "a/2", "b/1", "a/1/x"):
        os.mkdir(p)
    c.watch(".", "a", "b", "a/1", "a/2", "b/1", "b/3", "b/1/x")
    c.step("move", raw.rename, "a/1", "b/3")
    c.step("over", raw.rename, "a/2", "b/1")
    c.step("up", raw.rename, "b/3/x", "x")
    c.step("in", raw.rename, "x", "b/1/x")
    make("reg", "f")
    c.step("swap dir and file", renameat2, "f", "b/1", RENAME_EXCHANGE)
    c.facts("f", "b/1", "f/x")
    c.step("rmdir", raw.rmdir, "f/x")


@case
def symlink__targets(c):
    c.watch(".", "l")
    for label, t in (
        ("short", b"x"),
        ("empty", b""),
        ("bytes", bytes(range(1, 256))),
        ("slash", b"/a//b/"),
        ("255", b"x" * 255),
        ("4094", b"x" * 4094),
        ("4095", b"y" * 4095),
        ("4096", b"y" * 4096),
        ("utf", "ä€😀".encode()),
        ("bad utf", b"\xff\xfe\xed\xa0\x80"),
    ):
        c.step(label, raw.symlink, t, "l")
        c.step("read", lambda: readlink("l") == t)
        c.step("short buffer", readlink, "l", 2)
        c.step("zero", readlink, "l", 0)
        remove_if_there("l")
    c.become(USER)
    c.step("user", raw.symlink, "x", "l")
    c.step("lchown", raw.lchown, "l", USER, USER)
    c.become_root()
    os.umask(0o777)
    c.step("umask", raw.symlink, "x", "m", watch=["m"])


@case
def symlink__follow(c):
    make("data", "f")
    p = "f"
    for i in range(45):
        os.symlink(p, f"l{i}")
        p = f"l{i}"
    # Read in the moment it was made, a link would count as read before: its next reading would move the time again.
    c.pause()
    for i in (38, 39, 40, 41):
        c.step(f"chain {i}", lambda: os.stat(f"l{i}").st_size)
    c.watch("f", "l0", ".")
    c.step("chmod", raw.chmod, "l0", 0o600)
    c.step("chown", raw.chown, "l0", 1, 1)
    c.step("truncate", raw.truncate, "l0", 1)
    c.step("utimens", utimensat, "l0", (1, 1), (2, 2))
    c.step("setx", set_xattr, "l0", "user.a", b"1")
    c.step("unlink", raw.unlink, "l0")
    os.symlink("/", "abs")
    c.step("abs", lambda: os.stat("abs").st_ino == os.stat("/").st_ino)
    os.symlink("self", "self")
    c.step("self", os.stat, "self")
    c.step("self lstat", lambda: os.lstat("self").st_size)
