"""open(2): its flags, descriptors of paths alone, handles and /proc, and programs that run or are written."""

import ctypes, os, shutil, struct, subprocess, time
from case import (
    OTHER_USER,
    USER,
    case,
    effects_of,
    exit_code,
    in_child,
    in_order,
    make,
    open_and_close,
    outcome,
    read_file,
    write_file,
)
from system_calls import AT_EMPTY_PATH, AT_FDCWD, futimens, get_xattr, getdents, linkat, raw, readlink, utimensat


@case
def exec__busy_programs(c):
    shutil.copy("/bin/sleep", "prog")
    os.chmod("prog", 0o755)
    running = subprocess.Popen(["./prog", "20"])
    c.watch("prog", ".")
    c.step("open w", open_and_close, "prog", os.O_WRONLY)
    c.step("open rw", open_and_close, "prog", os.O_RDWR)
    c.step("open trunc", open_and_close, "prog", os.O_WRONLY | os.O_TRUNC)
    c.step("open r trunc", open_and_close, "prog", os.O_RDONLY | os.O_TRUNC)
    c.step("append", open_and_close, "prog", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    c.step("truncate", raw.truncate, "prog", 10)
    c.step("chmod", raw.chmod, "prog", 0o711)
    c.step("rename", raw.rename, "prog", "p2")
    c.step("link", raw.link, "p2", "prog")
    write_file("n", b"1")
    c.step("replace", raw.rename, "n", "prog")
    c.step("unlink", raw.unlink, "p2")
    running.kill()
    running.wait()
    shutil.copy("/bin/true", "t")
    os.chmod("t", 0o755)
    fd = os.open("t", os.O_WRONLY)
    c.step("exec of one open for writing", in_child, os.execv, "t", ["t"])
    os.close(fd)
    c.step("exec", os.spawnv, os.P_WAIT, "./t", ["t"])
    write_file("script", b"#!/bin/sh\nexit 3\n", 0o755)
    c.step("script", os.spawnv, os.P_WAIT, "./script", ["t"])
    os.chmod("t", 0o666)
    c.step("root no x", in_child, os.execv, "./t", ["t"])
    os.chmod("t", 0o001)
    c.step("root other x", os.spawnv, os.P_WAIT, "./t", ["t"])
    os.chmod("t", 0o711)
    c.step("user no r", c.as_user, USER, in_child, os.execv, "./t", ["t"])
    fd = os.open("t", os.O_RDONLY | os.O_CLOEXEC)
    c.step("fexec", in_child, lambda: raw.execveat(fd, "", None, None, AT_EMPTY_PATH))


@case
def open__flags(c):
    make("data", "f")
    os.mkdir("d")
    os.symlink("f", "lf")
    os.symlink("d", "ld")
    os.symlink("none", "ln")
    os.mkfifo("p")
    make("sock", "s")
    os.symlink("d/new", "lnew")
    c.watch(".", "f", "d", "lf", "ln", "none")
    R, W, RW, CR, EX, TR = os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_EXCL, os.O_TRUNC
    AP, NF, DI, PA, NB = os.O_APPEND, os.O_NOFOLLOW, os.O_DIRECTORY, os.O_PATH, os.O_NONBLOCK
    for label, p, fl in (
        ("creat existing", "f", W | CR),
        ("creat excl existing", "f", W | CR | EX),
        ("excl no creat", "f", W | EX),
        ("excl link", "lf", W | CR | EX),
        ("excl dangling", "ln", W | CR | EX),
        ("excl dir", "d", R | CR | EX),
        ("creat dir", "d", R | CR),
        ("dir w", "d", W),
        ("dir rw", "d", RW),
        ("dir trunc", "d", R | TR),
        ("dir|creat", "d", R | CR | DI),
        ("dir|creat new", "dn", R | CR | DI),
        ("dir file", "f", DI),
        ("dir link", "ld", DI),
        ("dir|nofollow link", "ld", DI | NF),
        ("nofollow link", "lf", NF),
        ("nofollow dangling creat", "ln", NF | CR | W),
        ("nofollow file", "f", NF),
        ("path link", "lf", PA | NF),
        ("path dir file", "f", PA | DI),
        ("path dir", "d", PA | DI),
        ("trunc", "f", W | TR),
        ("trunc again", "f", W | TR),
        ("creat trunc", "f", W | CR | TR),
        ("append trunc", "f", W | AP | TR),
        ("through link trunc", "lf", W | TR),
        ("fifo w nb", "p", W | NB),
        ("fifo r nb", "p", R | NB),
        ("fifo rw", "p", RW),
        ("sock", "s", R),
        ("sock path", "s", PA),
        ("mode 3", "f", 3),
        ("mode 3 trunc", "f", 3 | TR),
        ("direct", "f", R | os.O_DIRECT),
        ("direct w", "f", W | os.O_DIRECT),
        ("creat dangling", "ln", W | CR),
        ("creat through link into d", "lnew", W | CR),
        ("tmp", "d", os.O_TMPFILE | RW),
        ("tmp ro", "d", os.O_TMPFILE | R),
        ("tmp file", "f", os.O_TMPFILE | RW),
        ("tmp none", "xx", os.O_TMPFILE | RW),
        ("tmp creat", "d", os.O_TMPFILE | RW | CR),
        ("tmp excl", "d", os.O_TMPFILE | RW | EX),
        ("sync", "f", W | os.O_SYNC),
        ("noatime", "f", R | os.O_NOATIME),
        ("async", "f", RW | os.O_ASYNC),
        ("unknown", "f", 0x40000000),
    ):
        c.step(label, open_and_close, p, fl, 0o640)


@case
def open__rdonly_trunc(c):
    write_file("f", b"hello world" * 1000)
    c.watch("f")
    c.step("rdonly trunc", open_and_close, "f", os.O_RDONLY | os.O_TRUNC)
    c.note("read", read_file("f"))
    os.stat("f")
    time.sleep(0.3)
    fd = os.open("f", os.O_RDWR)
    c.note("read2", os.read(fd, 10))
    c.note("size", os.fstat(fd).st_size)
    os.write(fd, b"x")
    c.note("size", os.fstat(fd).st_size)
    os.close(fd)
    c.note("final", read_file("f")[:30])
    c.facts("f")
    write_file("g", b"hello")
    os.chown("g", USER, USER)
    os.chmod("g", 0o444)
    c.step("user no w", c.as_user, USER, open_and_close, "g", os.O_RDONLY | os.O_TRUNC)
    c.note("g", read_file("g"))
    os.chmod("g", 0o6777)
    c.step("suid", c.as_user, OTHER_USER, open_and_close, "g", os.O_RDONLY | os.O_TRUNC, watch=["g"])
    c.facts("g")


@case
def open__opath(c):
    make("data", "f")
    os.mkdir("d")
    os.symlink("f", "l")
    fd = os.open("f", os.O_PATH)
    ld = os.open("l", os.O_PATH | os.O_NOFOLLOW)
    dd = os.open("d", os.O_PATH)
    c.watch("f", ".")
    for label, fn in (
        ("read", lambda: os.read(fd, 1)),
        ("write", lambda: os.write(fd, b"1")),
        ("fchmod", lambda: raw.fchmod(fd, 0o600)),
        ("fchown", lambda: raw.fchown(fd, 1, 1)),
        ("ftruncate", lambda: raw.ftruncate(fd, 1)),
        ("fstat", lambda: os.fstat(fd).st_size),
        ("fsync", lambda: os.fsync(fd)),
        ("lseek", lambda: raw.lseek(fd, 0, 0)),
        ("fgetxattr", lambda: get_xattr(fd, "user.a", call="fgetxattr")),
        ("flock", lambda: raw.flock(fd, 1)),
        ("futimens", lambda: futimens(fd, None, None)),
        ("utimensat empty", lambda: utimensat("", (1, 1), (2, 2), AT_EMPTY_PATH, fd)),
        ("fchownat empty", lambda: raw.fchownat(fd, "", USER, USER, AT_EMPTY_PATH)),
        ("linkat empty", lambda: linkat("", "f2", AT_EMPTY_PATH, fd)),
        ("chmod proc", lambda: raw.chmod(f"/proc/self/fd/{fd}", 0o611)),
        ("fchmodat2 empty", lambda: raw.fchmodat2(fd, "", 0o622, AT_EMPTY_PATH)),
        ("truncate proc", lambda: raw.truncate(f"/proc/self/fd/{fd}", 4)),
        ("open proc", lambda: open_and_close(f"/proc/self/fd/{fd}", os.O_RDWR)),
        ("readlink lnk", lambda: readlink("", 9)),
        ("link fstat", lambda: oct(os.fstat(ld).st_mode)),
        ("link open proc", lambda: open_and_close(f"/proc/self/fd/{ld}", os.O_RDONLY)),
        ("link chown empty", lambda: raw.fchownat(ld, "", USER, USER, AT_EMPTY_PATH)),
        ("fchdir", lambda: in_child(os.fchdir, dd)),
        ("openat", effects_of(lambda: raw.openat(dd, "new", os.O_CREAT | os.O_WRONLY, 0o600))),
        ("getdents", lambda: getdents(dd)),
        ("close", lambda: os.close(fd)),
    ):
        c.step(label, fn)


@case
def open__creat_times(c):
    os.mkdir("d")
    c.watch("d", "d/a", "d/b")
    c.step("create", open_and_close, "d/a", os.O_CREAT | os.O_WRONLY)
    c.step("again", open_and_close, "d/a", os.O_CREAT | os.O_WRONLY)
    c.step("excl", open_and_close, "d/a", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    c.step("trunc of empty", open_and_close, "d/a", os.O_TRUNC | os.O_WRONLY)
    c.step("ro", open_and_close, "d/a", os.O_RDONLY)
    c.step("creat 0", open_and_close, "d/b", os.O_CREAT | os.O_RDWR, 0)
    c.step("write", write_file, "d/a", b"123")
    c.step("trunc", open_and_close, "d/a", os.O_TRUNC | os.O_WRONLY)
    c.step("open rw no write", open_and_close, "d/a", os.O_RDWR)
    fd = os.open("d/a", os.O_RDWR)
    c.step("write 0", os.write, fd, b"")
    c.step("write", os.write, fd, b"1")
    c.step("fsync", os.fsync, fd)
    c.step("read", os.pread, fd, 1, 0)
    c.step("read again", os.pread, fd, 1, 0)
    c.step("close", os.close, fd)
    fd = os.open("d/n", os.O_CREAT | os.O_RDWR, 0o0)
    c.step("write to mode 0", os.write, fd, b"1")
    c.note("r", outcome(os.pread, fd, 1, 0))

    def create_and_write():
        """a user's file that is created without any permission, written through that descriptor"""
        fd = os.open("q", os.O_CREAT | os.O_EXCL | os.O_RDWR, 0)
        return [os.write(fd, b"abc"), os.pread(fd, 9, 0)]

    c.step("user mode 0", c.as_user, USER, create_and_write)


@case
def open__by_handle(c):
    write_file("f", b"data")
    b = ctypes.create_string_buffer(struct.pack("Ii", 128, 0) + bytes(128))
    m = ctypes.c_int(0)
    c.step("name_to_handle", lambda: raw.name_to_handle_at(AT_FDCWD, "f", b, ctypes.byref(m), 0))
    fd = os.open(".", os.O_RDONLY)
    c.step("open_by_handle", lambda: os.read(raw.open_by_handle_at(fd, b, 0), 9))


@case
def open__through_proc(c):
    write_file("f", b"data")
    fd = os.open("f", os.O_RDONLY)
    path = f"/proc/self/fd/{fd}"
    c.step("reopen w", lambda: os.write(os.open(path, os.O_WRONLY), b"X"))
    c.note("d", read_file("f"))
    os.rename("f", "g")
    c.note("link", os.readlink(path).split("/")[-1])
    os.unlink("g")
    c.note("deleted", os.readlink(path).split("/")[-1])
    c.step("reopen", lambda: os.read(os.open(path, os.O_RDWR), 9))
    os.chmod(path, 0o400)
    c.step("user reopen", c.as_user, USER, os.open, path, os.O_RDONLY)
    os.chown(path, USER, USER)
    c.step("owner", c.as_user, USER, lambda: os.close(os.open(path, os.O_RDONLY)))
    c.step("owner w", c.as_user, USER, os.open, path, os.O_RDWR)
    write_file("h", b"1")
    os.link("h", "i")
    q = os.open("h", os.O_RDONLY)
    os.unlink("h")
    c.note("other name", os.readlink(f"/proc/self/fd/{q}").split("/")[-1])


@case
def open__openat2_resolve(c):
    os.makedirs("d/e")
    write_file("d/f", b"1")
    os.symlink("../..", "d/up")
    os.symlink("f", "d/l")
    os.symlink("/etc/passwd", "d/abs")
    dd = os.open("d", os.O_RDONLY)
    # Reading a symbolic link sets its access time now, if ever: RESOLVE_CACHED (32) can't wait for that.
    c.pause()

    def openat2(p, flags, resolve, mode=0):
        how = ctypes.create_string_buffer(struct.pack("QQQ", flags, mode, resolve), 24)
        os.close(raw.openat2(dd, p, how, 24))

    for r in (1, 2, 4, 8, 16, 32):
        for p in ("f", "l", "up", "abs", "e/../f", "../d/f"):
            c.step(f"{r} {p}", openat2, p, 0, r)
    c.step("mode without creat", openat2, "f", 0, 0, 0o644)
    c.step("unknown", openat2, "f", 0, 0x1000)


@case
def open__rdonly_trunc_in_every_state(c):
    for label, prep in (
        ("delivered", in_order(lambda: write_file("f", b"x" * 5000), lambda: time.sleep(0.5))),
        ("fresh", lambda: write_file("f", b"x" * 5000)),
        ("dirty", in_order(lambda: write_file("f", b""), lambda: os.write(os.open("f", os.O_RDWR), b"y" * 5000))),
    ):
        prep()
        c.step(label, open_and_close, "f", os.O_RDONLY | os.O_TRUNC, watch=["f"])
        c.note("content", len(read_file("f")))
        os.unlink("f")
    c.step("creat", open_and_close, "n", os.O_RDONLY | os.O_TRUNC | os.O_CREAT)
    write_file("n", b"123")
    c.step("creat existing", open_and_close, "n", os.O_RDONLY | os.O_TRUNC | os.O_CREAT)
    c.note("n", read_file("n"))
    write_file("s", b"123")
    c.step("shell <>", lambda: os.close(os.open("s", os.O_RDWR | os.O_TRUNC)))
    c.note("s", read_file("s"))


@case
def exec__replaced_while_running(c):
    shutil.copy("/bin/sleep", "p")
    running = subprocess.Popen(["./p", "1"])
    shutil.copy("/bin/true", "q")
    os.rename("q", "p")
    c.note("the old one ends", running.wait())
    c.note("the new one", exit_code("./p"))
