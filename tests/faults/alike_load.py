"""Two halves of the campaign "alike".

work FOLDER LABEL SECONDS SEED NAME...: changes of every kind in the folders NAME of a mount, to files of its own and, in what
can't be in conflict, to those of others. Prints errors that nothing in the campaign explains.
look FOLDER: all that programs can see below it, as JSON: path -> kind, inode, mode, links, size, times, content, attributes.
"""
import errno
import hashlib
import json
import os
import random
import stat
import sys
import time

# Another mount was there first, or the server, or this mount, is away just now.
EXPECTED = {
    errno.ENOENT,
    errno.EEXIST,
    errno.ENODATA,
    errno.ESTALE,
    errno.EHOSTUNREACH,
    errno.ETIMEDOUT,
    # The mount was killed.
    errno.ENOTCONN,
    errno.ECONNABORTED,
}


def look(folder):
    seen = {}

    def below(path, name):
        for each in sorted(os.listdir(path)):
            here, shown = f"{path}/{each}", f"{name}/{each}"
            st = os.lstat(here)
            if stat.S_ISLNK(st.st_mode):
                seen[shown] = ["link", st.st_ino, os.readlink(here)]
                continue
            names = [n for n in sorted(os.listxattr(here)) if n.startswith("user.") and not n.startswith("user.anyfs.")]
            xattrs = {n: os.getxattr(here, n).hex() for n in names}
            times = [st.st_mtime_ns, st.st_ctime_ns]
            if stat.S_ISDIR(st.st_mode):
                seen[shown] = ["folder", st.st_ino, oct(st.st_mode), st.st_nlink, times[0], xattrs]
                below(here, shown)
            else:
                with open(here, "rb") as f:
                    content = hashlib.sha256(f.read()).hexdigest()[:16]
                seen[shown] = ["file", st.st_ino, oct(st.st_mode), st.st_nlink, st.st_size, *times, content, xattrs]

    below(folder, "")
    return seen


def work(folder, label, seconds, seed, names):
    rnd = random.Random(seed)
    end = time.monotonic() + seconds
    own, made = [], 0

    def new():
        nonlocal made
        made += 1
        return f"{folder}/{rnd.choice(names)}/{label}_{made}"

    def write(path, mode, sizes):
        with open(path, mode) as f:
            f.write(rnd.randbytes(rnd.choice(sizes)))

    def step():
        kind = rnd.random()
        if kind < 0.28 or not own:
            path = new()
            write(path, "wb", [0, 1, 20, 5000, 70_000])
            own.append(path)
        elif kind < 0.45:
            write(rnd.choice(own), "ab", [1, 10, 9000])
        elif kind < 0.52:
            os.chmod(rnd.choice(own), rnd.choice([0o600, 0o644, 0o640, 0o755]))
        elif kind < 0.60:
            os.setxattr(rnd.choice(own), rnd.choice(["user.a", "user.b", "user.c"]), rnd.randbytes(4))
        elif kind < 0.68:
            at, to = rnd.randrange(len(own)), new()
            os.rename(own[at], to)
            own[at] = to
        elif kind < 0.73:
            to = new()
            os.link(rnd.choice(own), to)
            own.append(to)
        elif kind < 0.80:
            os.unlink(own.pop(rnd.randrange(len(own))))
        elif kind < 0.84:
            os.truncate(rnd.choice(own), rnd.choice([0, 3, 100]))
        elif kind < 0.88:
            os.utime(rnd.choice(own), (rnd.randrange(2**30), rnd.randrange(2**30)))
        elif kind < 0.91:
            os.symlink(str(made), new())
        elif kind < 0.94:
            path = new()
            os.mkdir(path)
            write(path + "/in", "wb", [10])
        elif kind < 0.97:
            path = rnd.choice(own)
            write(path + ".tmp", "wb", [100])
            os.rename(path + ".tmp", path)
        else:
            parent = f"{folder}/{rnd.choice(names)}"
            for each in rnd.sample(os.listdir(parent), k=1) if os.listdir(parent) else []:
                path = f"{parent}/{each}"
                if rnd.random() < 0.4:
                    os.setxattr(path, "user.z", rnd.randbytes(3))
                elif rnd.random() < 0.5:
                    os.chmod(path, 0o711)
                else:
                    os.listxattr(path)

    while time.monotonic() < end:
        try:
            step()
            if rnd.random() < 0.1:
                os.listdir(f"{folder}/{rnd.choice(names)}")
        except OSError as error:
            # A symbolic link that leads nowhere, and one that has no attributes of users, are others' too.
            if error.errno not in EXPECTED and error.errno != errno.EPERM:
                print(f"{label}: {error}", flush=True)
            own = [path for path in own if os.path.lexists(path)]
        if rnd.random() < 0.3:
            time.sleep(rnd.random() * 0.02)


if sys.argv[1] == "look":
    json.dump(look(sys.argv[2]), sys.stdout)
else:
    work(sys.argv[2], sys.argv[3], float(sys.argv[4]), sys.argv[5], sys.argv[6:])
