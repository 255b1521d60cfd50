"""``KEEP=1``: the demo goes on in the background after it was shown, until it is told to end.

Everything the demo starts dies with the process that started it, so that process must stay: the demo is told in a child that leaves the
terminal's session, while the parent waits for the outcome, passes on a Ctrl-C, and ends with the demo's exit status.
"""

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from examples.demo.story import Story
from examples.demo.text import Page
from tests.cluster.folders import cache_folder, try_lock
from tests.waiting import eventually

_DOWN_WITHIN = 120.0

Report = Callable[[int], None]
"""Tells the parent the exit status; from then on nothing more is written to the terminal."""


def in_background(demo: Callable[[Report], int]) -> int:
    """Run `demo` in a child that outlives this process once it has reported; the exit status. 1 when one is running already."""
    if (pid := running()) is not None:
        print(f"a demo is running already, process {pid}: end it with `make demo-down`", file=sys.stderr)
        return 1
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        sys.exit(_hold(demo, writing))
    os.close(writing)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os.kill(child, signal.SIGTERM))
    with os.fdopen(reading, "rb") as pipe:
        reported = pipe.read()
    return reported[0] if reported else os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def running() -> int | None:
    """The process that keeps a demo; None: there is none."""
    lock = try_lock(_folder() / "lock")
    if lock is None:
        return int((_folder() / "pid").read_text())
    lock.close()
    return None


def down() -> int:
    """End the demo that was kept; the exit status."""
    pid = running()
    if pid is None:
        print("no demo is running in the background")
        return 0
    os.kill(pid, signal.SIGTERM)  # the lock is held, so this is still the process that wrote its id
    eventually(lambda: running() is None, _DOWN_WITHIN, f"the demo, process {pid}, has ended")
    print("the demo has ended; nothing of it is left")
    return 0


def farewell(page: Page, story: Story) -> None:
    """Say how to use what is left running, and how to end it."""
    place = story.place
    kubectl = place.cluster.kubectl_binary
    page.heading("It goes on in the background: try it")
    if shutil.which("kubectl") != str(kubectl):
        page.output(f"export PATH={kubectl.parent}:$PATH", "bold")
    page.output(f"export PATH={Path(sys.executable).parent}:$PATH", "bold")
    page.output(f"export KUBECONFIG={place.cluster.kubeconfig}", "bold")
    page.output(f"export KFPOP_NATS__SERVERS={story.nats.url} KFPOP_STATEDIR={story.operator.state}", "bold")
    page.say("")
    for purpose, line in story.suggestions():
        page.say(f"# {purpose}", "dim")
        page.output(line, "bold")
    page.say("")
    page.say(f"End it, and leave nothing behind, with `make demo-down` (or kill {os.getpid()}).")


def _hold(demo: Callable[[Report], int], writing: int) -> int:
    os.setsid()
    lock = try_lock(_folder() / "lock")
    if lock is None:
        print("another demo has just begun; end it with `make demo-down`", file=sys.stderr)
        return 1

    def report(status: int) -> None:
        sys.stdout.flush()
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        os.write(writing, bytes([status]))
        os.close(writing)

    with lock:
        (_folder() / "pid").write_text(str(os.getpid()))
        return demo(report)


def _folder() -> Path:
    return cache_folder() / "demo"
