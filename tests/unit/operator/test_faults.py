"""Fault points kill the process where a test says, and otherwise do nothing."""

import os
import signal
import subprocess
import sys

import pytest

from kfp_operator.operator import faults

PROGRAM = """
from kfp_operator.operator.faults import fault_point
for name in ["submitted", "published", "submitted", "published"]:
    fault_point(name)
    print(name, flush=True)
"""


def passed(fault: str) -> tuple[int, list[str]]:
    environment = {**os.environ, faults.VARIABLE: fault}
    result = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=60, check=False)
    return result.returncode, result.stdout.split()


@pytest.mark.parametrize(
    ("fault", "before"),
    [
        ("submitted", []),
        ("published", ["submitted"]),
        ("submitted:2", ["submitted", "published"]),
        ("published:2", ["submitted", "published", "submitted"]),
    ],
)
def test_the_process_dies_at_the_nth_passing(fault: str, before: list[str]) -> None:
    assert passed(fault) == (-signal.SIGKILL, before)


@pytest.mark.parametrize("fault", ["", "elsewhere", "submitted:3"])
def test_a_fault_that_is_not_reached_changes_nothing(fault: str) -> None:
    assert passed(fault) == (0, ["submitted", "published", "submitted", "published"])
