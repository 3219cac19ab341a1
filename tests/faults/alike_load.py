"""Two halves of the campaign "alike".

work FOLDER LABEL SECONDS SEED NAME...: changes of every kind in the folders NAME of a mount, to files and folders of its own and
to those of others, to files that all of them write as well. Prints errors that nothing in the campaign explains.
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
    # Another mount put something in, or made something else of the name.
    errno.ENOTEMPTY,
    errno.EISDIR,
    errno.ENOTDIR,
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
        elif kind < 0.96:
            path = rnd.choice(own)
            write(path + ".tmp", "wb", [100])
            os.rename(path + ".tmp", path)
        elif kind < 0.98:
            write(f"{folder}/{rnd.choice(names)}/shared{rnd.randrange(3)}", rnd.choice(["ab", "wb"]), [1, 300, 40_000])
        else:
            others()

    def others():
        parent = f"{folder}/{rnd.choice(names)}"
        there = os.listdir(parent)
        if not there:
            return
        path = f"{parent}/{rnd.choice(there)}"
        kind = rnd.random()
        if kind < 0.25:
            os.setxattr(path, "user.z", rnd.randbytes(3))
        elif kind < 0.45:
            os.chmod(path, 0o711)
        elif kind < 0.55:
            os.listxattr(path)
        elif kind < 0.7:
            os.rename(path, new())
        elif kind < 0.85 and os.path.isdir(path):
            write(path + "/" + label, "wb", [10])
        elif os.path.isdir(path):
            for each in os.listdir(path):
                os.unlink(f"{path}/{each}")
            os.rmdir(path)
        else:
            os.unlink(path)

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
