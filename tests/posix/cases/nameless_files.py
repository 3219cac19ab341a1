"""Files that are held but have no name: removed, renamed over, or made by O_TMPFILE."""

import mmap, os, time
from case import USER, case, digest, make, open_and_close, read_file, write_file
from system_calls import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_REMOVEDIR,
    AT_SYMLINK_FOLLOW,
    UTIME_NOW,
    UTIME_OMIT,
    copy_file_range,
    futimens,
    get_xattr,
    linkat,
    list_xattrs,
    raw,
    set_xattr,
    utimensat,
    xattr_names,
)


def opened(path, flags, fn):
    """A function that calls fn with a descriptor of the path, opened and closed."""

    def call():
        fd = os.open(path, flags)
        try:
            return fn(fd)
        finally:
            os.close(fd)

    return call


def path_of(fd):
    return f"/proc/self/fd/{fd}"


@case
def unlink__times(c):
    make("data", "a")
    os.link("a", "b")
    fd = os.open("a", os.O_RDWR)
    os.mkdir("d")
    os.symlink("d", "l")
    c.watch(".", "b", fd, "d")
    c.step("a", raw.unlink, "a")
    c.step("b", raw.unlink, "b")
    c.step("again", raw.unlink, "b")
    c.step("dir", raw.unlink, "d")
    c.step("dir user", c.as_user, USER, raw.unlink, "d")
    c.step("l/", raw.unlink, "l/")
    c.step("rmdir l", raw.rmdir, "l")
    c.step("rmdir l/", raw.rmdir, "l/")
    c.step("l", raw.unlink, "l")
    c.step("unlinkat dir", raw.unlinkat, AT_FDCWD, "d", AT_REMOVEDIR)
    c.step("unlinkat bad", raw.unlinkat, AT_FDCWD, "d", 1)


@case
def nameless__every_call_on_an_open_file(c):
    write_file("a", b"0123456789" * 1000)
    write_file("src", b"S" * 5000)
    fd = os.open("a", os.O_RDWR)
    os.setxattr("a", "user.k", b"v")
    os.setxattr("a", "trusted.t", b"w")
    os.unlink("a")
    c.watch(fd, ".")
    path = path_of(fd)

    def content():
        return digest(os.pread(fd, 1 << 20, 0))

    for label, fn in (
        ("stat", lambda: os.fstat(fd).st_nlink),
        ("read", lambda: os.pread(fd, 10, 5)),
        ("write", lambda: os.pwrite(fd, b"XX", 3)),
        ("content", content),
        ("ftruncate", lambda: os.ftruncate(fd, 6000)),
        ("grow", lambda: os.ftruncate(fd, 20000)),
        ("content", content),
        ("fallocate", lambda: raw.fallocate(fd, 0, 0, 30000)),
        ("punch", lambda: raw.fallocate(fd, 3, 4096, 4096)),
        ("zero", lambda: raw.fallocate(fd, 16, 100, 5000)),
        ("content", content),
        ("fchmod", lambda: os.fchmod(fd, 0o4711)),
        ("fchown", lambda: os.fchown(fd, 5, 6)),
        ("fchown -1", lambda: os.fchown(fd, -1, -1)),
        ("futimens", lambda: futimens(fd, (7, 1), (8, 2))),
        ("times", lambda: [os.fstat(fd).st_atime_ns, os.fstat(fd).st_mtime_ns]),
        ("omit", lambda: futimens(fd, (0, UTIME_OMIT), (0, UTIME_NOW))),
        ("read", lambda: os.pread(fd, 10, 0)),
        ("fsetx", lambda: set_xattr(fd, "user.n", b"12", 0, "fsetxattr")),
        ("flistx", lambda: xattr_names(fd, call="flistxattr")),
        ("fgetx", lambda: get_xattr(fd, "user.k", call="fgetxattr")),
        ("create", lambda: set_xattr(fd, "user.n", b"12", 1, "fsetxattr")),
        ("fremx", lambda: raw.fremovexattr(fd, "user.k")),
        ("fremx", lambda: raw.fremovexattr(fd, "user.k")),
        ("erange", lambda: get_xattr(fd, "user.n", 1, "fgetxattr")),
        ("flistx size", lambda: list_xattrs(fd, 0, "flistxattr") > 0),
        ("fsync", lambda: os.fsync(fd)),
        ("lseek data", lambda: os.lseek(fd, 0, 3)),
        ("copy", lambda: copy_file_range(os.open("src", os.O_RDONLY), None, fd, 0, 5000)),
        ("copy from", lambda: copy_file_range(fd, 0, os.open("dst", os.O_CREAT | os.O_RDWR), None, 3000)),
        ("reopen r", lambda: os.pread(os.open(path, os.O_RDONLY), 5, 0)),
        ("reopen w", lambda: os.write(os.open(path, os.O_RDWR), b"reopened")),
        ("reopen a", lambda: os.write(os.open(path, os.O_WRONLY | os.O_APPEND), b"app")),
        ("content", content),
        ("reopen trunc", lambda: os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))),
        ("size", lambda: os.fstat(fd).st_size),
        ("chmod proc", lambda: raw.chmod(path, 0o600)),
        ("truncate proc", lambda: raw.truncate(path, 77)),
        ("setx proc", lambda: set_xattr(path, "user.p", b"1")),
        ("stat proc", lambda: [os.stat(path).st_size, os.stat(path).st_nlink]),
        ("link proc", lambda: linkat(path, "back", AT_SYMLINK_FOLLOW)),
        ("link empty", lambda: linkat("", "back", AT_EMPTY_PATH, fd)),
        ("new same name", lambda: write_file("a", b"other")),
        ("not it", lambda: os.fstat(fd).st_ino != os.stat("a").st_ino),
        ("size", lambda: os.fstat(fd).st_size),
        ("flock", lambda: raw.flock(fd, 6)),
        ("sendfile", lambda: os.sendfile(os.open("dst", os.O_RDWR), fd, 0, 10)),
        ("blocks", lambda: os.fstat(fd).st_blocks >= 0),
        ("close", lambda: os.close(fd)),
    ):
        c.step(label, fn)
    c.facts("dst")


@case
def nameless__path_descriptor_reopened(c):
    """content of a file without a name that is held by O_PATH only"""
    for label, n in (("small", 12), ("big", 300000)):
        for settle in (0, 0.6):
            write_file("a", b"0123456789ab" * (n // 12))
            time.sleep(settle)
            fd = os.open("a", os.O_PATH)
            os.unlink("a")
            path = path_of(fd)
            c.step(f"{label} stat", lambda: [os.stat(path).st_size, os.stat(path).st_nlink])
            c.step(
                f"{label} open r",
                opened(path, os.O_RDONLY, lambda g: [os.fstat(g).st_size, digest(os.read(g, 1 << 20))]),
            )

            def rewrite(g):
                os.pwrite(g, b"NEW", 2)
                return [os.fstat(g).st_size, os.pread(g, 8, 0)]

            def grow(g):
                os.ftruncate(g, 20)
                return [os.fstat(g).st_size, os.pread(g, 30, 0)]

            c.step(f"{label} rw", opened(path, os.O_RDWR, rewrite))
            c.step(f"{label} after", opened(path, os.O_RDONLY, lambda g: os.pread(g, 8, 0)))
            c.step(f"{label} trunc", raw.truncate, path, 5)
            c.step("size", lambda: os.stat(path).st_size)
            c.step(
                "grow",
                opened(path, os.O_RDWR, grow),
            )
            c.step("chmod", raw.chmod, path, 0o600)
            c.step("mode", lambda: oct(os.stat(path).st_mode))
            c.step("setx", set_xattr, path, "user.a", b"1")
            c.step("getx", get_xattr, path, "user.a")
            c.step("listx", xattr_names, path)
            os.close(fd)


@case
def nameless__xattrs_by_path_descriptor(c):
    make("data", "a")
    os.setxattr("a", "user.k", b"v")
    fd = os.open("a", os.O_PATH)
    os.unlink("a")
    path = path_of(fd)
    c.step("getx", get_xattr, path, "user.k")
    c.step("list", xattr_names, path)
    c.step("set", set_xattr, path, "user.m", b"1")
    c.step("list", xattr_names, path)
    c.step("chown", raw.chown, path, 1, 2)
    c.step("times", utimensat, path, (1, 1), (2, 2))
    c.step("stat", lambda: [os.stat(path).st_uid, os.stat(path).st_mtime_ns])


@case
def nameless__renamed_over_and_held_by_path_descriptor(c):
    write_file("a", b"old content")
    write_file("b", b"new content")
    fd = os.open("a", os.O_PATH)
    path = path_of(fd)
    os.rename("b", "a")
    c.step("read", lambda: read_file(path))
    c.step("stat", lambda: [os.stat(path).st_nlink, os.stat(path).st_size])
    c.step("write", lambda: write_file(path, b"zz"))
    c.step("read", lambda: read_file(path))
    c.note("a", read_file("a"))


@case
def tmpfile__made_written_linked(c):
    os.mkdir("d")
    c.watch("d", "d/n", "d/m")
    fd = os.open("d", os.O_TMPFILE | os.O_RDWR, 0o640)
    path = path_of(fd)

    def facts_of_new():
        st = os.fstat(fd)
        return [oct(st.st_mode), st.st_nlink, st.st_size, len({st.st_atime_ns, st.st_mtime_ns, st.st_ctime_ns})]

    c.step(
        "facts",
        facts_of_new,
    )
    c.step("write", os.write, fd, b"tmp data")
    c.step("xattr", set_xattr, fd, "user.a", b"1", 0, "fsetxattr")
    c.step("list", lambda: os.listdir("d"))
    c.step("reopen", lambda: os.pread(os.open(path, os.O_RDONLY), 99, 0))
    c.step("fchmod", os.fchmod, fd, 0o604)
    c.step("link", linkat, path, "d/n", AT_SYMLINK_FOLLOW)
    c.step("link 2", linkat, path, "d/m", AT_SYMLINK_FOLLOW)
    c.step("exists", linkat, path, "d/m", AT_SYMLINK_FOLLOW)
    c.note("data", read_file("d/n"))
    c.step("x", get_xattr, "d/n", "user.a")
    c.step("write", os.write, fd, b" more")
    c.note("data", read_file("d/m"))
    c.step("unlink", raw.unlink, "d/n")
    c.step("unlink", raw.unlink, "d/m")
    c.step("link again", linkat, path, "d/n", AT_SYMLINK_FOLLOW)
    fd = os.open("d", os.O_TMPFILE | os.O_RDWR | os.O_EXCL, 0o640)
    c.step("excl link", linkat, path_of(fd), "d/e", AT_SYMLINK_FOLLOW)
    os.chmod("d", 0o555)
    c.step("no w", c.as_user, USER, open_and_close, "d", os.O_TMPFILE | os.O_RDWR)
    os.chmod("d", 0o777)

    def make_and_link():
        fd = os.open("d", os.O_TMPFILE | os.O_RDWR, 0o600)
        os.write(fd, b"u")
        linkat(path_of(fd), "d/u", AT_SYMLINK_FOLLOW)

    c.step("user", c.as_user, USER, make_and_link)
    c.facts("d/u")
    fd = os.open("d", os.O_TMPFILE | os.O_RDWR, 0o600)
    c.step("empty link", linkat, path_of(fd), "d/empty", AT_SYMLINK_FOLLOW)
    c.facts("d/empty")
    fd = os.open("d", os.O_TMPFILE | os.O_RDWR, 0o6711)
    os.ftruncate(fd, 1 << 20)
    os.pwrite(fd, b"e", 500000)
    os.fchown(fd, 3, 4)
    futimens(fd, (1, 1), (2, 2))
    c.step("big", linkat, path_of(fd), "d/big", AT_SYMLINK_FOLLOW)
    c.facts("d/big")
    c.note("t", [os.stat("d/big").st_atime_ns, os.stat("d/big").st_mtime_ns])


@case
def nameless__changes_after_the_last_name_went(c):
    """a file whose last name goes by unlink or rename: its ctime moves, and what its descriptor changes counts"""
    for how in ("unlink", "rename", "second name"):
        write_file("f", b"x")
        write_file("g", b"y")
        fd = os.open("f", os.O_RDWR)
        if how == "second name":
            os.link("f", "h")
        c.watch(fd)
        if how == "rename":
            c.step(how, raw.rename, "g", "f")
        else:
            c.step(how, raw.unlink, "f")
        if how == "second name":
            c.step("last", raw.unlink, "h")
        c.step("write", os.write, fd, b"z")
        c.step("setxattr", set_xattr, fd, "user.a", b"1", 0, "fsetxattr")
        c.step("setxattr again", set_xattr, fd, "user.a", b"2", 0, "fsetxattr")
        c.step("remove", raw.fremovexattr, fd, "user.a")
        os.fchmod(fd, 0o6777)
        c.step("user write", c.as_user, USER, os.write, fd, b"q")
        os.close(fd)
    fd = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o600)
    os.fchmod(fd, 0o6777)
    c.watch(fd)
    c.step("tmpfile user write", c.as_user, USER, os.write, fd, b"q")
    os.fchmod(fd, 0o6777)
    c.step("tmpfile user truncate", c.as_user, USER, os.ftruncate, fd, 9)
    linkat(path_of(fd), "named", AT_SYMLINK_FOLLOW)
    c.facts("named")


@case
def nameless__held_by_a_path_descriptor_alone(c):
    write_file("f", b"0123456789")
    os.setxattr("f", "user.k", b"v")
    p = os.open("f", os.O_PATH)
    path = path_of(p)
    os.unlink("f")
    c.watch(p)
    c.step("getx", get_xattr, path, "user.k")
    c.step("setx", set_xattr, path, "user.m", b"1")
    c.step("append", lambda: os.write(os.open(path, os.O_WRONLY | os.O_APPEND), b"ABC"))
    c.step("read", lambda: os.pread(os.open(path, os.O_RDONLY), 99, 0))
    c.step("truncate", raw.truncate, path, 3)
    c.step("read", lambda: os.pread(os.open(path, os.O_RDONLY), 99, 0))
    c.step("otrunc", open_and_close, path, os.O_WRONLY | os.O_TRUNC)
    c.step("size", lambda: os.stat(path).st_size)
    c.step("link", linkat, path, "g", AT_SYMLINK_FOLLOW)


@case
def nameless__attributes_of_a_removed_directory(c):
    os.mkdir("d")
    os.setxattr("d", "user.k", b"v")
    fd = os.open("d", os.O_RDONLY)
    os.rmdir("d")
    c.step("get", get_xattr, fd, "user.k", call="fgetxattr")
    c.step("list", xattr_names, fd, call="flistxattr")
    c.step("set", set_xattr, fd, "user.n", b"1", 0, "fsetxattr")
    c.step("remove", raw.fremovexattr, fd, "user.k")


@case
def nameless__replaced_and_removed_while_open(c):
    """the same file written, removed, replaced, while others have it open in different ways"""
    write_file("f", b"one")
    r = os.open("f", os.O_RDONLY)
    w = os.open("f", os.O_RDWR)
    m = mmap.mmap(w, 3)
    write_file("g", b"two!")
    os.rename("g", "f")
    c.note("r", os.pread(r, 9, 0))
    os.pwrite(w, b"ONE", 0)
    c.note("m", m[:3])
    m[0] = 90
    c.note("r", os.pread(r, 9, 0))
    os.close(w)
    os.close(r)
    c.note("m", m[:3])
    m[1] = 90
    m.flush()
    c.note("m", m[:3])
    m.close()
    c.note("f", read_file("f"))
    write_file("x", b"1")
    os.link("x", "y")
    a = os.open("x", os.O_RDWR)
    os.unlink("x")
    os.rename("y", "x")
    os.write(a, b"2")
    c.note("x", [read_file("x"), os.fstat(a).st_nlink])
    os.unlink("x")
    c.note("n", os.fstat(a).st_nlink)
    q = os.open("big", os.O_CREAT | os.O_RDWR)
    os.write(q, b"k" * 300000)
    os.unlink("big")
    time.sleep(0.3)
    c.note("big", len(os.pread(q, 400000, 0)))
    os.ftruncate(q, 0)
    os.pwrite(q, b"z", 100000)
    c.note("big", [os.fstat(q).st_size, os.pread(q, 3, 99999)])


@case
def nameless__opened_after_the_last_descriptor_closed(c):
    """opened through O_PATH after the last descriptor of a file without a name was closed"""
    f = os.open("f", os.O_CREAT | os.O_RDWR)
    os.write(f, b"x")
    p = os.open("f", os.O_PATH)
    os.unlink("f")
    os.close(f)
    time.sleep(0.2)
    c.step("fstat", lambda: os.fstat(p).st_nlink)
    c.step("open", lambda: os.read(os.open(path_of(p), os.O_RDONLY), 9))
