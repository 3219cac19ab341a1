"""What a case is written with: steps whose outcomes and effects are recorded, and the list of all cases.

A case is a function that gets a Case and works in an empty folder of its own, its working directory. It runs in a
forked process, once on the reference and once on the mount; what it records must be the same.
"""

import errno, hashlib, json, os, pickle, select, socket, stat, subprocess, time

USER, OTHER_USER, GROUP = 65534, 65533, 4242
"""Two users who own nothing, each in a group of his own, and another group."""

CLOCK_REALTIME_COARSE = 5
"""The clock that filesystems take their times from; it moves every few milliseconds, later on a busy machine."""
CLOCK_TICK = time.clock_getres(CLOCK_REALTIME_COARSE)
NOW_NS = 2_000_000
"""A time this much before a step began still counts as set by it: other clocks are cut to milliseconds."""

SETTLE_SECONDS = 20
"""Longest wait for delivery."""

CASES = {}
"""name -> (function, arguments)"""


def add(name, fn, *args):
    assert name not in CASES, name
    CASES[name] = (fn, args)


def case(fn):
    """The function is a case; its name is the function's, with / for each double underscore."""
    add(fn.__name__.replace("__", "/"), fn)
    return fn


def outcome(fn, *args, **options):
    """What a call gave, as JSON can hold it: "ok" for None, the name of its errno where it failed."""
    try:
        result = fn(*args, **options)
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error.errno))
    if result is None:
        return "ok"
    return result if isinstance(result, (str, int, list, dict)) else repr(result)


def effects_of(fn):
    """The function without its result: what it does to what is watched is of interest, not what it gives."""

    def call(*args, **options):
        fn(*args, **options)

    return call


def digest(data):
    return hashlib.md5(data).hexdigest()[:12]


def make(kind, path, mode=0o644):
    """Makes an object, whatever the umask is: reg, data (12 bytes), dir, fifo, blk, chr, sock, lnk (dangling)."""
    umask = os.umask(0)
    try:
        if kind in ("reg", "data"):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))
            if kind == "data":
                write_file(path, b"hello world\n")
        elif kind == "dir":
            os.mkdir(path, 0o755 if mode == 0o644 else mode)
        elif kind == "fifo":
            os.mkfifo(path, mode)
        elif kind == "blk":
            os.mknod(path, stat.S_IFBLK | mode, os.makedev(1, 2))
        elif kind == "chr":
            os.mknod(path, stat.S_IFCHR | mode, os.makedev(1, 3))
        elif kind == "sock":
            os.mknod(path, stat.S_IFSOCK | mode)
        elif kind == "lnk":
            os.symlink("nowhere", path)
        else:
            raise ValueError(kind)
    finally:
        os.umask(umask)


def write_file(path, data, mode=None):
    with open(path, "wb") as file:
        file.write(data)
    if mode is not None:
        os.chmod(path, mode)


def read_file(path):
    with open(path, "rb") as file:
        return file.read()


def open_and_close(path, flags, mode=0o644):
    os.close(os.open(path, flags, mode))


def remove_if_there(path):
    if os.path.lexists(path):
        os.unlink(path)


def eventually(fn, wanted, seconds=10):
    """The outcome of a call that is repeated until it gives what is wanted, or the time is up."""
    end = time.monotonic() + seconds
    while (result := outcome(fn)) != wanted and time.monotonic() < end:
        time.sleep(0.01)
    return result


FACTS = ("mode", "nlink", "uid", "gid", "size", "rdev")


def snapshot(target):
    """Attributes of a path (not followed) or descriptor, or the errno's name."""
    try:
        st = os.fstat(target) if isinstance(target, int) else os.lstat(target)
    except OSError as error:
        return errno.errorcode[error.errno]
    return dict(
        mode=oct(st.st_mode),
        nlink=st.st_nlink,
        uid=st.st_uid,
        gid=st.st_gid,
        size=None if stat.S_ISDIR(st.st_mode) else st.st_size,
        rdev=st.st_rdev,
        times=(st.st_atime_ns, st.st_mtime_ns, st.st_ctime_ns),
        ino=st.st_ino,
    )


def change(before, after, start, end):
    """What a step that ran from start to end did to attributes, in words that are alike on every filesystem.

    The times that moved are a, m and c, with ! where the new time is not the present. For another object than before:
    its attributes, which of its times are the present, and whether they are all one.
    """
    if isinstance(after, str):
        if isinstance(before, str):
            return after if before == after else f"{before}->{after}"
        return f"there->{after}"

    def now(ns):
        return start - NOW_NS <= ns <= end

    if isinstance(before, str) or before["ino"] != after["ino"]:
        facts = " ".join(f"{key}={after[key]}" for key in FACTS)
        present = "".join(letter if now(ns) else "-" for letter, ns in zip("amc", after["times"]))
        alike = "one" if len(set(after["times"])) == 1 else "several"
        return f'{"" if isinstance(before, str) else "other inode "}[{facts}] times {present}/{alike}'
    moved = "".join(
        letter + ("" if now(new) else "!")
        for letter, old, new in zip("amc", before["times"], after["times"])
        if old != new
    )
    changed = " ".join(f"{key}:{before[key]}>{after[key]}" for key in FACTS if before[key] != after[key])
    return f"{moved or '-'} {changed}".strip()


class Case:
    """What a case gets. Its record is made of [label, outcome] and [label, outcome, {watched: change}]."""

    def __init__(self, settle_on=None):
        """settle_on: the folder of a mount; every step then waits until all that was done there is delivered."""
        self.record = []
        self._labels = {}
        self._watched = []
        self._settle_on = settle_on

    def watch(self, *targets):
        """From now on each step tells what happened to these paths and descriptors."""
        self._watched = list(targets)

    def step(self, label, fn, *args, watch=None, **options):
        """Does and records one call; a label that was there before gets its number, "write (2)"."""
        targets = self._watched if watch is None else watch
        self._settle()
        if not targets:
            return self._add(label, outcome(fn, *args, **options))
        self.pause()
        before = [snapshot(target) for target in targets]
        self.pause()
        start = time.clock_gettime_ns(CLOCK_REALTIME_COARSE)
        result = outcome(fn, *args, **options)
        end = time.time_ns()
        after = [snapshot(target) for target in targets]
        changes, descriptors = {}, 0
        for target, old, new in zip(targets, before, after):
            told = change(old, new, start, end)
            descriptors += isinstance(target, int)
            name = str(target) if not isinstance(target, int) else f"descriptor {descriptors}"
            changes[name.removesuffix(" 1")] = told
        return self._add(label, result, changes)

    def note(self, label, value):
        """Records a value that is no single call's outcome."""
        self._add(label, repr(value) if isinstance(value, bytes) else value)

    def facts(self, *paths):
        """Records attributes except times."""
        for path in paths:
            seen = snapshot(path)
            if isinstance(seen, dict):
                seen = {key: seen[key] for key in FACTS}
            self._add(f"is {path}", seen)

    def pause(self):
        """Waits until times that are set from now on are later than those before.

        Also for between a change and a read, or the other way round, when a later step reads: what happens within one
        tick of the clock has equal times, or even disordered ones, and a later read counts or not by chance.
        """
        before = time.clock_gettime_ns(CLOCK_REALTIME_COARSE)
        while time.clock_gettime_ns(CLOCK_REALTIME_COARSE) <= before + 2 * NOW_NS:
            time.sleep(CLOCK_TICK)

    def become(self, uid, gid=None, groups=()):
        self.become_root()
        os.setgroups(list(groups))
        os.setegid(uid if gid is None else gid)
        os.seteuid(uid)

    def become_root(self):
        os.seteuid(0)
        os.setegid(0)
        os.setgroups([])

    def as_user(self, uid, fn, *args, gid=None, groups=(), **options):
        """The function's result, called as another user."""
        self.become(uid, gid, groups)
        try:
            return fn(*args, **options)
        finally:
            self.become_root()

    def _add(self, label, *told):
        count = self._labels[label] = self._labels.get(label, 0) + 1
        self.record.append([label if count == 1 else f"{label} ({count})", *told])
        return told[0]

    def _settle(self):
        if self._settle_on is None or os.geteuid() != 0:
            return
        end = time.monotonic() + SETTLE_SECONDS
        while b"queued=0 " not in os.getxattr(self._settle_on, "user.anyfs.state"):
            if time.monotonic() > end:
                raise TimeoutError(f"not all is delivered after {SETTLE_SECONDS} s")
            time.sleep(0.005)


def in_child(fn, *args):
    """The outcome of a call in a forked process, or the signal that killed it."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(read_end)
            os.write(write_end, json.dumps(outcome(fn, *args), default=repr).encode())
        except BaseException as error:
            os.write(write_end, json.dumps(f"raised {error!r}").encode())
        finally:
            os._exit(0)
    os.close(write_end)
    with open(read_end, "rb") as told:
        data = told.read()
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return f"signal {os.WTERMSIG(status)}"
    return json.loads(data) if data else "nothing"


class OtherProcess:
    """A forked process that has opened a file for reading and writing, and does calls with that descriptor."""

    def __init__(self, path):
        self._socket, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            self._socket.close()
            fd = os.open(path, os.O_RDWR)
            while asked := theirs.recv(65536):
                fn, args = pickle.loads(asked)
                try:
                    told = outcome(fn, fd, *args)
                except BaseException as error:
                    told = f"raised {error!r}"
                theirs.send(json.dumps(told, default=repr).encode())
            os._exit(0)
        theirs.close()

    def __call__(self, fn, *args):
        """The outcome of fn(descriptor, *args) over there."""
        self.post(fn, *args)
        return self.result()

    def post(self, fn, *args):
        """Begins a call that may wait."""
        self._socket.send(pickle.dumps((fn, args)))

    def result(self, seconds=30):
        """The outcome of the call that was begun, or "waits" when there is none in time."""
        ready, _, _ = select.select([self._socket], [], [], seconds)
        return json.loads(self._socket.recv(65536)) if ready else "waits"

    def end(self):
        self._socket.close()
        os.waitpid(self.pid, 0)


def exit_code(*arguments):
    """How a program ended that was run without its output."""
    return subprocess.run(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode


def in_order(*functions):
    """One function that calls them all and gives what the last one gave."""

    def call():
        for function in functions:
            result = function()
        return result

    return call
