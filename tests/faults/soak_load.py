"""Mixed load for the soak: one kind of work in an endless loop, so many steps a second. Arguments: kind, folder, steps a
second, seed. A line for each failure that is not allowed; what is allowed is that the server can't be asked during a cut."""
import errno, hashlib, os, random, shutil, signal, subprocess, sys, time

kind, root, pace, seed = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
rnd = random.Random(seed)
folder = f"{root}/{kind}"
AWAY = {errno.EHOSTUNREACH, errno.ETIMEDOUT}
stop = False


def end(*_):
    global stop
    stop = True


signal.signal(signal.SIGTERM, end)


def content(name, n):
    return hashlib.sha256(f"{name} {n}".encode()).digest() * rnd.choice([1, 10, 100, 1000, 20_000])


class Files:
    """A bounded set of files: written, read back and compared, appended to, renamed, removed."""
    def __init__(self):
        self.known = {}

    def step(self, n):
        names = list(self.known)
        what = rnd.random()
        if len(names) < 150 and (what < 0.35 or not names):
            name = f"{folder}/f{rnd.randrange(400)}"
            data = content(name, n)
            self.known.pop(name, None)
            with open(name, "wb") as f: f.write(data)
            self.known[name] = hashlib.sha256(data).digest()
        elif what < 0.7:
            name = rnd.choice(names)
            with open(name, "rb") as f: data = f.read()
            if hashlib.sha256(data).digest() != self.known[name]: print(f"{name} differs", flush=True)
        elif what < 0.8:
            name, to = rnd.choice(names), f"{folder}/r{rnd.randrange(100)}"
            digest = self.known.pop(name)
            self.known.pop(to, None)
            os.rename(name, to)
            self.known[to] = digest
        elif what < 0.9:
            for name in names[:5]: os.stat(name)
        else:
            name = rnd.choice(names)
            del self.known[name]
            os.unlink(name)


class Trees:
    """Folders that come and go, and are walked."""
    def step(self, n):
        base = f"{folder}/t{n % 5}"
        if os.path.isdir(base):
            for _ in os.walk(base): pass
            shutil.rmtree(base)
        for i in range(4):
            os.makedirs(f"{base}/d{i}/e")
            for j in range(5):
                with open(f"{base}/d{i}/e/{n}-{j}", "w") as f: f.write("x" * j)


class Unlinked:
    """Files that are used after their last name went."""
    def step(self, n):
        fd = os.open(f"{folder}/u{n % 7}", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            os.write(fd, b"a" * 10_000)
            os.unlink(f"{folder}/u{n % 7}")
            os.write(fd, b"b" * rnd.choice([1, 500_000]))
            if os.pread(fd, 4, 9998) != b"aabb"[:4] and os.pread(fd, 3, 9998)[:2] != b"aa": print("unlinked bytes differ", flush=True)
        finally:
            os.close(fd)


class Names:
    """Looks at what is there and at what is not; every name is new."""
    def step(self, n):
        for path in (f"{root}/none {n}", f"{root}/files/none {n}"):
            try: os.stat(path)
            except FileNotFoundError: pass
        if n % 20 == 0: subprocess.run(["find", root, "-name", "*7*"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        else:
            for name in os.listdir(f"{root}/other" if n % 2 else f"{root}/files")[:50]:
                try: os.stat(f"{root}/other/{name}" if n % 2 else f"{root}/files/{name}")
                except FileNotFoundError: pass


class Other(Files):
    """The same as Files, through another mount."""


work = {"files": Files, "trees": Trees, "unlinked": Unlinked, "names": Names, "other": Other}[kind]()
# The first step of each makes its folder; whoever looks into all of them begins when they are there.
while kind == "names" and not stop and not all(os.path.isdir(f"{root}/{each}") for each in ("files", "other")):
    time.sleep(0.1)
n = 0
while not stop:
    n += 1
    try:
        os.makedirs(folder, exist_ok=True)
        work.step(n)
    except OSError as e:
        if e.errno not in AWAY: print(f"{kind}: {e}", flush=True)
        time.sleep(0.2)
    time.sleep(rnd.uniform(0.5, 1.5) / pace)
