"""Load for the crash campaign: `crash_load.py KIND MOUNT LOG SEED` works on the mount until it fails or is told to end
(SIGTERM), and writes what it attempts ("?") and what was acknowledged ("=") to LOG. `crash_load.py check MOUNT FOLDER
SAMPLE SEED` compares all logs in FOLDER with what the mount shows and prints each difference as a line."""
import hashlib, os, random, signal, sqlite3, subprocess, sys, time

going = True
def stop(*_):
    global going
    going = False
signal.signal(signal.SIGTERM, stop)

class Log:
    def __init__(self, path):
        self.fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    def put(self, *words):
        os.write(self.fd, (" ".join(map(str, words)) + "\n").encode())

def content(name, version):
    r = random.Random(f"{name}/{version}")
    size = r.choice([0, 1, 100, 5000, 70000, 300000, 1500000]) if version % 3 else r.randrange(40000)
    block = hashlib.sha256(f"{name}/{version}".encode()).digest() * 32
    return (block * (size // len(block) + 1))[:size] if version % 2 else r.randbytes(size)

def small(mount, log, seed):
    """Creates, overwrites, replaces by rename, renames and removes files; each op's content follows from its number."""
    r = random.Random(seed)
    folder = f"{mount}/small"
    os.makedirs(folder, exist_ok=True)
    version = time.time_ns() // 1000000
    while going:
        version += 1
        name = f"f{r.randrange(40)}" if r.random() < 0.7 else f"n{version}"
        path = f"{folder}/{name}"
        kind = r.random()
        data = content(name, version)
        log.put("?", "put" if kind < 0.85 else "del", name, version)
        try:
            if kind < 0.5:
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
                for at in range(0, len(data), 65536):
                    os.write(fd, data[at:at + 65536])
                os.close(fd)
            elif kind < 0.85:
                temporary = f"{folder}/.tmp-{name}"
                with open(temporary, "wb", buffering=0) as f:
                    f.write(data)
                os.rename(temporary, path)
            else:
                try: os.unlink(path)
                except FileNotFoundError: pass
        except OSError as error:
            log.put("!", error.errno, name, version)
            return
        log.put("=", "put" if kind < 0.85 else "del", name, version)
        if r.random() < 0.05: time.sleep(0.02)

def append(mount, log, seed):
    """Numbered lines, each with an fsync."""
    fd = os.open(f"{mount}/lines.log", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    # A read may end where the bytes do that are here, without the server; the next one then says why (read(2)).
    data = b""
    while len(data) < os.fstat(fd).st_size:
        try: piece = os.pread(fd, 1 << 30, len(data))
        except OSError: return
        if not piece: log.put("!", len(data)); return
        data += piece
    n = data.count(b"\n")
    if data and not data.endswith(b"\n"): os.write(fd, b"\n"); n += 1
    while going:
        n += 1
        log.put("?", n)
        os.write(fd, f"line {n} {hashlib.sha256(str(n).encode()).hexdigest()}\n".encode())
        os.fsync(fd)
        log.put("=", n)
        time.sleep(0.005)

def database(mount, log, seed):
    """Numbered rows in a SQLite database with synchronous=FULL."""
    db = sqlite3.connect(f"{mount}/rows.db", timeout=10, isolation_level=None)
    db.execute("PRAGMA synchronous=FULL")
    db.execute("CREATE TABLE IF NOT EXISTS rows(n INTEGER PRIMARY KEY, value TEXT)")
    n = db.execute("SELECT coalesce(max(n), 0) FROM rows").fetchone()[0]
    while going:
        n += 1
        log.put("?", n)
        db.execute("INSERT INTO rows VALUES(?, ?)", (n, hashlib.sha256(str(n).encode()).hexdigest() * (n % 50)))
        log.put("=", n)

def tree(mount, log, seed):
    """Copies of a source tree by cp -a and rsync."""
    r = random.Random(seed)
    source = os.path.dirname(log_path) + "/source"
    while going:
        number = time.time_ns() // 1000
        tool = r.choice(["cp", "rsync"])
        target = f"{mount}/copy-{tool}-{number}"
        log.put("?", os.path.basename(target))
        # rsync's three processes may wait for each other for ever when the mount dies under them.
        rsync = ["rsync", "-aHX", "--timeout=8", source + "/", target + "/"]
        command = ["cp", "-a", source, target] if tool == "cp" else rsync
        done = subprocess.run(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        if done.returncode != 0: return
        log.put("=", os.path.basename(target))
        time.sleep(0.05)

def entries(path):
    try:
        with open(path) as f: return [line.split() for line in f.read().splitlines()]
    except FileNotFoundError: return []

def check(mount, folder, sample, seed):
    bad = []
    r = random.Random(seed)
    # Small files: the last acknowledged version, or one that was attempted after it.
    allowed, last, ever = {}, {}, {}
    for words in entries(f"{folder}/small.log"):
        if words[0] == "!": continue
        mark, kind, name, version = words
        if kind == "put": ever.setdefault(name, []).append(int(version))
        value = None if kind == "del" else int(version)
        if mark == "=": allowed[name] = [value]; last[name] = value
        else: allowed.setdefault(name, [None]).append(value)
    there = set(os.listdir(f"{mount}/small")) if os.path.isdir(f"{mount}/small") else set()
    for name in there - set(allowed):
        if not name.startswith(".tmp-"): bad.append(f"small/{name}: nobody made it")
    names = sorted(allowed)
    fresh = names if sample == 0 else set(r.sample(names, min(sample, len(names)))) | {n for n in names if len(allowed[n]) > 1}
    checked = 0
    for name in fresh:
        checked += 1
        try:
            with open(f"{mount}/small/{name}", "rb") as f: data = f.read()
        except FileNotFoundError: data = None
        if (name in there) != (data is not None): bad.append(f"small/{name}: listing and open disagree")
        fits = [v for v in allowed[name] if (data is None) if v is None] or [v for v in allowed[name] if v is not None and data is not None and content(name, v) == data]
        # Made but never closed: empty.
        if not fits and data == b"" and len(allowed[name]) > 1 and None in allowed[name]: fits = [0]
        if not fits:
            was = "missing" if data is None else f"{len(data)} bytes"
            wanted = [(v, None if v is None else len(content(name, v))) for v in allowed[name]]
            is_now = [v for v in ever.get(name, []) if data is not None and content(name, v) == data] or (f"zeros from {len(data.rstrip(bytes(1)))}" if data else None)
            bad.append(f"small/{name}: {was}, expected one of {wanted}, it is version {is_now} of {sorted(set(ever.get(name, [])))[-6:]}")
    # Lines.
    log = entries(f"{folder}/append.log")
    acknowledged = max([int(w[1]) for w in log if w[0] == "="], default=0)
    bad += [f"lines.log: ended after {w[1]} bytes, before its size" for w in log if w[0] == "!"]
    if acknowledged > 0:
        with open(f"{mount}/lines.log", "rb") as f: lines = f.read().split(b"\n")
        for n in range(1, acknowledged + 1):
            wanted = f"line {n} {hashlib.sha256(str(n).encode()).hexdigest()}".encode()
            if n > len(lines) or lines[n - 1] != wanted:
                bad.append(f"lines.log: line {n} of {acknowledged} acknowledged is {lines[n - 1][:60] if n <= len(lines) else 'missing'}"); break
    # Rows.
    log = entries(f"{folder}/database.log")
    rows = max([int(w[1]) for w in log if w[0] == "="], default=0)
    if rows > 0:
        db = sqlite3.connect(f"{mount}/rows.db", timeout=10)
        ok = db.execute("PRAGMA integrity_check").fetchone()[0]
        if ok != "ok": bad.append(f"rows.db: {ok}")
        count = db.execute("SELECT count(*) FROM rows WHERE n <= ?", (rows,)).fetchone()[0]
        if count != rows: bad.append(f"rows.db: {count} of {rows} acknowledged rows")
        for n, value in db.execute("SELECT n, value FROM rows"):
            if value != hashlib.sha256(str(n).encode()).hexdigest() * (n % 50): bad.append(f"rows.db: row {n} is wrong"); break
        db.close()
    # Copies.
    copies = sorted(w[1] for w in entries(f"{folder}/tree.log") if w[0] == "=")
    some = copies if sample == 0 else copies[-2:]
    for name in some:
        done = subprocess.run(["rsync", "-aHXnic", "--delete", f"{folder}/source/", f"{mount}/{name}/"], capture_output=True, text=True)
        if done.returncode != 0 or done.stdout.strip(): bad.append(f"{name}: {done.stdout.strip()[:300]} {done.stderr.strip()[:300]}")
    for line in bad: print(line)
    print(f"checked {checked} {acknowledged} {rows} {len(some)}")

if sys.argv[1] == "check":
    check(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
else:
    log_path = sys.argv[3]
    # What it starts ends with it: the campaign signals the whole group.
    os.setsid()
    # By relative paths nothing is ever written into the folder below a mount that has gone.
    os.chdir(sys.argv[2])
    if not os.path.ismount("."): sys.exit("nothing is mounted here")
    {"small": small, "append": append, "database": database, "tree": tree}[sys.argv[1]](".", Log(log_path), int(sys.argv[4]))
