"""Executes filesystem operations for the comparison with ext4: one JSON list of operations a line in, one list of results out.

Lines: {"dir": FOLDER, "ops": [[NAME, ARG...]...]}. The folder is made, used and removed. A result is what the call gave,
as text, or the name of its errno; the last one is the whole tree as it is afterwards.
"""
import ctypes, errno, hashlib, json, mmap, os, shutil, stat, struct, sys

libc = ctypes.CDLL(None, use_errno=True)
os.umask(0)
fds = {}


def check(result):
    if result != 0:
        raise OSError(ctypes.get_errno(), "")


def data(seed, length):
    """Bytes that depend on the seed; every fourth seed is zeros."""
    return bytes(length) if seed % 4 == 0 else (hashlib.md5(b"%d" % seed).digest() * (length // 16 + 1))[:length]


def digest(content):
    return f"{len(content)}:{hashlib.md5(content).hexdigest()[:8]}"


def fd(slot):
    if slot not in fds:
        raise OSError(errno.EBADF, "")
    return fds[slot]


def attributes(s):
    size = "-" if stat.S_ISDIR(s.st_mode) else s.st_size
    return f"{s.st_mode:o} {s.st_nlink} {s.st_uid}:{s.st_gid} {size}"


FLAGS = {"r": os.O_RDONLY, "w": os.O_WRONLY, "rw": os.O_RDWR, "c": os.O_RDWR | os.O_CREAT,
         "x": os.O_RDWR | os.O_CREAT | os.O_EXCL, "t": os.O_RDWR | os.O_CREAT | os.O_TRUNC, "a": os.O_WRONLY | os.O_APPEND,
         "d": os.O_RDONLY | os.O_DIRECTORY, "n": os.O_RDONLY | os.O_NOFOLLOW, "tmp": os.O_RDWR | os.O_TMPFILE}


def op_open(slot, path, how, mode):
    # A mount is nodev.
    if os.path.exists(path) and (stat.S_ISCHR(os.stat(path).st_mode)):
        raise OSError(errno.EACCES, "")
    opened = os.open(path, FLAGS[how] | os.O_NONBLOCK, mode)
    if slot in fds:
        os.close(fds.pop(slot))
    fds[slot] = opened


def op_close(slot):
    os.close(fd(slot))
    del fds[slot]


def op_map(slot, at, seed, length):
    s = os.fstat(fd(slot))
    length = min(length, s.st_size - at)
    if length <= 0 or not stat.S_ISREG(s.st_mode):
        return None
    start = at - at % mmap.PAGESIZE
    with mmap.mmap(fd(slot), at - start + length, offset=start) as view:
        view[at - start:at - start + length] = data(seed, length)
    return length


def op_copy(a, b, at, to, length):
    done = 0
    while done < length:
        n = os.copy_file_range(fd(a), fd(b), length - done, at + done, to + done)
        if n == 0:
            break
        done += n
    return done


def op_link_fd(slot, path):
    check(libc.linkat(-100, b"/proc/self/fd/%d" % fd(slot), -100, os.fsencode(path), 0x400))


def op_holes(slot):
    """Whatever is told as a hole must read as zeros; where the holes are is each filesystem's own affair."""
    f = fd(slot)
    if not stat.S_ISREG(os.fstat(f).st_mode):
        return "no file"
    size, at, place = os.fstat(f).st_size, 0, os.lseek(f, 0, os.SEEK_CUR)
    try:
        return scan_holes(f, at, size)
    finally:
        os.lseek(f, place, os.SEEK_SET)


def scan_holes(f, at, size):
    while at < size:
        try:
            start = os.lseek(f, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            start = size
        if any(os.pread(f, start - at, at)):
            return "data in a hole"
        if start == size:
            break
        at = os.lseek(f, start, os.SEEK_HOLE)
        if at <= start:
            return "no progress"
    return "ok"


def op_utime(path, seconds, nanoseconds):
    os.utime(path, ns=(seconds * 10**9 + nanoseconds, seconds * 10**9 + 5))
    s = os.stat(path)
    return f"{s.st_atime_ns} {s.st_mtime_ns}"


def op_times(path):
    """Which times of the node and its folder a chmod moves is the same everywhere; the clock's own values are not."""
    s = os.lstat(path)
    return "" if s.st_ctime_ns >= min(s.st_mtime_ns, s.st_ctime_ns) else "ctime before"


def op_as_user(uid, name, *args):
    pid = os.fork()
    if pid == 0:
        code = 255
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            OPS[name](*args)
            code = 0
        except OSError as error:
            code = error.errno
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code != 0:
        raise OSError(code, "")


OPS = {
    "open": op_open, "close": op_close, "map": op_map, "copy": op_copy, "linkfd": op_link_fd, "holes": op_holes,
    "utime": op_utime, "times": op_times, "user": op_as_user,
    "write": lambda slot, seed, n: os.write(fd(slot), data(seed, n)),
    "pwrite": lambda slot, at, seed, n: os.pwrite(fd(slot), data(seed, n), at),
    "pread": lambda slot, at, n: digest(os.pread(fd(slot), n, at)),
    "ftruncate": lambda slot, n: os.ftruncate(fd(slot), n),
    "fstat": lambda slot: attributes(os.fstat(fd(slot))),
    "fsync": lambda slot: os.fsync(fd(slot)),
    "fchmod": lambda slot, mode: os.fchmod(fd(slot), mode),
    "fsetxattr": lambda slot, name, seed, n, flags: os.setxattr(fd(slot), name, data(seed, n), flags),
    "flistxattr": lambda slot: sorted(os.listxattr(fd(slot))),
    "fallocate": lambda slot, mode, at, n: check(
        libc.fallocate(fd(slot), mode, ctypes.c_long(at), ctypes.c_long(n))),
    "truncate": lambda path, n: os.truncate(path, n),
    "mkdir": lambda path, mode: os.mkdir(path, mode),
    "rmdir": os.rmdir,
    "unlink": os.unlink,
    "rename": lambda a, b, flags: check(libc.renameat2(-100, os.fsencode(a), -100, os.fsencode(b), flags)),
    "link": lambda a, b: os.link(a, b, follow_symlinks=False),
    "symlink": lambda target, path: os.symlink(target, path),
    "readlink": os.readlink,
    "mkfifo": lambda path, mode: os.mkfifo(path, mode),
    "mknod": lambda path, mode: os.mknod(path, mode | stat.S_IFCHR, os.makedev(1, 3)),
    "chmod": lambda path, mode: os.chmod(path, mode),
    "chown": lambda path, uid, gid: os.lchown(path, uid, gid),
    "stat": lambda path: attributes(os.stat(path)),
    "lstat": lambda path: attributes(os.lstat(path)),
    "list": lambda path: sorted(os.listdir(path)),
    "setxattr": lambda path, name, seed, n, flags: os.setxattr(path, name, data(seed, n), flags),
    "getxattr": lambda path, name: digest(os.getxattr(path, name)),
    "listxattr": lambda path: sorted(os.listxattr(path)),
    "removexattr": lambda path, name: os.removexattr(path, name),
    "access": lambda path, how: os.access(path, how),
}


def tree():
    out = []
    inodes = {}
    for folder, names, files in os.walk("."):
        names.sort()
        for name in sorted(names + files):
            path = os.path.join(folder, name)
            s = os.lstat(path)
            same = inodes.setdefault(s.st_ino, path)
            line = f"{path} {attributes(s)}"
            if same != path:
                line += f" = {same}"
            if stat.S_ISLNK(s.st_mode):
                line += f" -> {os.readlink(path)}"
            else:
                if stat.S_ISREG(s.st_mode):
                    with open(path, "rb") as f:
                        line += " " + digest(f.read())
                if stat.S_ISREG(s.st_mode) or stat.S_ISDIR(s.st_mode):
                    line += "".join(f" {n}={digest(os.getxattr(path, n))}" for n in sorted(os.listxattr(path)))
            out.append(line)
    return out


def run(folder, ops):
    results = []
    # Two deep, so that a symlink that leads one step up still leads to nothing of others.
    os.makedirs(f"{folder}/in")
    os.chmod(folder, 0o755)
    os.chmod(f"{folder}/in", 0o777)
    os.chdir(f"{folder}/in")
    try:
        for name, *args in ops:
            try:
                result = OPS[name](*args)
                results.append("ok" if result is None else str(result))
            except OSError as error:
                results.append(errno.errorcode.get(error.errno, str(error.errno)))
        for slot in list(fds):
            os.close(fds.pop(slot))
        results.append("\n".join(tree()))
    finally:
        for slot in list(fds):
            os.close(fds.pop(slot))
        os.chdir("/")
        shutil.rmtree(folder)
    return results


for line in sys.stdin:
    request = json.loads(line)
    print(json.dumps(run(request["dir"], request["ops"])), flush=True)
