"""``python -m examples.demo``, what ``make demo`` runs; ``python -m examples.demo down`` ends one that was kept.

The environment says how: ``SHOW=schedules`` shows Runs that start by themselves instead of the main job, ``KEEP=1`` leaves it running,
``TEST_KUBECONFIG`` names somebody's cluster.
"""

import os
import signal
import sys
from contextlib import ExitStack

from examples.demo import kept
from examples.demo.main_job import MainJob
from examples.demo.schedules import Schedules
from examples.demo.text import Page

_INTERRUPTED = 130
STORIES = {"": MainJob, "schedules": Schedules}


def main(arguments: list[str]) -> int:
    """Run the demo and return its exit status: 0 only if everything happened."""
    if arguments == ["down"]:
        return kept.down()
    if arguments:
        print(__doc__, file=sys.stderr)
        return 2
    if (show := os.environ.get("SHOW", "")) not in STORIES:
        print(f"SHOW={show} is none of the demos: {', '.join(filter(None, STORIES))}, or nothing for the main job", file=sys.stderr)
        return 2
    if os.environ.get("KEEP", "") not in ("", "0"):
        return kept.in_background(_demo)
    return _demo(None)


def _demo(report: kept.Report | None) -> int:
    """Tell the story. With `report`: stay until SIGTERM, if it went well."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    page = Page()
    good = False
    try:
        with ExitStack() as stack:
            try:
                story = STORIES[os.environ.get("SHOW", "")](page, stack)
                good = story.tell(os.environ.get("TEST_KUBECONFIG", ""))
                if good and report is not None:
                    kept.farewell(page, story)
                    report(0)
                    while True:
                        signal.pause()
            finally:
                for number in (signal.SIGINT, signal.SIGTERM):  # cleaning up is not interrupted
                    signal.signal(number, signal.SIG_IGN)
    except KeyboardInterrupt:
        page.end("Interrupted; everything that was started has ended")
        return _INTERRUPTED
    what = "All of it happened; everything that was started has ended" if good else "Not all of it happened."
    page.end(what, "bold green" if good else "bold red")
    return 0 if good else 1


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True, errors="replace")  # type: ignore[union-attr]  # text; lines at once in a pipe too
    sys.exit(main(sys.argv[1:]))
