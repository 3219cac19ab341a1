"""System calls as the kernel has them, also those that Python does not have; numbers are those of Linux on x86-64."""

import ctypes, os, struct

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]

AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW, AT_REMOVEDIR, AT_EACCESS = 0x100, 0x200, 0x200
AT_SYMLINK_FOLLOW, AT_EMPTY_PATH = 0x400, 0x1000
RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4
UTIME_NOW, UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2
RWF_HIPRI, RWF_DSYNC, RWF_SYNC, RWF_NOWAIT = 1, 2, 4, 8
RWF_APPEND, RWF_NOAPPEND, RWF_ATOMIC, RWF_DONTCACHE = 0x10, 0x20, 0x40, 0x80
FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE, FALLOC_UNSHARE_RANGE = 1, 2, 16, 64
F_GETLK, F_SETLK, F_SETLKW, F_OFD_GETLK, F_OFD_SETLK = 5, 6, 7, 36, 37

NUMBERS = dict(
    read=0, write=1, stat=4, lstat=6, lseek=8, ioctl=16, pwrite64=18, access=21, sendfile=40, flock=73, truncate=76,
    ftruncate=77, getcwd=79, chdir=80, rename=82, mkdir=83, rmdir=84, link=86, unlink=87, symlink=88, readlink=89,
    chmod=90, fchmod=91, chown=92, fchown=93, lchown=94, mknod=133, statfs=137, setxattr=188, lsetxattr=189,
    fsetxattr=190, getxattr=191, lgetxattr=192, fgetxattr=193, listxattr=194, llistxattr=195, flistxattr=196,
    removexattr=197, lremovexattr=198, fremovexattr=199, getdents64=217, fadvise64=221, utimes=235, openat=257,
    fchownat=260, unlinkat=263, linkat=265, splice=275, sync_file_range=277, utimensat=280, fallocate=285,
    name_to_handle_at=303, open_by_handle_at=304, syncfs=306, renameat2=316, execveat=322, copy_file_range=326,
    preadv2=327, pwritev2=328, statx=332, openat2=437, faccessat2=439, fchmodat2=452,
)  # fmt: skip


def system_call(name, *args):
    """The call's result; text and bytes are passed as C strings, None as NULL. Raises OSError."""
    passed = []
    for arg in args:
        if isinstance(arg, (str, bytes)):
            passed.append(ctypes.c_char_p(os.fsencode(arg)))
        elif isinstance(arg, int):
            passed.append(ctypes.c_long(arg))
        elif arg is None:
            passed.append(ctypes.c_void_p(None))
        else:
            passed.append(arg)
    result = libc.syscall(ctypes.c_long(NUMBERS[name]), *passed)
    if result < 0:
        raise OSError(ctypes.get_errno(), name)
    return result


class RawCalls:
    """raw.NAME(...) is the system call of that name."""

    def __getattr__(self, name):
        if name not in NUMBERS:
            raise AttributeError(name)
        return lambda *args: system_call(name, *args)


raw = RawCalls()


def renameat2(old, new, flags):
    return raw.renameat2(AT_FDCWD, old, AT_FDCWD, new, flags)


def linkat(old, new, flags=0, fd=AT_FDCWD):
    return raw.linkat(fd, old, AT_FDCWD, new, flags)


def utimensat(path, atime, mtime, flags=0, fd=AT_FDCWD):
    """atime, mtime: (seconds, nanoseconds); both None: NULL, the present time."""
    times = None
    if atime is not None:
        times = ctypes.create_string_buffer(struct.pack("qqqq", *atime, *mtime))
    return raw.utimensat(fd, path, times, flags)


def futimens(fd, atime, mtime):
    return utimensat(None, atime, mtime, 0, fd)


def utimes(path, atime, mtime):
    """atime, mtime: (seconds, microseconds)"""
    return raw.utimes(path, ctypes.create_string_buffer(struct.pack("qqqq", *atime, *mtime)))


def readlink(path, size=5000):
    buffer = ctypes.create_string_buffer(size)
    length = raw.readlink(path, buffer, size)
    return buffer.raw[:length]


def get_xattr(path, name, size=70000, call="getxattr"):
    """The first 24 bytes of the value; for size 0 its length."""
    buffer = ctypes.create_string_buffer(max(size, 1))
    length = system_call(call, path, name, buffer, size)
    return buffer.raw[: min(length, 24)] if size else length


def set_xattr(path, name, value, flags=0, call="setxattr"):
    return system_call(call, path, name, ctypes.create_string_buffer(value, len(value) + 1), len(value), flags)


def list_xattrs(path, size=70000, call="listxattr"):
    """The names, sorted; for size 0 the length of the list."""
    buffer = ctypes.create_string_buffer(max(size, 1))
    length = system_call(call, path, buffer, size)
    return sorted(buffer.raw[:length].split(b"\0")[:-1]) if size else length


def xattr_names(path, **options):
    """The names without the label that SELinux gives to every file."""
    return [name for name in list_xattrs(path, **options) if not name.startswith(b"security.selinux")]


def copy_file_range(from_fd, from_offset, to_fd, to_offset, length, flags=0):
    """Offsets of None: the descriptor's own."""
    from_at = None if from_offset is None else ctypes.byref(ctypes.c_int64(from_offset))
    to_at = None if to_offset is None else ctypes.byref(ctypes.c_int64(to_offset))
    return raw.copy_file_range(from_fd, from_at, to_fd, to_at, length, flags)


class IoVector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


def pwritev2(fd, data, offset, flags):
    buffer = ctypes.create_string_buffer(data, len(data))
    vector = IoVector(ctypes.addressof(buffer), len(data))
    return raw.pwritev2(fd, ctypes.byref(vector), 1, offset, 0 if offset >= 0 else -1, flags)


def preadv2(fd, size, offset, flags):
    buffer = ctypes.create_string_buffer(size)
    vector = IoVector(ctypes.addressof(buffer), size)
    length = raw.preadv2(fd, ctypes.byref(vector), 1, offset, 0 if offset >= 0 else -1, flags)
    return buffer.raw[:length]


def getdents(fd, size=32768):
    """What one getdents64 gives: (name, inode, offset of the next, type) for each entry."""
    buffer = ctypes.create_string_buffer(size)
    length = raw.getdents64(fd, buffer, size)
    entries, at = [], 0
    while at < length:
        ino, offset, record, kind = struct.unpack_from("QqHB", buffer.raw, at)
        entries.append((buffer.raw[at + 19 : at + record].split(b"\0")[0], ino, offset, kind))
        at += record
    return entries
