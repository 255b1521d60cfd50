"""A process seen from outside: its memory and its processor time, as Linux tells."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """Memory in MB (resident now, and at most since its start), processor time in seconds."""

    resident: float
    peak: float
    cpu: float


def usage(pid: int) -> Usage:
    """What the process has used, its children not included."""
    status = Path(f"/proc/{pid}/status").read_text()
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return Usage(_megabytes(status, "VmRSS"), _megabytes(status, "VmHWM"), (int(fields[11]) + int(fields[12])) / _TICKS)


def _megabytes(status: str, name: str) -> float:
    found = re.search(rf"^{name}:\s+(\d+) kB$", status, re.MULTILINE)
    if found is None:
        raise ValueError(f"the kernel does not tell {name}")
    return int(found[1]) * 1024 / 1e6
