"""Who may do what: modes of folders and files, sticky folders, access(2), and the owner and mode of what is made."""

import os, shutil, socket, stat
from case import GROUP, OTHER_USER, USER, add, case, make, open_and_close, outcome, write_file
from cases.calls_on_paths import CALLS, make_for_call
from system_calls import AT_EACCESS, AT_FDCWD, RENAME_EXCHANGE, RENAME_NOREPLACE, get_xattr, raw, renameat2, set_xattr


def permission(c, op, mode, who):
    fn, kind = CALLS[op]
    make("reg", "f0")
    os.chown("f0", USER, USER)
    os.mkdir("d")
    make_for_call(kind, "d/x", USER)
    os.chown("d", USER if who == "owner" else 0, USER if who == "group" else 0)
    os.chmod("d", mode)
    c.watch(".", "d", "d/x", "f0")
    os.chmod(".", 0o777)
    c.step("as a user", c.as_user, USER, fn, "d/x")
    if who == "other":
        c.step("as a user with group 0", c.as_user, USER, fn, "d/x", groups=[0])
    c.facts("d/x", "other")


for op in CALLS:
    for mode, who in (
        (0o677, "owner"),
        (0o577, "owner"),
        (0o377, "owner"),
        (0o755, "other"),
        (0o707, "group"),
        (0o770, "other"),
    ):
        add(f"permission/{op}/{mode:o}/{who}", permission, op, mode, who)


def inherit(c, dmode, umask, who):
    os.mkdir("d")
    os.chown("d", OTHER_USER, GROUP)
    os.chmod("d", dmode)
    os.umask(umask)
    c.watch("d", "d/f", "d/d", "d/p", "d/s", "d/l", "d/n", "d/t")
    groups = [GROUP] if who == "member" else []

    def run(fn, *a):
        return fn(*a) if who == "root" else c.as_user(USER, fn, *a, groups=groups)

    c.step("open 6777", run, open_and_close, "d/f", os.O_CREAT | os.O_WRONLY, 0o6777)
    c.step("open 2777", run, open_and_close, "d/t", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o2767)
    c.step("mkdir 7777", run, raw.mkdir, "d/d", 0o7777)
    c.step("mkfifo", run, raw.mknod, "d/p", stat.S_IFIFO | 0o7777, 0)
    c.step("sock", run, raw.mknod, "d/s", stat.S_IFSOCK | 0o2770, 0)
    c.step("mknod", run, raw.mknod, "d/n", stat.S_IFREG | 0o6777, 0)
    c.step("symlink", run, raw.symlink, "t", "d/l")

    def tmp():
        fd = os.open("d", os.O_TMPFILE | os.O_RDWR, 0o6777)
        x = os.fstat(fd)
        os.close(fd)
        return [oct(x.st_mode), x.st_uid, x.st_gid, x.st_nlink]

    c.step("tmpfile", run, tmp)

    def bind():
        q = socket.socket(socket.AF_UNIX)
        q.bind("d/sk")
        q.close()

    c.step("bind", run, bind, watch=["d/sk", "d"])


for dmode in (0o777, 0o2777, 0o3777, 0o1777, 0o2755):
    for umask in (0, 0o022, 0o077, 0o777):
        for who in ("root", "user", "member"):
            if umask in (0o077, 0o777) and dmode != 0o2777:
                continue
            add(f"inherit/{dmode:o}/{umask:o}/{who}", inherit, dmode, umask, who)


def sticky(c, folder_owner, owner, t):
    """what a user may do in a sticky folder, his own or not, with what is his or not"""
    c.watch("d", "d/a", "e", "d/b")

    def fresh():
        for p in ("d", "e"):
            if os.path.isdir(p):
                shutil.rmtree(p)
            os.mkdir(p)
            os.chown(p, folder_owner, folder_owner)
            os.chmod(p, 0o1777)
        make(t, "d/a")
        os.lchown("d/a", owner, owner)
        make("dir" if t == "dir" else "reg", "d/b")
        os.chown("d/b", USER, USER)
        make("dir" if t == "dir" else "reg", "e/c")
        os.chown("e/c", USER, USER)
        if t == "dir":
            os.chmod("d/a", 0o777)

    for label, fn in (
        ("remove", lambda: (raw.rmdir if t == "dir" else raw.unlink)("d/a")),
        ("rename", lambda: raw.rename("d/a", "d/x")),
        ("rename away", lambda: raw.rename("d/a", "e/x")),
        ("rename over", lambda: raw.rename("d/b", "d/a")),
        ("rename over from outside", lambda: raw.rename("e/c", "d/a")),
        ("exchange", lambda: renameat2("d/b", "d/a", RENAME_EXCHANGE)),
        ("exchange back", lambda: renameat2("d/a", "e/c", RENAME_EXCHANGE)),
        ("link", lambda: raw.link("d/a", "d/l")),
        ("noreplace", lambda: renameat2("d/a", "d/y", RENAME_NOREPLACE)),
    ):
        fresh()
        c.step(label, c.as_user, USER, fn)


for folder_owner in (0, USER, OTHER_USER):
    for owner in (0, USER, OTHER_USER):
        for t in ("reg", "dir", "lnk", "fifo"):
            if t in ("lnk", "fifo") and folder_owner == 0 and owner == 0:
                continue
            add(f"sticky/{folder_owner}/{owner}/{t}", sticky, folder_owner, owner, t)


def open_by_mode(c, who):
    make("data", "f")
    os.mkdir("d")
    for bits in range(8):
        mode = {
            "owner": bits << 6,
            "group": bits << 3,
            "other": bits,
            "suppl": bits << 3,
            "ownerdenied": (bits << 6) | 0o077,
        }[who]
        for p in ("f", "d"):
            os.chown(p, USER if who in ("owner", "ownerdenied") else 0, {"group": USER, "suppl": GROUP}.get(who, 0))
            os.chmod(p, mode)
            c.become(USER, USER, [GROUP] if who == "suppl" else [])
            res = []
            for fl in (
                os.O_RDONLY,
                os.O_WRONLY,
                os.O_RDWR,
                os.O_RDONLY | os.O_TRUNC,
                os.O_WRONLY | os.O_TRUNC,
                os.O_WRONLY | os.O_CREAT,
                os.O_WRONLY | os.O_APPEND,
                os.O_RDONLY | os.O_DIRECTORY,
                os.O_PATH,
                os.O_TMPFILE | os.O_WRONLY,
                os.O_RDONLY | os.O_NOATIME,
            ):
                res.append(outcome(open_and_close, p, fl))
            res.append([outcome(raw.faccessat2, AT_FDCWD, p, m, AT_EACCESS) for m in range(8)])
            res.append(outcome(get_xattr, p, "user.q"))
            res.append(outcome(set_xattr, p, "user.q", b""))
            res.append(outcome(raw.removexattr, p, "user.q"))
            if p == "d":
                res += [
                    outcome(lambda: len(os.listdir("d"))),
                    outcome(open_and_close, "d/n", os.O_CREAT | os.O_WRONLY),
                    outcome(raw.unlink, "d/n"),
                    outcome(raw.mkdir, "d/m", 0o755),
                    outcome(raw.rmdir, "d/m"),
                ]
            c.become_root()
            c.note(f"{p} {bits}", res)


for who in ("owner", "group", "other", "suppl", "ownerdenied"):
    add(f"open/matrix/{who}", open_by_mode, who)


@case
def open__umask(c):
    for m in (0, 0o22, 0o27, 0o77, 0o177, 0o777):
        os.umask(m)
        for mode in (0o777, 0o666, 0o7777, 0):
            p = f"{m}-{mode}"
            c.note(
                p,
                [
                    outcome(open_and_close, p + "f", os.O_CREAT | os.O_WRONLY, mode),
                    outcome(raw.mkdir, p + "d", mode),
                    outcome(raw.mknod, p + "p", stat.S_IFIFO | mode, 0),
                ]
                + [oct(os.lstat(p + x).st_mode) for x in "fdp"],
            )


@case
def access__of_root(c):
    make("data", "f", 0)
    os.mkdir("d")
    os.chmod("d", 0)
    c.note("root", [outcome(raw.access, p, m) for p in "fd" for m in range(8)])
    os.chmod("f", 0o010)
    c.note("x", outcome(raw.access, "f", 1))
    c.step("list", os.listdir, "d")
    c.step("create", make, "reg", "d/x")
    os.chown("f", USER, USER)
    c.note("user", [c.as_user(USER, outcome, raw.faccessat2, AT_FDCWD, "f", m, AT_EACCESS) for m in range(8)])
    c.step("bad mode", raw.access, "f", 9)


@case
def sticky__protected_links_and_files(c):
    """fs.protected_*: links, files and fifos of others in sticky world-writable directories"""
    os.mkdir("t")
    os.chmod("t", 0o1777)
    os.chown("t", OTHER_USER, OTHER_USER)
    write_file("f", b"1", 0o666)
    os.symlink("../f", "t/l")
    os.lchown("t/l", OTHER_USER, OTHER_USER)
    write_file("t/r", b"1", 0o666)
    os.chown("t/r", OTHER_USER, OTHER_USER)
    os.mkfifo("t/p")
    os.chmod("t/p", 0o666)
    os.chown("t/p", OTHER_USER, OTHER_USER)
    for who in (0, USER, OTHER_USER):
        c.become(who)
        for label, fn in (
            ("link", lambda: open_and_close("t/l", os.O_RDONLY)),
            ("creat", lambda: open_and_close("t/r", os.O_RDWR | os.O_CREAT)),
            ("fifo", lambda: open_and_close("t/p", os.O_RDWR | os.O_CREAT | os.O_NONBLOCK)),
            ("hard", lambda: raw.link("t/r", f"t/h{who}")),
        ):
            c.step(f"{who} {label}", fn)
