#!/usr/bin/env python3
"""Runs every case on a folder of ext4 and on a mount; what differs and is not known is an error.

    compare.py --reference FOLDER --mount FOLDER [--only PREFIX]... [--skip PREFIX]... [--settle] [--verbose]

Exit code: 0 when all that differs is known (known.py), 1 when something else does or a case is broken, 2 when there is
nothing to compare with. A known difference that is gone is told, and no error. Cases that differ run again by themselves:
what does not differ then in any of three runs hung on the moment (whether the kernel had still cached a page or a link,
in which tick of its clock a call fell); it is told as unsteady, and no error.
"""

import argparse, json, os, platform, shutil, sys
import case, runner
from cases import (  # noqa: F401 (each adds its cases)
    directories,
    extended_attributes,
    facts,
    kinds_of_objects,
    links_and_rename,
    locks,
    memory_maps,
    names_and_paths,
    nameless_files,
    notifications,
    opening,
    permissions,
    reading_and_writing,
    setuid_and_setgid,
    sizes_and_holes,
    times,
)
from differences import brief, compare_records
from known import KNOWN, TO_BE_MENDED

AT_ONCE = 12
"""Cases at a time on each side. They mostly wait; more only delay each other."""
CONFIRMING_RUNS = 3


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=os.path.abspath, help="a folder of ext4")
    parser.add_argument("--mount", type=os.path.abspath, help="a mount, or a folder in it")
    parser.add_argument("--only", action="append", default=[], metavar="PREFIX", help="only cases that begin so")
    parser.add_argument("--skip", action="append", default=[], metavar="PREFIX", help="no cases that begin so")
    parser.add_argument("--settle", action="store_true", help="before each step wait until all is delivered")
    parser.add_argument("--at-once", type=int, metavar="N", help=f"cases at a time (default {AT_ONCE}; --settle: 1)")
    parser.add_argument("--list", action="store_true", help="the names of the cases, and nothing else")
    parser.add_argument("--obstacle", action="store_true", help="only tell why the reference is none, if it is none")
    parser.add_argument("--verbose", action="store_true", help="also print what is known, and every step")
    parser.add_argument("--json", metavar="FILE", help="write all records there")
    return parser.parse_args(arguments)


def obstacle(reference):
    """Why a folder can't be what a mount is compared with, or None."""
    if platform.machine() != "x86_64" or sys.platform != "linux":
        return "the system calls are those of Linux on x86-64"
    if os.geteuid() != 0:
        return "needs root: calls are tried as several users"
    best = ("", "", "")
    with open("/proc/self/mountinfo") as table:
        for line in table:
            fields = line.split()
            place, options, kind = fields[4], fields[5], fields[fields.index("-") + 1]
            if os.path.commonpath([place, os.path.realpath(reference)]) == place and len(place) >= len(best[0]):
                best = (place, options, kind)
    if best[2] != "ext4":
        return f"{reference} is on {best[2]}: the cases expect what ext4 does"
    if "relatime" not in best[1].split(","):
        return f"{reference} is mounted without relatime: access times would differ"
    return None


def run(names, options, at_once=None):
    """{name: (record of the reference, record of the mount)}"""
    folders = [os.path.join(place, f"posix-{os.getpid()}") for place in (options.reference, options.mount)]
    jobs, records = [], {}
    for i, name in enumerate(names):
        for side, folder in enumerate(folders):
            settle_on = options.mount if options.settle and side == 1 else None
            jobs.append(((name, side), name, f"{folder}/{i:04}", settle_on))
    at_once = at_once or options.at_once or (1 if options.settle else AT_ONCE)
    os.umask(0o022)
    try:
        for folder in folders:
            os.mkdir(folder)
        for (name, side), record in runner.run_all(jobs, 2 * at_once):
            records.setdefault(name, [None, None])[side] = record
    finally:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
    return {name: records[name] for name in names}


class Judgement:
    """What the records of cases tell: differences by what is listed of them, and broken cases."""

    def __init__(self, records):
        self.stays, self.waits = ([one for entry in entries for one in entry.each()] for entries in (KNOWN, TO_BE_MENDED))
        self.broken, self.unknown, self.known, self.mending, self.used = [], [], [], [], set()
        for name, sides in records.items():
            for place, record in zip(("reference", "mount"), sides):
                failed = [step for step in record if step[0] in runner.FAILED]
                self.broken += [(name, f"{step[0]}, {step[1]} ({place})") for step in failed]
            for difference in compare_records(name, *sides):
                listed = next((entry for entry in self.stays + self.waits if entry.matches(difference)), None)
                self.used.add(listed)
                (self.unknown if listed is None else self.mending if listed in self.waits else self.known).append(difference)


def report(title, lines):
    if lines:
        print(f"\n{title} ({len(lines)})\n")
        print("\n".join(f"  {line}" for line in "\n".join(map(str, lines)).split("\n")))


def main(arguments):
    options = parse(arguments)
    names = [name for name in case.CASES if not options.only or name.startswith(tuple(options.only))]
    names = [name for name in names if not name.startswith(tuple(options.skip))]
    if options.list:
        print("\n".join(names))
        return 0
    if options.reference is None or options.mount is None and not options.obstacle:
        print("compare.py: --reference and --mount are needed", file=sys.stderr)
        return 2
    reason = obstacle(options.reference)
    if reason is not None or options.obstacle:
        print(reason or "", file=sys.stdout if options.obstacle else sys.stderr)
        return 2 if reason is not None else 0
    if os.stat(options.reference).st_dev == os.stat(options.mount).st_dev:
        print(f"compare.py: {options.mount} is no mount of its own", file=sys.stderr)
        return 2

    records = run(names, options)
    if options.json is not None:
        with open(options.json, "w") as file:
            json.dump(records, file)
    if options.verbose:
        for name, (reference, _) in records.items():
            print(name, *(f"    {brief(step)}" for step in reference), sep="\n")
    found = Judgement(records)
    unsteady = []
    for name in sorted({one.case for one in found.unknown} | {one[0] for one in found.broken}):
        again = [Judgement(run([name], options, at_once=1)) for _ in range(CONFIRMING_RUNS)]
        if any(one.unknown or one.broken for one in again):
            continue
        unsteady += [one for one in found.unknown if one.case == name]
        unsteady += [f"{one}: {what}" for one, what in found.broken if one == name]
        found.unknown = [one for one in found.unknown if one.case != name]
        found.broken = [one for one in found.broken if one[0] != name]
    expected = [entry for entry in found.stays + found.waits if any(entry.is_of(name) for name in names)]
    # With --settle, caches are in other states.
    gone = [] if options.settle else [entry for entry in expected if entry not in found.used]
    known, mending, unknown = found.known, found.mending, found.unknown
    broken = [f"{name}: {what}" for name, what in found.broken]
    steps = sum(len(reference) for reference, _ in records.values())

    if options.verbose:
        report("Known", known)
    report("To be mended", mending)
    report("Listed in known.py, but no longer different", gone)
    report("Unsteady: different only beside others", unsteady)
    report("Different", unknown)
    report("Broken cases", broken)
    print(
        f"\n{len(names)} cases, {steps} steps: {len(unknown)} differences, {len(broken)} broken; "
        f"{len(known)} known, {len(mending)} to be mended, {len(gone)} listed and gone, {len(unsteady)} unsteady"
    )
    return 1 if unknown or broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
