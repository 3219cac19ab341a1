"""inotify(7): the events that each change makes."""

import os, struct
from case import case, read_file, write_file
from system_calls import RENAME_EXCHANGE, libc, raw, renameat2, set_xattr, utimensat

IN_ALL_EVENTS = 0xFFF


@case
def inotify__events(c):
    os.mkdir("d")
    write_file("d/f", b"1")
    notify = libc.inotify_init1(os.O_NONBLOCK)
    libc.inotify_add_watch(notify, b"d", IN_ALL_EVENTS)
    libc.inotify_add_watch(notify, b"d/f", IN_ALL_EVENTS)

    def events():
        c.pause()
        r = []
        try:
            x = os.read(notify, 65536)
        except BlockingIOError:
            return r
        at = 0
        while at < len(x):
            wd, mask, ck, n = struct.unpack_from("iIII", x, at)
            r.append([wd, hex(mask), x[at + 16 : at + 16 + n].split(b"\0")[0].decode()])
            at += 16 + n
        return r

    for label, fn in (
        ("read", lambda: read_file("d/f")),
        ("write", lambda: write_file("d/f", b"22")),
        ("create", lambda: write_file("d/g", b"1")),
        ("chmod", lambda: os.chmod("d/f", 0o600)),
        ("utimens", lambda: utimensat("d/f", None, None)),
        ("setx", lambda: set_xattr("d/f", "user.a", b"1")),
        ("truncate", lambda: raw.truncate("d/f", 1)),
        ("link", lambda: os.link("d/f", "d/h")),
        ("rename", lambda: os.rename("d/g", "d/k")),
        ("rename over", lambda: os.rename("d/k", "d/h")),
        ("mkdir", lambda: os.mkdir("d/s")),
        ("symlink", lambda: os.symlink("x", "d/l")),
        ("mknod", lambda: os.mkfifo("d/p")),
        ("move out", lambda: os.rename("d/l", "l")),
        ("move in", lambda: os.rename("l", "d/l")),
        ("listdir", lambda: len(os.listdir("d"))),
        ("fallocate", lambda: raw.fallocate(os.open("d/f", os.O_RDWR), 0, 0, 100)),
        ("exchange", lambda: renameat2("d/f", "d/p", RENAME_EXCHANGE)),
        ("unlink", lambda: os.unlink("d/p")),
        ("unlink f", lambda: os.unlink("d/f")),
        ("rmdir s", lambda: os.rmdir("d/s")),
        ("rest", lambda: [os.unlink("d/" + n) for n in sorted(os.listdir("d"))]),
        ("rmdir", lambda: os.rmdir("d")),
    ):
        c.step(label, fn)
        c.note("ev", events())
