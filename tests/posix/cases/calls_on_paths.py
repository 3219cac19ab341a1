"""Every call that takes a path, with what it wants to find there: errors, rights and slashes are tried with each."""

import ctypes, os, stat, time
from case import USER, in_child, make, open_and_close
from system_calls import (
    AT_EACCESS,
    AT_FDCWD,
    RENAME_EXCHANGE,
    get_xattr,
    raw,
    readlink,
    renameat2,
    set_xattr,
    utimensat,
    xattr_names,
)

CALLS = {
    "stat": (lambda p: raw.stat(p, ctypes.create_string_buffer(256)), "reg"),
    "lstat": (lambda p: raw.lstat(p, ctypes.create_string_buffer(256)), "reg"),
    "open_r": (lambda p: open_and_close(p, os.O_RDONLY), "reg"),
    "open_w": (lambda p: open_and_close(p, os.O_WRONLY), "reg"),
    "open_trunc": (lambda p: open_and_close(p, os.O_WRONLY | os.O_TRUNC), "reg"),
    "open_creat": (lambda p: open_and_close(p, os.O_WRONLY | os.O_CREAT), None),
    "open_excl": (lambda p: open_and_close(p, os.O_WRONLY | os.O_CREAT | os.O_EXCL), None),
    "open_path": (lambda p: open_and_close(p, os.O_PATH), "reg"),
    "open_dir": (lambda p: open_and_close(p, os.O_DIRECTORY), "dir"),
    "tmpfile": (lambda p: open_and_close(p, os.O_TMPFILE | os.O_RDWR), "dir"),
    "chmod": (lambda p: raw.chmod(p, 0o600), "reg"),
    "chown": (lambda p: raw.chown(p, -1, USER), "reg"),
    "lchown": (lambda p: raw.lchown(p, -1, USER), "reg"),
    "truncate": (lambda p: raw.truncate(p, 5), "reg"),
    "link_from": (lambda p: raw.link(p, "other"), "reg"),
    "link_to": (lambda p: raw.link("f0", p), None),
    "mkdir": (lambda p: raw.mkdir(p, 0o755), None),
    "mkfifo": (lambda p: raw.mknod(p, stat.S_IFIFO | 0o644, 0), None),
    "mknod_sock": (lambda p: raw.mknod(p, stat.S_IFSOCK | 0o644, 0), None),
    "mknod_reg": (lambda p: raw.mknod(p, stat.S_IFREG | 0o644, 0), None),
    "mknod_chr": (lambda p: raw.mknod(p, stat.S_IFCHR | 0o644, os.makedev(1, 3)), None),
    "rename_from": (lambda p: raw.rename(p, "other"), "reg"),
    "rename_to": (lambda p: raw.rename("f0", p), None),
    "rename_dir_from": (lambda p: raw.rename(p, "other"), "dir"),
    "exchange": (lambda p: renameat2("f0", p, RENAME_EXCHANGE), "reg"),
    "rmdir": (lambda p: raw.rmdir(p), "dir"),
    "symlink": (lambda p: raw.symlink("target", p), None),
    "readlink": (lambda p: readlink(p), "lnk"),
    "unlink": (lambda p: raw.unlink(p), "reg"),
    "utimensat": (lambda p: utimensat(p, (1, 0), (2, 0)), "reg"),
    "utimensat_now": (lambda p: utimensat(p, None, None), "reg"),
    "access_r": (lambda p: raw.faccessat2(AT_FDCWD, p, os.R_OK, AT_EACCESS), "reg"),
    "access_w": (lambda p: raw.faccessat2(AT_FDCWD, p, os.W_OK, AT_EACCESS), "reg"),
    "getxattr": (lambda p: get_xattr(p, "user.a"), "reg"),
    "setxattr": (lambda p: set_xattr(p, "user.b", str(time.time_ns()).encode()), "reg"),
    "listxattr": (lambda p: xattr_names(p), "reg"),
    "removexattr": (lambda p: raw.removexattr(p, "user.a"), "reg"),
    "opendir": (lambda p: len(os.listdir(p)), "dir"),
    "chdir": (lambda p: in_child(raw.chdir, p), "dir"),
    "statfs": (lambda p: raw.statfs(p, ctypes.create_string_buffer(256)), "reg"),
    "exec": (lambda p: in_child(os.execv, p, ["x"]), "reg"),
}
"""name: (the call on a path, the kind of object that should be there or None); "f0" is there, "other" is not"""


def make_for_call(kind, p, uid=0):
    if kind is None:
        return
    make(kind, p)
    if kind == "reg":
        os.setxattr(p, "user.a", b"1")
    os.lchown(p, uid, uid)
