"""What statfs(2) and statx(2) tell."""

import ctypes, os, struct, subprocess, time
from case import case, outcome, write_file
from system_calls import AT_FDCWD, raw, utimensat


@case
def statfs__facts(c):
    v = os.statvfs(".")
    c.note("namemax", v.f_namemax)
    c.note("bsize", v.f_bsize)
    c.note("frsize", v.f_frsize)
    c.note("sane", [v.f_bfree <= v.f_blocks, v.f_bavail <= v.f_bfree, v.f_blocks > 0])
    c.note("files", [v.f_ffree <= v.f_files, v.f_favail <= v.f_ffree, v.f_files > 0])
    write_file("f", b"")
    fd = os.open("f", os.O_RDONLY)
    c.note("fstatvfs", os.fstatvfs(fd).f_namemax)
    c.note("flags", bool(v.f_flag & 1))
    c.note(
        "pathconf",
        [
            os.fpathconf(fd, n)
            for n in ("PC_NAME_MAX", "PC_PATH_MAX", "PC_PIPE_BUF", "PC_CHOWN_RESTRICTED", "PC_NO_TRUNC")
        ],
    )
    c.note("file size bits", outcome(os.fpathconf, fd, "PC_FILESIZEBITS"))


@case
def statx__facts(c):
    def sx(p, mask=0xFFF, flags=0x100):
        b = ctypes.create_string_buffer(256)
        raw.statx(AT_FDCWD, p, flags, mask, b)
        r = b.raw
        m, bl, attr, nl, uid, gid, mode = struct.unpack_from("IIQIIIH", r, 0)
        ino, size, blocks, amask = struct.unpack_from("QQQQ", r, 32)
        t = [struct.unpack_from("qI", r, 64 + 16 * i) for i in range(4)]
        return dict(mask=m, nlink=nl, mode=oct(mode), size=size, t=t, attr=attr, blk=bl)

    write_file("f", b"x" * 10)
    x = sx("f")
    c.note("btime there", bool(x["mask"] & 0x800))
    bt = x["t"][1]
    time.sleep(0.03)
    write_file("f", b"yy")
    os.chmod("f", 0o600)
    utimensat("f", (1, 1), (2, 2))
    os.rename("f", "g")
    os.link("g", "h")
    c.note("btime same", sx("g")["t"][1] == bt)
    c.note("basic", [sx("g")[k] for k in ("nlink", "mode", "size", "blk")])
    c.note("mask", hex(sx("g")["mask"] & 0xFFF))
    c.step("sync", lambda: sx("g", 0xFFF, 0x2000)["size"])
    c.step("dontsync", lambda: sx("g", 0xFFF, 0x4000)["size"])
    c.step("bad", sx, "g", 0x80000000)
    c.step("bad2", sx, "g", 0xFFF, 0x6000)
    time.sleep(0.3)
    c.note("btime later", sx("g")["t"][1] == bt)


@case
def statfs__used_inodes(c):
    v = os.statvfs(".")
    c.note("used inodes is no negative number", v.f_files - v.f_ffree >= 0)
    told = subprocess.run(["df", "-i", "."], capture_output=True, text=True).stdout.splitlines()[-1].split()
    c.note("df -i tells no negative number", not any(column.startswith("-") for column in told[1:4]))
