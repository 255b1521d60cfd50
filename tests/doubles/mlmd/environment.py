"""The environment that MLMD lives in, made once per user: the wheel of a fixed version, with a Python that it has a wheel for.

Two builds at once wait for each other, and the environment appears complete or not at all.
"""

import functools
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.cluster.folders import cache_folder, locked
from tests.cluster.process import bound_to_this_process
from tests.cluster.progress import Progress, duration

REQUIREMENTS = ("ml-metadata==1.17.1", "grpcio>=1.60,<2")
WHEELS = ((3, 11), (3, 10), (3, 9))
"""Versions of Python that have wheels of ml-metadata, the best first."""
BUILD_WITHIN = 600.0
_ERROR_LINES = 10


class EngineUnavailable(RuntimeError):
    """MLMD cannot run on this machine, and why; a test that needs it is skipped."""


@functools.cache
def environment() -> Path:
    """The Python that can import ml_metadata; the first call on a machine makes it. Raises EngineUnavailable."""
    base, version = _base()
    tag = "-".join(("mlmd", REQUIREMENTS[0].partition("==")[2], f"python{version}", platform.machine()))
    folder = cache_folder() / tag
    python = folder / "bin" / "python"
    if not python.exists():
        with locked(cache_folder() / f"{tag}.lock", BUILD_WITHIN, "ML Metadata"):
            if not python.exists():
                _make(base, folder, Progress())
    return python


def _base() -> tuple[str, str]:
    """A Python that there are wheels for, and its version."""
    if sys.version_info[:2] in WHEELS:
        return sys.executable, f"{sys.version_info.major}.{sys.version_info.minor}"
    for major, minor in WHEELS:
        if found := shutil.which(f"python{major}.{minor}"):
            return found, f"{major}.{minor}"
    known = ", ".join(f"{major}.{minor}" for major, minor in reversed(WHEELS))
    here = platform.python_version()
    raise EngineUnavailable(f"ml-metadata has wheels for Python {known} only; this is {here}, and none of those is on PATH")


def _make(base: str, folder: Path, progress: Progress) -> None:
    progress.say(f"installing {REQUIREMENTS[0]} for tests, once (some ten seconds)")
    started = time.monotonic()
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a build that was interrupted
    _run([base, "-m", "venv", str(unfinished)], "making an environment for ML Metadata")
    install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:", *REQUIREMENTS]
    _run([str(unfinished / "bin" / "python"), *install], f"installing {REQUIREMENTS[0]}")
    unfinished.rename(folder)
    progress.say(f"installed in {duration(time.monotonic() - started)}; kept in {folder}")


def _run(command: list[str], what: str) -> None:
    try:
        done = subprocess.run(bound_to_this_process(command), capture_output=True, text=True, timeout=BUILD_WITHIN, check=False)
    except subprocess.TimeoutExpired:
        raise EngineUnavailable(f"{what} took longer than {duration(BUILD_WITHIN)}") from None
    if done.returncode:
        told = "\n".join((done.stdout + done.stderr).splitlines()[-_ERROR_LINES:])
        raise EngineUnavailable(f"{what} failed: {told}")
