"""Makes every kind of system call on a mount at once, each in a thread of its own, and prints how each ended and when.

Arguments: the folder; it holds `seen/` (looked at before: f0..f9, link, sub/) and `unseen/` (never looked at, alike).
Prints one JSON document: {name: {"ms": ..., "errno": name or "", "value": ...}}; a call that has not ended when the time
(second argument, seconds) is up has "errno": "HANGS".
"""
import errno, fcntl, json, os, sys, threading, time

root, limit, tag = sys.argv[1], float(sys.argv[2]), sys.argv[3]
results = {}


def call(name, run):
    entry = results[name] = {"errno": "HANGS", "ms": None, "value": None}

    def body():
        start = time.monotonic()
        try:
            entry["value"] = run()
            entry["errno"] = ""
        except OSError as e:
            entry["errno"] = errno.errorcode.get(e.errno, str(e.errno))
        entry["ms"] = round((time.monotonic() - start) * 1000)

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    return thread


def read(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        return len(os.read(fd, 1 << 20))
    finally:
        os.close(fd)


def create(path, sync=True):
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    try:
        os.write(fd, b"written " * 1000)
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)


def overwrite(path):
    fd = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(fd, b"over", 2)
        os.fsync(fd)
    finally:
        os.close(fd)


def lock(path):
    fd = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(fd)


threads = []
for side in ("seen", "unseen"):
    d = f"{root}/{side}"
    calls = {
        "stat": lambda d=d: os.stat(f"{d}/f0").st_size,
        "stat missing": lambda d=d: os.stat(f"{d}/missing {tag}").st_size,
        "access": lambda d=d: os.access(f"{d}/f1", os.R_OK) or None,
        "readdir": lambda d=d: len(os.listdir(d)),
        "readdir sub": lambda d=d: len(os.listdir(f"{d}/sub")),
        "read": lambda d=d: read(f"{d}/f2"),
        "read uncached": lambda d=d: read(f"{d}/f9"),
        "create, write, fsync, close": lambda d=d: create(f"{d}/new {tag}"),
        "create, write, close": lambda d=d: create(f"{d}/other {tag}", False),
        "overwrite": lambda d=d: overwrite(f"{d}/f3"),
        "truncate": lambda d=d: os.truncate(f"{d}/f4", 10),
        "mkdir": lambda d=d: os.mkdir(f"{d}/dir {tag}"),
        "rename": lambda d=d: os.rename(f"{d}/f5", f"{d}/f5 {tag}") or os.rename(f"{d}/f5 {tag}", f"{d}/f5"),
        "rename over": lambda d=d: os.rename(f"{d}/gone {tag}", f"{d}/f6"),
        "unlink": lambda d=d: os.unlink(f"{d}/g {tag}"),
        "rmdir": lambda d=d: os.rmdir(f"{d}/sub"),
        "link": lambda d=d: os.link(f"{d}/f7", f"{d}/hard {tag}"),
        "symlink": lambda d=d: os.symlink("f0", f"{d}/soft {tag}"),
        "readlink": lambda d=d: os.readlink(f"{d}/link"),
        "chmod": lambda d=d: os.chmod(f"{d}/f8", 0o600),
        "utime": lambda d=d: os.utime(f"{d}/f8", (1, 2)),
        "getxattr": lambda d=d: os.getxattr(f"{d}/f0", "user.none"),
        "listxattr": lambda d=d: len(os.listxattr(f"{d}/f1")),
        "setxattr": lambda d=d: os.setxattr(f"{d}/f1", "user.k", b"v"),
        "flock": lambda d=d: lock(f"{d}/f7"),
    }
    for name, run in calls.items():
        threads.append(call(f"{side}: {name}", run))
threads.append(call("statfs", lambda: os.statvfs(root).f_bsize))
threads.append(call("readdir of the root", lambda: len(os.listdir(root))))
end = time.monotonic() + limit
for thread in threads:
    thread.join(max(0, end - time.monotonic()))
print(json.dumps(results), flush=True)
os._exit(0)
