"""Names and paths: what is no path, names of any bytes, the limits of length and depth, slashes and dots at the end."""

import ctypes, os, shutil
from case import add, case, digest, effects_of, exit_code, make, outcome, write_file
from cases.calls_on_paths import CALLS, make_for_call
from system_calls import AT_SYMLINK_FOLLOW, RENAME_EXCHANGE, RENAME_WHITEOUT, linkat, raw, renameat2

N255, N256 = "n" * 255, "n" * 256
DOTS = "./" * 2047
"""4094 bytes: one less than a path may have."""


def path_errors(c, op):
    fn, kind = CALLS[op]
    make("reg", "f0")
    make("reg", "file")
    os.symlink("loop2", "loop1")
    os.symlink("loop1", "loop2")
    os.symlink("none", "dangling")
    os.mkdir("d")
    os.symlink("d", "ld")
    c.watch(".", "d", "f0", "file")
    c.step("component is a file", fn, "file/x")
    c.step("component is missing", fn, "none/x")
    c.step("component loops", fn, "loop1/x")
    c.step("component dangles", fn, "dangling/x")
    if kind:
        c.step("missing", fn, "none1")
    c.step("256 bytes", fn, N256)
    c.step("256 bytes in d", fn, "d/" + N256)
    c.step("component 256", fn, N256 + "/x")
    c.step("path 4096", fn, DOTS + "xx")
    c.step("empty", fn, "")
    make_for_call(kind, "x")
    c.step("path 4095", fn, DOTS + "x")
    make_for_call(kind, N255)
    c.step("255 bytes", fn, N255)
    make_for_call(kind, "d/y")
    c.step("through a link", fn, "ld/y")
    c.step("looping itself", fn, "loop1")
    if op in ("stat", "chmod", "unlink", "mkdir", "rmdir", "truncate"):
        c.step("bad pointer", fn, ctypes.c_void_p(1))
    c.facts("x", N255, "d/y", "other")


for op in CALLS:
    add(f"errors/{op}", path_errors, op)


# What would make, change or tell facts of folders that the cases share, or of the machine's root.
NOT_OF_ROOT = ("link_from", "rename_from", "rename_to", "rename_dir_from", "exchange")
NOT_OF_PARENTS = (
    "open_creat", "tmpfile", "chmod", "chown", "lchown", "utimensat", "utimensat_now", "setxattr", "removexattr",
    "stat", "lstat", "open_r", "open_dir", "opendir", "listxattr", "statfs", "getxattr",
)  # fmt: skip


def trailing(c, op):
    fn, kind = CALLS[op]
    make("reg", "f0")
    make("data", "f")
    os.mkdir("d")
    os.mkdir("full")
    make("reg", "full/x")
    os.symlink("f", "lf")
    os.symlink("d", "ld")
    os.symlink("none", "ln")
    os.mkdir("e")
    os.symlink("e", "le")
    c.watch(".", "d", "f", "lf", "ld", "ln", "none", "e", "f0")
    paths = "f/ f/. f/.. new/ lf/ ln/ ln full/ ld/ d/ e/. le/. . ./ .. d/.. / new2// new3/."
    for p in paths.split():
        if p == "/" and op in NOT_OF_ROOT or p in ("..", "/") and op in NOT_OF_PARENTS:
            continue
        c.step(p, fn, p)
        if not os.path.lexists("f0"):
            make("reg", "f0")
        if os.path.lexists("other") and not os.path.lexists("other/x"):
            is_folder = os.path.isdir("other") and not os.path.islink("other")
            (os.rmdir if is_folder else os.unlink)("other")


for op in CALLS:
    add(f"trailing/{op}", trailing, op)


@case
def names__bytes(c):
    os.mkdir(b"d")
    made = []
    for b in range(1, 256):
        if b == 47:
            continue
        for n in (bytes([b]), b"a" + bytes([b]) + b"z"):
            if n == b".":
                continue
            r = outcome(lambda: os.close(os.open(b"d/" + n, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)))
            if r != "ok":
                c.note(repr(n), r)
            made.append(n)
    extra = [
        b"...",
        b". ",
        b"-rf",
        b"\xed\xa0\x80",
        b"\xed\xb2\x80",
        b"\xed\xa0\xbd\xed\xb8\x80",
        b"\xf0\x9f\x98\x80",
        b"\xf4\x90\x80\x80",
        b"\xc0\xaf",
        b"\xef\xbb\xbfbom",
        b"\xef\xbf\xbd",
        b"\xef\xbf\xbf",
        "\u00e9".encode(),
        "e\u0301".encode(),
        b"UP",
        b"up",
        b"\xff" * 255,
        ("é" * 127).encode(),
        b"\xc3\xa9" * 127 + b"x",
        b"x\xe2\x82",
        b"\x80\xe2\x82\xac",
        b"CON",
        b"a:b",
        b"a\\b",
        b"nul\\",
        b" lead",
        b"trail ",
        b"trail.",
        b".anyfs",
        b".hidden",
        b'*?"<>|',
        b"%2e",
        b"\xe2\x80\xae",
        b"name (conflict x)",
    ]
    for n in extra:
        r = outcome(lambda: os.close(os.open(b"d/" + n, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)))
        if r != "ok":
            c.note(repr(n), r)
        made.append(n)
    c.note("list", sorted(os.listdir(b"d")) == sorted(made))
    c.note("stat", all(os.path.exists(b"d/" + n) for n in made))
    c.note("getdents", len(made))
    for n in made:
        if len(n) < 250:
            os.rename(b"d/" + n, b"d/" + n + b"\xfe+")
    c.note("list2", digest(repr(sorted(os.listdir(b"d"))).encode()))
    for n in os.listdir(b"d"):
        os.unlink(b"d/" + n)
    c.step("rmdir", raw.rmdir, "d")


@case
def paths__limits(c):
    top = os.getcwd()
    d = "n" * 200
    for i in range(30):
        os.mkdir(d)
        os.chdir(d)
    c.step("getcwd", lambda: len(os.getcwd()) > 4096)
    c.step("raw getcwd", lambda: raw.getcwd(ctypes.create_string_buffer(4096), 4096))
    make("data", "f")
    c.step("rel", lambda: os.stat("f").st_size)
    c.step("up", lambda: os.stat("../" * 30 + ".").st_ino == os.stat(top).st_ino)
    c.step("long abs", os.stat, top + ("/" + d) * 30)
    c.step("long rel", lambda: os.stat(top + ("/" + d) * 15) and "ok")
    os.symlink("../" * 30, "up")
    c.step("link up", lambda: os.stat("up").st_ino == os.stat(top).st_ino)
    c.step("rename top of all", lambda: os.rename("../" * 30 + d, "../" * 30 + "m"))
    c.step("still", lambda: os.stat("f").st_size)
    os.chdir(top)
    c.step("rm", shutil.rmtree, "m")
    c.step("left", os.listdir, ".")


@case
def paths__deep(c):
    fds = [os.open(".", os.O_RDONLY)]
    for i in range(400):
        os.mkdir("d", dir_fd=fds[-1])
        fds.append(os.open("d", os.O_RDONLY, dir_fd=fds[-1]))
        if i > 0:
            os.close(fds[-2])
    os.fchdir(fds[-1])
    c.step("create", make, "data", "f")
    c.step("up", lambda: [os.chdir("..") for _ in range(400)] and os.listdir("."))
    c.step("into itself", raw.rename, "d", "d/" * 400 + "x")
    c.step("exchange", renameat2, "d", "d/" * 399 + "d", RENAME_EXCHANGE)
    c.step("move", raw.rename, "d/d", "e")
    c.step("rm", lambda: [exit_code("rm", "-rf", "d", "e"), os.listdir(".")])


@case
def names__made_after_they_were_not_there(c):
    """a name that was not there, made in every way"""
    os.mkdir("e")
    for i, fn in enumerate(
        (
            lambda p: make("reg", p),
            lambda p: os.mkdir(p),
            lambda p: os.symlink("x", p),
            lambda p: os.mkfifo(p),
            lambda p: (write_file("s", b""), os.link("s", p)),
            lambda p: (write_file("m", b""), os.rename("m", p)),
            lambda p: linkat(f'/proc/self/fd/{os.open(".", os.O_TMPFILE | os.O_RDWR)}', p, AT_SYMLINK_FOLLOW),
            lambda p: os.rename("e", p),
            lambda p: (write_file("w", b""), renameat2("w", p, RENAME_WHITEOUT)),
        )
    ):
        p = f"n{i}"
        c.step("not there", os.stat, p)
        c.step("make", effects_of(fn), p)
        c.step("there", lambda: oct(os.lstat(p).st_mode))
        c.step("again", lambda: outcome(fn, p) in ("EEXIST", "ok", "(None, None)", "ENOENT", "ENOTDIR"))
