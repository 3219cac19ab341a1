"""When setuid and setgid go: by chmod, chown and every way to change content, of the owner, of others and of root."""

import mmap, os, time
from case import GROUP, OTHER_USER, USER, add, case, make, write_file
from system_calls import (
    FALLOC_KEEP_SIZE,
    FALLOC_PUNCH_HOLE,
    FALLOC_ZERO_RANGE,
    RWF_DSYNC,
    copy_file_range,
    pwritev2,
    raw,
    utimensat,
)


def chown_of_setuid(c, mode, t, who):
    make(t, "a")
    os.chown("a", USER, USER)
    os.chmod("a", mode)
    c.watch("a", ".")

    def go(u, g):
        if who == "root":
            return raw.chown("a", u, g)
        return c.as_user(USER if who == "owner" else OTHER_USER, raw.chown, "a", u, g, groups=[GROUP])

    for label, u, g in (("-1", -1, -1), ("uid", USER, -1), ("gid", -1, GROUP), ("both", USER, USER)):
        os.chmod("a", mode)
        c.step(label, go, u, g)


for mode in (0o4755, 0o2755, 0o6755, 0o6555, 0o6644, 0o2745, 0o7777, 0o6000):
    for t in ("reg", "dir"):
        for who in ("root", "owner", "other"):
            add(f"setuid/chown/{mode:o}/{t}/{who}", chown_of_setuid, mode, t, who)


def store(fd):
    m = mmap.mmap(fd, 4096)
    m[0] = 65
    m.flush()
    m.close()


def from_source(copy):
    def call(fd):
        source = os.open("src", os.O_RDONLY)
        try:
            return copy(source, fd)
        finally:
            os.close(source)

    return call


def splice_from_pipe(fd):
    read_end, write_end = os.pipe()
    os.write(write_end, b"q" * 10)
    return raw.splice(read_end, None, fd, None, 10, 0)


WRITES = {
    "write": lambda fd: os.write(fd, b"z"),
    "empty": lambda fd: os.write(fd, b""),
    "append": lambda fd: os.write(fd, b"z"),
    "pwrite": lambda fd: os.pwrite(fd, b"z", 20000),
    "dsync": lambda fd: pwritev2(fd, b"z", 3, RWF_DSYNC),
    "trunc": lambda fd: None,
    "path": None,
    "ftruncate": lambda fd: raw.ftruncate(fd, 100),
    "grow": lambda fd: raw.ftruncate(fd, 100000),
    "same": lambda fd: raw.ftruncate(fd, 8192),
    "fallocate": lambda fd: raw.fallocate(fd, 0, 0, 20000),
    "fallocate_in": lambda fd: raw.fallocate(fd, 0, 0, 100),
    "keep": lambda fd: raw.fallocate(fd, FALLOC_KEEP_SIZE, 0, 20000),
    "punch": lambda fd: raw.fallocate(fd, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, 0, 4096),
    "zero": lambda fd: raw.fallocate(fd, FALLOC_ZERO_RANGE, 0, 4096),
    "zerokeep": lambda fd: raw.fallocate(fd, FALLOC_ZERO_RANGE | FALLOC_KEEP_SIZE, 0, 40960),
    "mmap": store,
    "copy": from_source(lambda source, fd: copy_file_range(source, None, fd, None, 8192)),
    "copypart": from_source(lambda source, fd: copy_file_range(source, None, fd, None, 100)),
    "sendfile": from_source(lambda source, fd: os.sendfile(fd, source, 0, 100)),
    "splice": splice_from_pipe,
}
"""what is done to a descriptor of a file of 8192 bytes; "path" is truncate(2) of its path"""


def write_to_setuid(c, mode, how, who):
    write_file("a", b"x" * 8192, mode)
    write_file("src", b"y" * 8192)
    os.chown("src", USER, USER)
    os.chmod("src", 0o666)
    os.chown("a", USER, USER if who != "othergroup" else GROUP)
    os.chmod("a", mode)

    def go():
        if how == "path":
            return raw.truncate("a", 10)
        fd = os.open("a", {"trunc": os.O_WRONLY | os.O_TRUNC, "append": os.O_WRONLY | os.O_APPEND}.get(how, os.O_RDWR))
        try:
            return WRITES[how](fd)
        finally:
            os.close(fd)

    c.watch("a")
    if who == "root":
        c.step("go", go)
    else:
        c.step("go", c.as_user, {"owner": USER, "othergroup": USER}.get(who, OTHER_USER), go)
    time.sleep(0.05)
    c.facts("a")


for how in WRITES:
    for mode in (0o6777, 0o6767, 0o4766, 0o2776):
        for who in ("root", "owner", "other", "othergroup"):
            if mode in (0o4766, 0o2776) and who in ("owner", "othergroup"):
                continue
            if mode == 0o6767 and who != "other":
                continue
            add(f"setuid/write/{how}/{mode:o}/{who}", write_to_setuid, mode, how, who)


def setuid_by_descriptor(c, how):
    """several times through one descriptor, of a file with or without a name"""
    write_file("a", b"x" * 100)
    os.chown("a", 0, 0)
    os.chmod("a", 0o6777)
    c.become(USER)
    fd = os.open("a", os.O_RDWR)
    c.become_root()
    if how == "unlinked":
        os.unlink("a")
    c.watch(fd)
    for i in range(2):
        os.fchmod(fd, 0o6777)
        c.step("write", c.as_user, USER, os.write, fd, b"1")
        os.fchmod(fd, 0o6777)
        c.step("ftruncate", c.as_user, USER, os.ftruncate, fd, 10 + i)
        os.fchmod(fd, 0o6777)
        c.step("fallocate", c.as_user, USER, raw.fallocate, fd, 0, 0, 1000 + i)
        os.fchmod(fd, 0o6777)
        c.step("fchown", raw.fchown, fd, 5, -1)
        os.fchmod(fd, 0o6777)
        c.step("fchown -1", raw.fchown, fd, -1, -1)


for how in ("linked", "unlinked"):
    add(f"setuid/descriptor/{how}", setuid_by_descriptor, how)


def chmod_setgid(c, t, mode):
    make(t, "a")
    os.chown("a", USER, GROUP)
    c.watch("a")
    c.step("owner outside", c.as_user, USER, raw.chmod, "a", mode)
    c.step("owner inside", c.as_user, USER, raw.chmod, "a", mode, groups=[GROUP])
    os.chown("a", USER, USER)
    c.step("own group", c.as_user, USER, raw.chmod, "a", mode)
    os.chown("a", USER, GROUP)
    c.step("root", raw.chmod, "a", mode)
    c.step("foreign", c.as_user, OTHER_USER, raw.chmod, "a", 0o644)

    def f():
        fd = os.open("a", os.O_RDONLY | os.O_NONBLOCK)
        try:
            os.fchmod(fd, mode)
        finally:
            os.close(fd)

    c.step("fchmod outside", c.as_user, USER, f)


for t in ("reg", "dir", "fifo"):
    for mode in (0o2755, 0o2644, 0o6755, 0o1755, 0o7777):
        add(f"setuid/chmod/{t}/{mode:o}", chmod_setgid, t, mode)


@case
def setuid__of_a_directory_stays(c):
    os.mkdir("d")
    os.chmod("d", 0o6777)
    c.watch("d")
    c.step("create in", make, "reg", "d/a")
    c.step("chown by user", c.as_user, USER, raw.chown, "d", -1, -1)
    c.step("rename", raw.rename, "d/a", "d/b")
    c.step("unlink", raw.unlink, "d/b")
    c.step("utimens", utimensat, "d", None, None)
    c.step("chown", raw.chown, "d", 1, 1)
