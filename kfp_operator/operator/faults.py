"""Places where a test can kill this process: between an effect and what should follow it.

For tests only, not a setting. With ``KFPOP_TEST_FAULT=name`` in the environment the process kills itself by SIGKILL when it passes the
fault point of that name, with ``name:n`` when it does so for the n-th time; without it every fault point is an empty call.
"""

import os
import signal
from collections.abc import Callable

VARIABLE = "KFPOP_TEST_FAULT"


def _off(name: str) -> None:
    """Pass: no fault is asked for."""


def _killer(wanted: str) -> Callable[[str], None]:
    name, _, count = wanted.partition(":")
    left = int(count or 1)

    def pass_by(passed: str) -> None:
        nonlocal left
        if passed == name:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return pass_by


fault_point: Callable[[str], None] = _killer(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else _off
"""Pass the fault point of that name."""
