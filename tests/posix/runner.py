"""Runs cases in forked processes, many at once, each in a folder of its own: most of a case's time is waiting."""

import errno, json, os, selectors, signal, time, traceback
from collections import deque
from case import CASES, Case

LIMIT_SECONDS = 60
"""A case that takes longer is killed."""
FAILED = ("raised", "took too long", "died")
"""Labels of what is no outcome of a step: the case itself is broken."""


def run_case(name, settle_on):
    """The record of a case, made in the working directory."""
    fn, args = CASES[name]
    c = Case(settle_on)
    try:
        fn(c, *args)
    except BaseException as error:
        c.become_root()
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__)]
        reason = errno.errorcode.get(getattr(error, "errno", None), str(error))
        c.record.append(["raised", f"{type(error).__name__} {reason}, lines {lines}"])
    return c.record


class Running:
    """A case in its process."""

    def __init__(self, key, name, folder, settle_on):
        self.key, self.data, self.end = key, b"", time.monotonic() + LIMIT_SECONDS
        os.mkdir(folder)
        os.chmod(folder, 0o777)
        self.pipe, write_end = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.setpgid(0, 0)
                os.close(self.pipe)
                os.chdir(folder)
                os.umask(0o022)
                data = json.dumps(run_case(name, settle_on), default=repr).encode()
                while data:
                    data = data[os.write(write_end, data) :]
            finally:
                os._exit(0)
        os.close(write_end)

    def read(self):
        """Takes what it has written; False at the end."""
        data = os.read(self.pipe, 1 << 20)
        self.data += data
        return data != b""

    def kill(self):
        for kill in (os.killpg, os.kill):
            try:
                kill(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def finish(self, too_long):
        os.close(self.pipe)
        os.waitpid(self.pid, 0)
        if too_long:
            return [["took too long", f"{LIMIT_SECONDS} s"]]
        return json.loads(self.data) if self.data else [["died", ""]]


def run_all(jobs, at_once):
    """jobs: [(key, case name, folder, settle_on)]; yields (key, record) as they end."""
    waiting, selector = deque(jobs), selectors.DefaultSelector()
    running = set()
    while waiting or running:
        while waiting and len(running) < at_once:
            one = Running(*waiting.popleft())
            selector.register(one.pipe, selectors.EVENT_READ, one)
            running.add(one)
        ended = [(key.data, False) for key, _ in selector.select(1) if not key.data.read()]
        late = [(one, True) for one in running if time.monotonic() > one.end and (one, False) not in ended]
        for one, too_long in ended + late:
            if too_long:
                one.kill()
            selector.unregister(one.pipe)
            running.remove(one)
            yield one.key, one.finish(too_long)
