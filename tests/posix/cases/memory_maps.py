"""mmap(2): what it shares with read and write, the end of the file, and the times."""

import ctypes, mmap, os, time
from case import case, digest, in_child, read_file, write_file
from system_calls import FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, libc, raw, utimensat

MAP_FAILED = 2**64 - 1


@case
def mmap__shared_and_private(c):
    write_file("a", b"0" * 10000)
    fd = os.open("a", os.O_RDWR)
    m = mmap.mmap(fd, 10000)
    c.watch("a")
    c.step("store", lambda: m.__setitem__(0, 65))
    c.note("read sees", os.pread(fd, 3, 0))
    c.step("flush", m.flush)
    os.pwrite(fd, b"WW", 5000)
    c.note("map sees", m[4999:5003])
    os.ftruncate(fd, 12288)
    c.note("x", os.pread(fd, 4, 9998))
    m[9999] = 66
    m.flush()
    c.note("d", digest(read_file("a")))
    n = mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE)
    n[0] = 90
    c.note("private", [n[:3], os.pread(fd, 3, 0)])
    os.pwrite(fd, b"QQ", 8192)
    c.note("priv sees", n[8192:8195])
    g = os.open("a", os.O_RDWR)
    os.close(fd)
    m[1] = 67
    c.note("after close", os.pread(g, 3, 0))
    c.step("close map", m.close)
    c.note("d", read_file("a")[:4])
    os.rename("a", "b")
    c.watch("b")
    m = mmap.mmap(g, 4096)
    os.close(g)
    m[2] = 68
    m.close()
    c.pause()
    c.note("e", read_file("b")[:4])
    c.step("ro map w", lambda: mmap.mmap(os.open("b", os.O_RDONLY), 4096))
    c.step("wo map", lambda: mmap.mmap(os.open("b", os.O_WRONLY), 4096, prot=mmap.PROT_WRITE))
    c.step("ro map private w", lambda: mmap.mmap(os.open("b", os.O_RDONLY), 4096, flags=mmap.MAP_PRIVATE)[0])
    c.step(
        "dir map",
        lambda: libc.mmap(None, 4096, mmap.PROT_READ, mmap.MAP_SHARED, os.open(".", os.O_RDONLY), 0) == MAP_FAILED,
    )
    write_file("e", b"")
    c.step("empty map", lambda: in_child(lambda: mmap.mmap(os.open("e", os.O_RDWR), 4096)))


@case
def mmap__end_of_file(c):
    """the rest of the last page, SIGBUS beyond it, extension after stores beyond the end (generic/029, /030)"""
    write_file("a", b"x" * 5000)
    fd = os.open("a", os.O_RDWR)
    p = libc.mmap(None, 16384, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, fd, 0)
    c.note("tail zero", ctypes.string_at(p + 5000, 3192) == bytes(3192))
    ctypes.memset(p + 5000, 0x59, 100)
    os.ftruncate(fd, 6000)
    c.note("after growth", os.pread(fd, 2000, 4990) == b"x" * 10 + bytes(1000))
    ctypes.memset(p + 6000, 0x59, 100)
    os.pwrite(fd, b"e", 7000)
    c.note("after write", os.pread(fd, 2000, 5990)[:20])
    c.step("beyond", in_child, lambda: ctypes.string_at(p + 8192, 1))
    os.ftruncate(fd, 10000)
    c.step("now", in_child, lambda: ctypes.string_at(p + 8192, 1))
    ctypes.memset(p + 9000, 0x61, 10)
    c.note("r", os.pread(fd, 12, 8999))
    os.ftruncate(fd, 100)
    c.step("cut", in_child, lambda: ctypes.string_at(p + 8192, 1))
    c.step("cut in", in_child, lambda: ctypes.string_at(p + 100, 1))
    os.ftruncate(fd, 10000)
    c.note("zero", ctypes.string_at(p + 9000, 10))
    c.step("store cut", in_child, lambda: ctypes.memset(p + 12288, 1, 1))
    raw.fallocate(fd, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, 0, 4096)
    c.note("punched", ctypes.string_at(p, 5))
    os.unlink("a")
    ctypes.memset(p, 0x62, 5)
    c.note("unlinked", os.pread(fd, 6, 0))


@case
def mmap__times(c):
    write_file("a", b"x" * 8192)
    fd = os.open("a", os.O_RDWR)
    m = mmap.mmap(fd, 8192)
    c.watch("a")
    c.step("store", lambda: m.__setitem__(0, 1))
    c.step("msync", m.flush)
    c.step("msync clean", m.flush)
    c.step("store", lambda: m.__setitem__(0, 2))
    c.step("fsync", os.fsync, fd)
    c.step("store 2", lambda: m.__setitem__(5000, 2))
    c.step("munmap", m.close)
    c.step("close", os.close, fd)
    c.note("d", digest(read_file("a")))


@case
def mmap__a_store_is_a_change(c):
    """after msync or munmap and close the time of the last change is not before the store"""
    for how in ("msync", "munmap", "fsync"):
        write_file("a", b"x" * 8192)
        utimensat("a", (1, 0), (1, 0))
        fd = os.open("a", os.O_RDWR)
        m = mmap.mmap(fd, 8192)
        m[0] = 65
        if how == "msync":
            m.flush()
        if how == "fsync":
            os.fsync(fd)
        m.close()
        os.close(fd)
        time.sleep(0.1)
        c.note(how, [os.stat("a").st_mtime > 1000, read_file("a")[:2]])


@case
def mmap__stores_beyond_the_end_are_no_data(c):
    """what a mapping stored beyond the end is not part of the file when it grows"""
    write_file("a", b"x" * 5000)
    fd = os.open("a", os.O_RDWR)
    p = libc.mmap(None, 8192, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, fd, 0)
    ctypes.memset(p + 5000, 0x59, 100)
    os.ftruncate(fd, 6000)
    c.note("zero", os.pread(fd, 5, 5000))
