"""Differences from ext4 that are known: those that stay, each with its reason, and those that are to be mended.

A pattern is as narrow as it can be: what is not listed here is an error.
"""

from differences import Known

NODEV = "the mount is nodev: devices can't be opened"
CHOWN_NOTHING = (
    "chown(-1, -1) comes as an empty request, as fallocate sends too: of others than the owner it is ignored"
)
GROUP_EXECUTE = "as for any FUSE filesystem setgid without group execute stays at a write from outside the group"
PIPES = "of what goes through fifos and sockets the kernel tells a FUSE filesystem nothing"
STORES = "a store in a mapping counts when the page is written: at msync, munmap, fsync or when the kernel likes"
BEYOND = (
    "bytes that were stored behind the end of a mapped file are there when it grows: the kernel does not clear them"
)
PAGES = "a read that the kernel answers from its own pages, and reads no link for, is not heard of"
NOTHING_READ = "where there is nothing to read the kernel asks nothing"
FAILED = "ext4 counts a write that then fails as a change"
NO_APPEND = "the kernel does not tell that a write through an appending descriptor is to go elsewhere (RWF_NOAPPEND)"
FLAGS = "RWF_NOWAIT of reads and RWF_DONTCACHE are not for FUSE filesystems"
SAME_VALUE = "setting an attribute to the value it has is a change"
LARGE_VALUE = "a value of 64 KiB is kept; ext4 has no room for it"
ACL = "no POSIX ACLs"
OTHER_ROOT = "the machine's root is on another filesystem"
MODES_FIRST = "the kernel refuses the mode before it looks at the range"

KNOWN = [
    Known("type/blk", "open * nonblock", "outcome", "ENXIO", "EACCES", NODEV),
    Known("type/chr", "open * nonblock", "outcome", "ok", "EACCES", NODEV),
    Known("rename/errors", "open whiteout", "outcome", "ENXIO", "EACCES", NODEV),
    Known("type_of_a_user/*", "other: -1", ("a", "b"), "c", "-", CHOWN_NOTHING),
    Known("setuid/chown/*/reg/other", "-1", "outcome", "EPERM", "0", CHOWN_NOTHING),
    Known("setuid/chown/*/dir/other", "-1", "a", "c", "-", CHOWN_NOTHING),
    Known("setuid/of_a_directory_stays", "chown by user", "d", "c", "-", CHOWN_NOTHING),
    Known(
        "setuid/write/*/6767/other",
        "go",
        "a",
        "mc mode:0o106767>0o100767*",
        "mc mode:0o106767>0o102767*",
        GROUP_EXECUTE,
    ),
    Known(
        "setuid/write/*/6767/other", "is a", "outcome", "{'mode': '0o100767'*", "{'mode': '0o102767'*", GROUP_EXECUTE
    ),
    Known(("fifo/io", "fifo/times"), "write", "p", "mc", "-", PIPES),
    Known(("fifo/io", "fifo/times"), "read", "p", "a", "-", PIPES),
    Known("sock/io", "connect", "s", "a", "-", PIPES),
    Known("mmap/shared_and_private", "store", "a", "mc", "a", STORES),
    Known("mmap/shared_and_private", "flush", "a", "-", "mc", STORES),
    Known("mmap/times", ("store", "store (2)", "store 2"), "a", "mc", "a", STORES),
    Known("mmap/times", ("msync", "fsync", "munmap"), "a", "-", "mc", STORES),
    Known("write/direct", "sees map", "a", "a", "amc", STORES),
    Known("mmap/end_of_file", "after growth", "outcome", "True", "False", BEYOND),
    Known("mmap/end_of_file", "after write", "outcome", "b'*\\x00\\x00'", "b'*YYYYYYYYYY'", BEYOND),
    Known(
        "mmap/stores_beyond_the_end_are_no_data",
        "zero",
        "outcome",
        "b'\\x00\\x00\\x00\\x00\\x00'",
        "b'YYYYY'",
        BEYOND,
    ),
    Known("atime/rules", ("same fd after chmod", "same fd after utimens", "ro fd after utimens"), "f", "a", "-", PAGES),
    Known("atime/rules", "ro fd", "f", "-", "a", PAGES + " (here the read before it)"),
    Known("nameless/every_call_on_an_open_file", "read (2)", "descriptor", "a", "-", PAGES),
    Known("write/everything", "readv", "a", "a", "-", PAGES),
    Known("copy/range", "same file", "b", "amc", "mc", PAGES),
    Known("symlink/atime", ("readlink after old atime", "follow"), "l", "a", "-", PAGES),
    Known("atime/rules", "at end", "f", "a", "-", NOTHING_READ),
    Known("atime/rules", "empty file", "e", "a", "-", NOTHING_READ),
    Known("type/reg", "exec", "a", "a", "-", NOTHING_READ + " (the program is empty)"),
    Known("write/everything", "bad ptr", "a", "mc", "-", FAILED),
    Known("truncate/*", "fallocate over limit", "a", "mc", "-", FAILED),
    Known("write/append", "rwf noappend", "f", "mc", "mc size:8>9", NO_APPEND),
    Known("write/append", ("d (3)", "d (4)", "read hipri", "read append flag"), "outcome", "b'T*'", "b'Z*'", NO_APPEND),
    Known("write/noappend", "d", "outcome", "b'01XX456789'", "b'0123456789XX'", NO_APPEND),
    Known("write/append", ("read nowait", "read dontcache"), "outcome", "b'TUVWd'", "ENOTSUP", FLAGS),
    Known("write/append", "dontcache", "outcome", "1", "ENOTSUP", FLAGS),
    Known("write/append", "dontcache", "f", "mc", "-", FLAGS),
    Known("write/append", "read dontcache", "f", "a", "-", FLAGS),
    Known("xattr/names_of_any_bytes", "get (18)", "outcome", "ENODATA", "ENOTSUP", ACL),
    Known("xattr/names_of_any_bytes", "remove (18)", "outcome", "0", "ENOTSUP", ACL),
    Known("xattr/basic", "same value", "f", "-", "c", SAME_VALUE),
    Known("xattr/user", ("* user.u", "* user.none"), "f", "-", "c", SAME_VALUE),
    Known("xattr/basic", "65536", "f", "-", "c", LARGE_VALUE),
    Known(
        "xattr/basic",
        ("kept", "list (2)", "list (3)", "list (4)", "via symlink"),
        "outcome",
        "*",
        "*, \"b'user.huge'\"]",
        LARGE_VALUE,
    ),
    Known("rename/errors", ("/ -> x", "f -> /"), "outcome", "EBUSY", "EXDEV", OTHER_ROOT),
    Known("fallocate/*/unshare/0+9223372036854775807", "fallocate", "outcome", "EFBIG", "ENOTSUP", MODES_FIRST),
    Known(
        "locks/ofd",
        "posix get",
        "outcome",
        "[1, 0, 0, 10, -1]",
        "[1, 0, 0, 10, *]",
        "a lock of an open file description is told with the pid of a process that has it, not -1",
    ),
    Known(
        "statfs/facts",
        "file size bits",
        "outcome",
        "64",
        "32",
        "the C library knows the size of a file on filesystems in its table only",
    ),
    Known(
        "holes/seek", "blocks", "outcome", "16", "9", "st_blocks counts the bytes that are stored, not blocks of 4 KiB"
    ),
    Known("holes/seek", "dir", "outcome", "0", "ENXIO", "a folder has size 0: no data there"),
    Known(
        "utimensat/values",
        ("t (5)", "t (19)"),
        "outcome",
        "[-2147483648000000000, -2147483648000000000]",
        "[-2147483648000000000, -2147483649000000000]",
        "times before 1901 are kept; ext4 cuts them",
    ),
]

TO_BE_MENDED: list[Known] = []
