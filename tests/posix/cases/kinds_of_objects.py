"""Files, folders, fifos, devices, sockets and symbolic links: what each call makes of each."""

import os, socket, stat
from case import GROUP, OTHER_USER, USER, add, case, in_child, make, open_and_close, remove_if_there
from system_calls import AT_FDCWD, AT_SYMLINK_NOFOLLOW, UTIME_NOW, raw, readlink, set_xattr, utimensat, xattr_names

KINDS = ["reg", "dir", "fifo", "blk", "chr", "sock", "lnk"]


def every_call_on(c, t):
    c.watch(".", "a", "b")
    if t in ("blk", "chr"):
        c.step("make as user", c.as_user, USER, make, t, "a")
    c.step("make", make, t, "a")
    if t != "lnk":
        c.step("chmod 111", raw.chmod, "a", 0o111)
        c.step("chmod 7777", raw.chmod, "a", 0o7777)
        c.step("chmod 0", raw.chmod, "a", 0)
        c.step("chmod 644", raw.chmod, "a", 0o644)
    c.step("fchmodat2 nofollow", raw.fchmodat2, AT_FDCWD, "a", 0o4711, AT_SYMLINK_NOFOLLOW)
    c.step("lchown", raw.lchown, "a", USER, OTHER_USER)
    c.step("lchown -1 -1", raw.lchown, "a", -1, -1)
    c.step("lchown 0", raw.lchown, "a", 0, -1)
    c.step("lchown gid", raw.lchown, "a", -1, 123456)
    c.step("utimensat", utimensat, "a", (1000, 1), (2000, 2), AT_SYMLINK_NOFOLLOW)
    st = os.lstat("a")
    c.note("times", [st.st_atime_ns, st.st_mtime_ns])
    c.step("utimensat now", utimensat, "a", (0, UTIME_NOW), (0, UTIME_NOW), AT_SYMLINK_NOFOLLOW)
    c.step("utimensat null", utimensat, "a", None, None, AT_SYMLINK_NOFOLLOW)
    c.step("link", raw.link, "a", "b")
    c.step("unlink b", raw.unlink, "b")
    c.step("rename", raw.rename, "a", "b")
    c.step("rename back", raw.rename, "b", "a")
    c.step("user xattr", set_xattr, "a", "user.x", b"1", 0, "lsetxattr")
    c.step("trusted xattr", set_xattr, "a", "trusted.x", b"1", 0, "lsetxattr")
    c.step("security xattr", set_xattr, "a", "security.x", b"1", 0, "lsetxattr")
    c.step("list", xattr_names, "a", call="llistxattr")
    c.step("remove", raw.lremovexattr, "a", "trusted.x")
    c.step("remove again", raw.lremovexattr, "a", "trusted.x")
    c.step("truncate", raw.truncate, "a", 3)
    c.step("O_PATH", open_and_close, "a", os.O_PATH | os.O_NOFOLLOW)
    c.step("readlink", readlink, "a")
    c.step("open excl", open_and_close, "a", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    c.step("open nofollow nonblock", open_and_close, "a", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    c.step("open w nonblock", open_and_close, "a", os.O_WRONLY | os.O_NONBLOCK)
    c.step("open creat nonblock", open_and_close, "a", os.O_WRONLY | os.O_NONBLOCK | os.O_CREAT)
    c.step("open trunc nonblock", open_and_close, "a", os.O_WRONLY | os.O_NONBLOCK | os.O_TRUNC)
    c.step("open directory", open_and_close, "a", os.O_DIRECTORY)
    c.step("chdir", in_child, raw.chdir, "a")
    c.step("exec", in_child, os.execv, "a", ["x"])
    c.step("mkdir", raw.mkdir, "a", 0o755)
    c.step("mknod", raw.mknod, "a", stat.S_IFIFO | 0o644, 0)
    c.step("symlink", raw.symlink, "x", "a")
    c.step("link over", raw.link, "a", "a")
    c.step("rename itself", raw.rename, "a", "a")
    c.step("rmdir", raw.rmdir, "a")
    c.step("unlink", raw.unlink, "a")


for t in KINDS:
    add(f"type/{t}", every_call_on, t)


def owned_by_a_user(c, t):
    """every object made by a user, in his own directory"""
    os.mkdir("d")
    os.chown("d", USER, USER)
    os.chdir("d")
    c.watch(".", "a", "b")
    c.become(USER, OTHER_USER, [GROUP])
    c.step("make", make, t, "a")
    if t in ("blk", "chr"):
        c.become_root()
        make(t, "a")
        os.lchown("a", USER, OTHER_USER)
        c.become(USER, OTHER_USER, [GROUP])
    c.step("chown own", raw.lchown, "a", USER, OTHER_USER)
    c.step("chown -1", raw.lchown, "a", -1, -1)
    c.step("chgrp group", raw.lchown, "a", -1, GROUP)
    c.step("chgrp foreign", raw.lchown, "a", -1, 777)
    c.step("chown foreign", raw.lchown, "a", 0, -1)
    c.step("chown own foreign group", raw.lchown, "a", USER, 0)
    c.step("times", utimensat, "a", (5, 0), (6, 0), AT_SYMLINK_NOFOLLOW)
    c.step("rename", raw.rename, "a", "b")
    c.step("link", raw.link, "b", "a")
    c.become(OTHER_USER, OTHER_USER, [])
    c.step("other: chown own", raw.lchown, "b", -1, OTHER_USER)
    c.step("other: -1", raw.lchown, "b", -1, -1)
    c.step("other: times", utimensat, "b", (5, 0), (6, 0), AT_SYMLINK_NOFOLLOW)
    c.step("other: now", utimensat, "b", None, None, AT_SYMLINK_NOFOLLOW)
    c.step("other: rename", raw.rename, "b", "c")
    c.step("other: unlink", raw.unlink, "b")
    c.step("other: link", raw.link, "b", "../c")
    if t != "lnk":
        c.step("other: chmod", raw.chmod, "b", 0o777)
    c.become(USER, OTHER_USER, [GROUP])
    if t == "dir":
        c.step("rmdir", raw.rmdir, "b")
    else:
        c.step("unlink", raw.unlink, "b")
        c.step("unlink", raw.unlink, "a")


for t in KINDS:
    add(f"type_of_a_user/{t}", owned_by_a_user, t)


@case
def mknod__kinds(c):
    c.watch(".", "a")
    for label, mode, dev in (
        ("0", 0o644, 0),
        ("reg", 0o100644, 0),
        ("dir", 0o040755, 0),
        ("lnk", 0o120777, 0),
        ("bad", 0o030644, 0),
        ("bad15", 0o170644, 0),
        ("fifo", 0o010644, 0),
        ("sock", 0o140644, 0),
        ("chr", 0o020644, os.makedev(1, 3)),
        ("chr big", 0o020644, os.makedev(4095, 1048575)),
        ("blk big minor", 0o060644, os.makedev(8, 70000)),
        ("blk", 0o060600, os.makedev(259, 3)),
        ("fifo dev", 0o010644, 77),
        ("reg dev", 0o100644, 77),
        ("whiteout", 0o020644, 0),
    ):
        c.step(label, raw.mknod, "a", mode, dev)
        c.facts("a")
        c.step(label + " user", c.as_user, USER, raw.mknod, "b", mode, dev)
        c.facts("b")
        for p in "ab":
            remove_if_there(p)


@case
def fifo__io(c):
    os.mkfifo("p")
    r = os.open("p", os.O_RDONLY | os.O_NONBLOCK)
    w = os.open("p", os.O_WRONLY)
    c.watch("p", ".")
    c.step("write", os.write, w, b"hello")
    c.step("read", os.read, r, 3)
    c.step("rename", raw.rename, "p", "q")
    c.step("read", os.read, r, 3)
    c.step("empty", os.read, r, 3)
    c.step("unlink", raw.unlink, "q")
    c.step("w", os.write, w, b"x")
    c.step("r", os.read, r, 3)
    c.step("fstat", lambda: os.fstat(r).st_nlink)
    c.step("fchmod", os.fchmod, r, 0o600)
    c.step("fsync", os.fsync, w)
    c.step("lseek", os.lseek, r, 0, 0)
    c.step("ftruncate", os.ftruncate, w, 0)
    c.step("fallocate", raw.fallocate, w, 0, 0, 10)
    c.step("reopen", lambda: os.close(os.open(f"/proc/self/fd/{r}", os.O_RDONLY | os.O_NONBLOCK)))


@case
def sock__io(c):
    a = socket.socket(socket.AF_UNIX)
    c.watch(".", "s")
    c.step("bind", a.bind, "s")
    a.listen()
    b = socket.socket(socket.AF_UNIX)
    c.step("connect", b.connect, "s")
    c.step("bind again", socket.socket(socket.AF_UNIX).bind, "s")
    os.rename("s", "t")
    c.step("connect renamed", socket.socket(socket.AF_UNIX).connect, "t")
    os.chmod("t", 0o600)
    c.step("as user", c.as_user, USER, socket.socket(socket.AF_UNIX).connect, "t")
    a.close()
    c.step("refused", socket.socket(socket.AF_UNIX).connect, "t")
    c.step("open", open_and_close, "t", os.O_RDWR)


@case
def fifo__times(c):
    os.mkfifo("p")
    fd = os.open("p", os.O_RDWR)
    utimensat("p", (1000, 0), (2000, 0))
    c.watch("p")
    c.step("write", os.write, fd, b"1")
    c.step("read", os.read, fd, 1)
