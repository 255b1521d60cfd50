"""One cluster in the background for local development, used again until it is taken down.

A holder process (``hold``) runs the control plane as tests do, and keeps a lock for as long as it lives: who gets that lock knows that
nothing runs. The user's cache folder has the lock, the kubeconfig, what is known of the holder, and its log.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.cluster.control_plane import ControlPlane
from tests.cluster.folders import cache_folder, locked, try_lock
from tests.cluster.lookup import open_cluster
from tests.cluster.progress import Progress
from tests.waiting import eventually

_READY_WITHIN = 180.0  # three seconds for our own API server; kind takes longer
_DOWN_WITHIN = 60.0
_LOCK_WITHIN = 5.0  # somebody may just be looking whether it is free
_LOOK_EVERY = 1.0  # seconds between the holder's looks at its children
_LOG_LINES = 30
_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Running:
    """The cluster in the background: its holder's process id, paths of its kubeconfig and of a kubectl for it, and what it is."""

    pid: int
    kubeconfig: str
    kubectl: str
    what: str


class NotRunningError(RuntimeError):
    """There is no cluster in the background, or it did not start."""


def folder() -> Path:
    """Return where its state is."""
    return cache_folder() / "background"


def find() -> Running | None:
    """Return the cluster if there is one that is ready."""
    try:
        running = Running(**json.loads((folder() / "running.json").read_text()))
    except FileNotFoundError:
        return None
    lock = try_lock(folder() / "lock")
    if lock is None:
        return running
    lock.close()
    return None  # its holder was killed


def up(progress: Progress) -> Running:
    """Return the running cluster, or start one; building its programs first if need be.

    Raises:
        NotRunningError: It did not start; the message holds the end of its log.
        BuildError: Its programs could not be built.

    """
    with locked(folder() / "up.lock", _READY_WITHIN, "starting a cluster"):
        if running := find():
            return running
        open_cluster(progress=progress)  # here, not in the holder: what it builds can take minutes, and people watch
        (folder() / "running.json").unlink(missing_ok=True)
        log = folder() / "log"
        with log.open("wb") as output:
            holder = subprocess.Popen(
                [sys.executable, "-m", "tests.cluster", "hold"],
                cwd=_ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # it stays when the terminal is closed
            )
        try:
            eventually(lambda: find() or holder.poll() is not None, _READY_WITHIN, "the cluster is ready")
        except AssertionError:
            holder.kill()
            holder.wait()
        if running := find():
            return running
        raise NotRunningError("the cluster did not start:\n" + "\n".join(log.read_text(errors="replace").splitlines()[-_LOG_LINES:]))


def down() -> bool:
    """Stop the cluster and delete what is in it; False if there was none."""
    running = find()
    if running is None:
        return False
    os.kill(running.pid, signal.SIGTERM)  # the lock is held, so this is still the process that wrote its id
    eventually(lambda: try_lock(folder() / "lock"), _DOWN_WITHIN, "the cluster is down").close()
    return True


def hold() -> int:
    """Run the cluster until SIGTERM or SIGINT, or until a part of it ends; return the exit status.

    Raises:
        NotRunningError: Another holder runs.

    """
    try:
        lock = eventually(lambda: try_lock(folder() / "lock"), _LOCK_WITHIN, "no other cluster runs in the background")
    except AssertionError as error:
        raise NotRunningError(str(error)) from error
    asked_to_end = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked_to_end.set())
    with lock, open_cluster(crds=_ROOT / "crds") as cluster:
        parts = len(cluster.pids) if isinstance(cluster, ControlPlane) else 0
        kubeconfig = shutil.copy(cluster.kubeconfig, folder() / "kubeconfig")  # a path that stays the same from one cluster to the next
        draft = folder() / "running.draft"
        draft.write_text(json.dumps(asdict(Running(os.getpid(), str(kubeconfig), str(cluster.kubectl_binary), cluster.why))))
        draft.replace(folder() / "running.json")
        while not asked_to_end.wait(_LOOK_EVERY):
            if isinstance(cluster, ControlPlane) and len(cluster.pids) < parts:
                print("a part of the cluster ended by itself: stopping the rest", flush=True)
                break
        (folder() / "running.json").unlink()
    return 0 if asked_to_end.is_set() else 1
