"""Extended attributes: names, sizes, flags, rights; and file capabilities, which go when content or owner changes."""

import mmap, os, struct, time
from case import OTHER_USER, USER, add, case, make, outcome, read_file, write_file
from system_calls import (
    FALLOC_KEEP_SIZE,
    FALLOC_PUNCH_HOLE,
    copy_file_range,
    get_xattr,
    list_xattrs,
    raw,
    set_xattr,
    utimensat,
    xattr_names,
)


@case
def xattr__names_of_any_bytes(c):
    write_file("f", b"")
    for b in (
        b"user.\xff\xfe",
        "user.é".encode(),
        b"user.a b",
        b"user.a\nb",
        b"user..",
        b"user.user.",
        b"user." + b"x" * 250,
        b"user." + b"x" * 251,
        b"user.",
        b"user",
        b"",
        b"foo.bar",
        b"User.a",
        b"trusted.",
        b"security.",
        b"trusted.\xff",
        b"system.foo",
        b"system.posix_acl_access",
        b"user.anyfsx",
        b"security.capability",
        b"security.ima",
        b"security.evm",
    ):
        c.step(f"set {b[:20]!r} {len(b)}", set_xattr, "f", b, b"v")
        c.step("get", get_xattr, "f", b)
        c.step("remove", raw.removexattr, "f", b)
    c.note("left", xattr_names("f"))


@case
def xattr__basic(c):
    make("data", "f")
    c.watch("f", ".")
    c.step("set", set_xattr, "f", "user.a", b"value")
    c.step("get", get_xattr, "f", "user.a")
    c.step("size", get_xattr, "f", "user.a", 0)
    c.step("short", get_xattr, "f", "user.a", 4)
    c.step("exact", get_xattr, "f", "user.a", 5)
    c.step("create", set_xattr, "f", "user.a", b"x", 1)
    c.step("replace", set_xattr, "f", "user.a", b"longer value", 2)
    c.step("replace missing", set_xattr, "f", "user.b", b"x", 2)
    c.step("create new", set_xattr, "f", "user.b", b"", 1)
    c.step("get empty", get_xattr, "f", "user.b")
    c.step("both flags", set_xattr, "f", "user.c", b"x", 3)
    c.step("both flags there", set_xattr, "f", "user.a", b"x", 3)
    c.step("bad flags", set_xattr, "f", "user.a", b"x", 4)
    c.step("same value", set_xattr, "f", "user.b", b"")
    c.step("list", xattr_names, "f")
    c.step("list size", list_xattrs, "f", 0)
    c.step("list short", list_xattrs, "f", 3)
    c.step("missing", get_xattr, "f", "user.none")
    c.step("remove", raw.removexattr, "f", "user.b")
    c.step("remove again", raw.removexattr, "f", "user.b")
    c.step("4000", set_xattr, "f", "user.big", b"x" * 3500)
    c.step("65536", lambda: outcome(set_xattr, "f", "user.huge", b"x" * 65536) in ("0", 0, "ENOSPC"))
    c.step("65537", set_xattr, "f", "user.huge", b"x" * 65537)
    c.step("get size 70000", get_xattr, "f", "user.big", 70000)
    c.step("trusted", set_xattr, "f", "trusted.t", b"1")
    c.step("security", set_xattr, "f", "security.s", b"2")
    c.step("rename", raw.rename, "f", "g")
    c.watch("g", ".")
    c.step("kept", xattr_names, "g")
    c.step("link", raw.link, "g", "h")
    c.step("through link", set_xattr, "h", "user.h", b"1")
    c.step("list", xattr_names, "g")
    fd = os.open("g", os.O_RDONLY)
    c.step("fset ro", set_xattr, fd, "user.f", b"1", 0, "fsetxattr")
    c.step("write keeps", lambda: write_file("g", b"new"))
    c.step("list", xattr_names, "g")
    c.step("chmod keeps", raw.chmod, "g", 0o600)
    c.step("list", xattr_names, "g")
    os.symlink("g", "l")
    c.step("via symlink", xattr_names, "l")
    c.step("l", xattr_names, "l", call="llistxattr")
    c.step("lset user", set_xattr, "l", "user.a", b"1", 0, "lsetxattr")
    c.step("lset trusted", set_xattr, "l", "trusted.a", b"1", 0, "lsetxattr")
    c.step("lget", get_xattr, "l", "trusted.a", call="lgetxattr")
    c.step("lget user", get_xattr, "l", "user.a", call="lgetxattr")
    c.step("lrem", raw.lremovexattr, "l", "trusted.a")


@case
def xattr__user(c):
    make("data", "f")
    os.setxattr("f", "trusted.t", b"1")
    os.setxattr("f", "user.u", b"2")
    os.setxattr("f", "security.s", b"3")
    os.mkdir("d")
    os.mkdir("st")
    os.chmod("st", 0o1777)
    make("fifo", "p")
    make("sock", "s")
    for own, mode in (
        (USER, 0o600),
        (USER, 0o400),
        (USER, 0o200),
        (USER, 0),
        (OTHER_USER, 0o666),
        (OTHER_USER, 0o644),
        (OTHER_USER, 0o622),
        (OTHER_USER, 0o600),
    ):
        os.chown("f", own, own)
        os.chmod("f", mode)
        c.watch("f")
        c.become(USER)
        for n in ("user.u", "trusted.t", "security.s", "user.none", "trusted.none", "system.x", "foo.x"):
            c.step(
                f"{own} {mode:o} {n}",
                lambda: [
                    outcome(get_xattr, "f", n),
                    outcome(set_xattr, "f", n, b"9"),
                    outcome(raw.removexattr, "f", n + "x"),
                ],
            )
        c.step("list", xattr_names, "f")
        c.become_root()
    for p in ("d", "st", "p", "s"):
        for own in (USER, OTHER_USER):
            os.chown(p, own, own)
            os.chmod(p, 0o1777 if p == "st" else 0o777)
            c.watch(p)
            c.step(
                f"{p} {own}",
                c.as_user,
                USER,
                lambda: [
                    outcome(set_xattr, p, "user.q", b"1"),
                    outcome(get_xattr, p, "user.q"),
                    outcome(raw.removexattr, p, "user.q"),
                ],
            )
    c.step("root st", set_xattr, "st", "user.q", b"1")
    c.step("get st", c.as_user, USER, get_xattr, "st", "user.q")


@case
def xattr__many(c):
    make("data", "f")
    for i in range(60):
        os.setxattr("f", f"user.name{i:03d}", str(i).encode())
    c.note("n", [len(xattr_names("f")), list_xattrs("f", 0)])
    for i in range(0, 60, 3):
        os.removexattr("f", f"user.name{i:03d}")
    c.note(
        "n",
        [
            xattr_names("f") == [f"user.name{i:03d}".encode() for i in range(60) if i % 3],
            get_xattr("f", "user.name001"),
        ],
    )


CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
"""CAP_NET_BIND_SERVICE, permitted and effective (linux/capability.h, version 2)"""


def opened(fn, flags=os.O_RDWR):
    fd = os.open("f", flags)
    try:
        return fn(fd)
    finally:
        os.close(fd)


def store(fd):
    m = mmap.mmap(fd, 4096)
    m[0] = 1
    m.flush()
    m.close()


CHANGES = {
    "write": lambda: opened(lambda fd: os.write(fd, b"1")),
    "append": lambda: opened(lambda fd: os.write(fd, b"1"), os.O_WRONLY | os.O_APPEND),
    "truncate": lambda: raw.truncate("f", 10),
    "ftruncate": lambda: opened(lambda fd: raw.ftruncate(fd, 10)),
    "otrunc": lambda: opened(lambda fd: 0, os.O_WRONLY | os.O_TRUNC),
    "chown": lambda: raw.chown("f", 0, 0),
    "chgrp": lambda: raw.chown("f", -1, 7),
    "chown-1": lambda: raw.chown("f", -1, -1),
    "chmod": lambda: raw.chmod("f", 0o711),
    "utimens": lambda: utimensat("f", (1, 1), (2, 2)),
    "fallocate": lambda: opened(lambda fd: raw.fallocate(fd, 0, 0, 9000)),
    "punch": lambda: opened(lambda fd: raw.fallocate(fd, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, 0, 4096)),
    "mmap": lambda: opened(store),
    "rename": lambda: raw.rename("f", "f"),
    "link": lambda: raw.link("f", "g"),
    "read": lambda: len(read_file("f")),
    "copy": lambda: opened(lambda fd: copy_file_range(os.open("src", os.O_RDONLY), None, fd, None, 50)),
    "copyall": lambda: opened(lambda fd: copy_file_range(os.open("f", os.O_RDONLY), None, fd, None, 50)),
    "owrite": lambda: opened(lambda fd: 0),
    "setx": lambda: set_xattr("f", "user.a", b"1"),
    "write0": lambda: opened(lambda fd: os.write(fd, b"")),
}
"""what is done to the file "f" of 5000 bytes; "src" is another"""


def capability_after(c, how):
    """file capabilities go with what changes the file's content or owner (also by root)"""
    write_file("f", b"x" * 5000, 0o755)
    os.chown("f", USER, USER)
    write_file("src", b"q" * 100)
    c.step("set", set_xattr, "f", "security.capability", CAPABILITY)
    c.step("get", get_xattr, "f", "security.capability")
    c.watch("f")
    if how == "userwrite":
        os.chmod("f", 0o777)
        c.step(how, c.as_user, OTHER_USER, opened, lambda fd: os.write(fd, b"1"))
    else:
        c.step(how, CHANGES[how])
    time.sleep(0.05)
    c.step("get after", get_xattr, "f", "security.capability")
    c.note("list", xattr_names("f"))
    time.sleep(0.2)
    c.step("get later", get_xattr, "f", "security.capability")


for how in (*CHANGES, "userwrite"):
    add(f"capability/after_{how}", capability_after, how)


@case
def capability__values(c):
    make("data", "f", 0o755)
    c.step("bad cap", set_xattr, "f", "security.capability", b"garbage")
    c.step("short", set_xattr, "f", "security.capability", b"\x01")
    os.chown("f", USER, USER)
    c.step("user", c.as_user, USER, set_xattr, "f", "security.capability", CAPABILITY)
    c.step("user remove", c.as_user, USER, raw.removexattr, "f", "security.capability")


@case
def capability__write_through_an_open_descriptor(c):
    write_file("f", b"x", 0o755)
    set_xattr("f", "security.capability", CAPABILITY)
    c.step("get", get_xattr, "f", "security.capability")
    fd = os.open("f", os.O_RDWR)
    os.write(fd, b"y")
    c.step("after", get_xattr, "f", "security.capability")
    os.close(fd)
