"""fsx: random operations on one file, against a copy of it in memory (the idea of NeXT's fsx.c).

fsx.py DIR SEED OPS [MAXSIZE]. Every read, every size, every hole is checked at once; the whole file after a reopen.
Ends with 0, or prints the last operations and the seed.
"""
import ctypes, mmap, os, random, sys

folder, seed, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
limit = int(sys.argv[4]) if len(sys.argv) > 4 else 700_000
rnd = random.Random(seed)
libc = ctypes.CDLL(None, use_errno=True)
path, other = f"{folder}/fsx", f"{folder}/fsx-copy"
fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
model = bytearray()
done = []


def fail(what):
    print(f"fsx: {what}; seed {seed}, operation {len(done)}; the last ones:")
    print("\n".join(done[-12:]))
    sys.exit(1)


def fallocate(mode, at, length):
    if libc.fallocate(fd, mode, ctypes.c_long(at), ctypes.c_long(length)):
        fail(f"fallocate: errno {ctypes.get_errno()}")


def compare(got, at, length, how):
    want = bytes(model[at:at + length])
    if got != want:
        if len(got) != len(want):
            fail(f"{how} at {at}: {len(got)} bytes instead of {len(want)}")
        bad = next(i for i in range(len(want)) if got[i] != want[i])
        fail(f"{how} at {at}: byte {at + bad} is {got[bad]} instead of {want[bad]}")


def span(inside):
    end = len(model) if inside else limit
    if end == 0:
        return 0, 0
    at = rnd.randrange(end)
    length = min(end - at, rnd.choice((1, 100, 4096, 5000, 65536, 200_000)), 1 + rnd.randrange(limit))
    if rnd.random() < 0.3:
        at -= at % 4096
    return at, length


def put(at, data):
    if at > len(model):
        model.extend(bytes(at - len(model)))
    model[at:at + len(data)] = data


def bytes_of(length):
    return rnd.randbytes(length) if rnd.random() < 0.7 else bytes([rnd.randrange(256)]) * length


def check_holes():
    """No byte of a hole may be anything but zero; data and holes follow each other to the end."""
    at, end = 0, len(model)
    while at < end:
        try:
            data = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno != 6:
                fail(f"SEEK_DATA: {error}")
            data = end
        if any(model[at:data]):
            fail(f"the hole {at}..{data} has data")
        if data >= end:
            return
        at = os.lseek(fd, data, os.SEEK_HOLE)
        if at <= data:
            fail(f"SEEK_HOLE from {data} gives {at}")


def step():
    global fd, model
    op = rnd.choices(
        ("write", "read", "mapread", "mapwrite", "truncate", "punch", "zero", "allocate", "copy", "clone", "holes",
         "reopen", "fsync", "append", "empty", "unmapped"),
        (20, 20, 10, 10, 8, 8, 5, 4, 5, 2, 5, 5, 3, 5, 1, 3))[0]
    if op == "write":
        at, length = span(False)
        data = bytes_of(length)
        done.append(f"write {at} {length}")
        if os.pwrite(fd, data, at) != length:
            fail("short write")
        put(at, data)
    elif op == "append":
        data = bytes_of(rnd.randrange(1, 5000))
        if len(model) + len(data) > limit:
            return
        done.append(f"append {len(data)}")
        more = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.write(more, data)
        os.close(more)
        model += data
    elif op == "read":
        at, length = span(False)
        done.append(f"read {at} {length}")
        compare(os.pread(fd, length, at), at, length, "read")
    elif op in ("mapread", "mapwrite", "unmapped"):
        at, length = span(True)
        if length == 0:
            return
        done.append(f"{op} {at} {length}")
        start = at - at % mmap.PAGESIZE
        view = mmap.mmap(fd, at - start + length, offset=start)
        if op == "mapread":
            compare(view[at - start:at - start + length], at, length, "map")
        else:
            data = bytes_of(length)
            view[at - start:at - start + length] = data
            put(at, data)
            if op == "mapwrite":
                view.flush()
        view.close()
    elif op == "truncate":
        size = rnd.randrange(limit + 1)
        done.append(f"truncate {size}")
        if rnd.random() < 0.5:
            os.ftruncate(fd, size)
        else:
            os.truncate(path, size)
        if size < len(model):
            del model[size:]
        else:
            model.extend(bytes(size - len(model)))
    elif op == "punch":
        at, length = span(True)
        if length == 0:
            return
        done.append(f"punch {at} {length}")
        fallocate(3, at, length)
        model[at:at + length] = bytes(len(model[at:at + length]))
    elif op == "zero":
        at, length = span(False)
        keep = rnd.random() < 0.5
        done.append(f"zero {at} {length} {keep}")
        fallocate(16 | (1 if keep else 0), at, length)
        if keep:
            length = max(0, min(length, len(model) - at))
        if length > 0:
            put(at, bytes(length))
    elif op == "allocate":
        at, length = span(False)
        keep = rnd.random() < 0.5
        done.append(f"allocate {at} {length} {keep}")
        fallocate(1 if keep else 0, at, length)
        if not keep and at + length > len(model):
            model.extend(bytes(at + length - len(model)))
    elif op == "copy":
        at, length = span(True)
        to = rnd.randrange(limit)
        if length == 0 or abs(to - at) < length or to + length > limit:
            return
        done.append(f"copy {at} {length} to {to}")
        data, left = bytes(model[at:at + length]), length
        while left:
            n = os.copy_file_range(fd, fd, left, at + length - left, to + length - left)
            if n <= 0:
                fail("copy_file_range copies nothing")
            left -= n
        put(to, data)
    elif op == "clone":
        if len(model) == 0:
            return
        done.append(f"clone {len(model)}")
        if rnd.random() < 0.5:
            os.fsync(fd)
        copy = os.open(other, os.O_RDWR | os.O_CREAT | (os.O_TRUNC if rnd.random() < 0.7 else 0))
        left = len(model)
        os.ftruncate(copy, min(os.fstat(copy).st_size, left))
        while left:
            n = os.copy_file_range(fd, copy, left, len(model) - left, len(model) - left)
            if n <= 0:
                fail("copy_file_range copies nothing")
            left -= n
        # The copy goes on as the file, the file as the next copy's target.
        os.close(fd)
        os.rename(path, other + "2")
        os.rename(other, path)
        os.rename(other + "2", other)
        fd = copy
    elif op == "holes":
        done.append("holes")
        check_holes()
    elif op == "fsync":
        done.append("fsync")
        os.fsync(fd)
    elif op == "empty":
        done.append("O_TRUNC")
        os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))
        model.clear()
    elif op == "reopen":
        done.append("reopen")
        os.close(fd)
        fd = os.open(path, os.O_RDWR)
        compare(os.pread(fd, limit + 1, 0), 0, len(model), "whole file")
    size = os.fstat(fd).st_size
    if size != len(model):
        fail(f"the size is {size} instead of {len(model)}")


while len(done) < count:
    step()
compare(os.pread(fd, limit + 1, 0), 0, len(model), "whole file")
os.close(fd)
os.unlink(path)
if os.path.exists(other):
    os.unlink(other)
