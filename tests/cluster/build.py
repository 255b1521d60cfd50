"""Building the programs of a control plane from their Go modules, once per user and version.

``go.mod`` beside this file pins everything and contains no code of ours; ``go.sum`` holds the checksums. The results are kept in the
user's cache folder under a key made of the Kubernetes version, these two files and the machine. Two builds at once wait for each other,
and a program appears there complete or not at all: an interrupted build goes on with the next program.
"""

import contextlib
import hashlib
import platform
import queue
import re
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.cluster.folders import cache_folder, try_lock
from tests.cluster.process import bound_to_this_process
from tests.cluster.progress import Progress, duration
from tests.cluster.toolchain import BuildError, Go, find_go, remove_go
from tests.waiting import eventually

_MODULE = Path(__file__).parent
PACKAGES = {
    "kubectl": "k8s.io/kubernetes/cmd/kubectl",
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
}
_STEP_WITHIN = 3600.0  # seconds for one program, on a slow machine with an empty cache
_OTHER_BUILD_WITHIN = 2 * _STEP_WITHIN
_ERROR_LINES = 30


def kubernetes_version() -> str:
    """Return the Kubernetes version that go.mod pins, as v1.36.3."""
    found = re.search(r"^\s*k8s\.io/kubernetes (v[0-9.]+)", (_MODULE / "go.mod").read_text(), re.MULTILINE)
    if found is None:
        raise BuildError(f"{_MODULE / 'go.mod'} requires no k8s.io/kubernetes")
    return found[1]


def built_folder() -> Path:
    """Return where the programs are, or will be."""
    content = b"".join((_MODULE / name).read_bytes() for name in ("go.mod", "go.sum"))
    key = f"{kubernetes_version()}-{hashlib.sha256(content).hexdigest()[:12]}-{platform.machine()}"
    return cache_folder() / key


def missing(names: Iterable[str]) -> list[str]:
    """Return those programs that are not built yet."""
    folder = built_folder()
    return [name for name in names if not (folder / name).exists()]


def build(names: Iterable[str], progress: Progress) -> Path:
    """Build the programs that are missing and return their folder.

    Raises:
        BuildError: There is no Go, or it failed; the message holds the end of its output.

    """
    folder = built_folder()
    names = list(names)
    if not missing(names):
        return folder
    with _only_one(progress):
        wanted = missing(names)  # somebody else may have built them meanwhile
        if wanted:
            go = find_go(progress)
            progress.say(f"building {', '.join(wanted)} (Kubernetes {kubernetes_version()}) with {go.why}")
            progress.say("this is done once and takes some ten minutes on two cores if nothing is cached")
            folder.mkdir(parents=True, exist_ok=True)
            started = time.monotonic()
            total = _packages(go, [PACKAGES[name] for name in wanted], progress)
            for name in wanted:
                _build_one(go, name, folder, total, progress)
            progress.say(f"built in {duration(time.monotonic() - started)}; kept in {folder}")
            if not missing(PACKAGES):
                remove_go(go)
    return folder


@contextlib.contextmanager
def _only_one(progress: Progress) -> Iterator[None]:
    path = cache_folder() / "build.lock"
    lock = try_lock(path)
    if lock is None:
        progress.say("another process is building the test bed: waiting for it")
        lock = eventually(lambda: try_lock(path), _OTHER_BUILD_WITHIN, "the other build has ended")
    with lock:
        yield


def _packages(go: Go, packages: list[str], progress: Progress) -> int:
    """Return how many Go packages the programs consist of; this downloads what they need."""
    listed = _run_go(go, ["list", "-deps", *packages], "downloading Go modules", progress)
    return len(listed.splitlines())


def _build_one(go: Go, name: str, folder: Path, total: int, progress: Progress) -> None:
    version = kubernetes_version()
    major, minor, _ = version.removeprefix("v").split(".")
    stamp = "k8s.io/component-base/version"
    flags = f"-s -w -X {stamp}.gitVersion={version} -X {stamp}.gitMajor={major} -X {stamp}.gitMinor={minor}"
    unfinished = folder / f".{name}.unfinished"
    unfinished.unlink(missing_ok=True)  # of a build that was interrupted
    command = ["build", "-v", "-trimpath", "-ldflags", flags, "-o", str(unfinished), PACKAGES[name]]
    _run_go(go, command, f"building {name}", progress, of=total)
    unfinished.replace(folder / name)


def _run_go(go: Go, arguments: list[str], what: str, progress: Progress, *, of: int = 0) -> str:
    """Run go, show what it tells on standard error (a module it downloads, a package it compiled), return its standard output."""
    with subprocess.Popen(
        bound_to_this_process([go.program, *arguments]),
        cwd=_MODULE,
        env=go.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        output: queue.SimpleQueue[str] = queue.SimpleQueue()
        told: queue.SimpleQueue[str] = queue.SimpleQueue()
        readers = [
            threading.Thread(target=_drain, args=(process.stdout, output), daemon=True),
            threading.Thread(target=_drain, args=(process.stderr, told), daemon=True),
        ]
        for reader in readers:
            reader.start()
        try:
            errors = _follow(told, readers[1], what, progress, of)
        except BaseException:
            process.kill()
            raise
        readers[0].join()
    if process.returncode != 0:
        raise BuildError(f"{what} failed: go {' '.join(arguments)}\n" + "".join(errors[-_ERROR_LINES:]))
    return "".join(output.get() for _ in range(output.qsize()))


def _follow(told: queue.SimpleQueue[str], reader: threading.Thread, what: str, progress: Progress, of: int) -> list[str]:
    """Show how far it is until it ends; return the lines that are neither a download nor a package."""
    started = time.monotonic()
    downloads = compiled = 0
    others: list[str] = []
    while reader.is_alive() or not told.empty():
        elapsed = time.monotonic() - started
        if elapsed > _STEP_WITHIN:
            raise BuildError(f"{what} took longer than {duration(_STEP_WITHIN)}")
        with contextlib.suppress(queue.Empty):
            line = told.get(timeout=0.2)
            if line.startswith("go: downloading "):
                downloads += 1
            elif " " not in line.strip():
                compiled += 1
            else:
                others.append(line)
        counts = [f"{downloads} modules downloaded"] * bool(downloads) + [f"{compiled} of up to {of} packages compiled"] * bool(compiled)
        progress.show(f"  {duration(elapsed):>12}  {what}{': ' if counts else ''}{', '.join(counts)}")
    return others


def _drain(stream: Iterable[str], into: queue.SimpleQueue[str]) -> None:
    for line in stream:
        into.put(line)
