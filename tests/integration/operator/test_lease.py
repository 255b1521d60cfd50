"""Two processes and one Lease on a real API server."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from kfp_operator.operator.lease import Lease, boot_time
from kfp_operator.operator.resources import LEASES
from tests.cluster import Cluster, ControlPlane
from tests.integration.operator.parts import connected
from tests.waiting import eventually

DURATION = 4.0

CANDIDATE = """
import asyncio, sys
from kfp_operator.errors import LeadershipLost
from kfp_operator.operator.client import Cluster
from kfp_operator.operator.credentials import load_credentials
from kfp_operator.operator.lease import Lease, boot_time

async def act(lease):
    while True:
        try:
            lease.guard()
        except LeadershipLost:
            pass
        else:
            print("acts", boot_time(), flush=True)
        await asyncio.sleep(0.02)

async def main(kubeconfig, namespace, duration):
    async with Cluster(await load_credentials(kubeconfig)) as cluster:
        lease = Lease(cluster, namespace=namespace, name="operator", duration=float(duration))
        await lease.acquire()
        acting = asyncio.create_task(act(lease))
        try:
            await lease.hold()
        except LeadershipLost:
            print("lost", boot_time(), flush=True)
        acting.cancel()

asyncio.run(main(*sys.argv[1:]))
"""


class Candidate:
    """A process that acts whenever its guard lets it, and writes down when."""

    def __init__(self, kubeconfig: Path, namespace: str, log: Path) -> None:
        self.log = log
        with log.open("wb") as out:
            command = [sys.executable, "-c", CANDIDATE, str(kubeconfig), namespace, str(DURATION)]
            self.process = subprocess.Popen(command, stdout=out, stdin=subprocess.DEVNULL)

    def lines(self, word: str) -> list[float]:
        whole = self.log.read_text().rpartition("\n")[0]  # the last line may be half written
        return [float(line.split()[1]) for line in whole.splitlines() if line.startswith(word)]

    @property
    def acts(self) -> list[float]:
        return self.lines("acts")

    @property
    def lost(self) -> bool:
        return bool(self.lines("lost"))


@contextmanager
def candidates(cluster: Cluster, namespace: str, folder: Path) -> Iterator[tuple[Candidate, Candidate]]:
    """Two processes, of which the first leads."""
    first = Candidate(cluster.kubeconfig, namespace, folder / "first.log")
    both = [first]
    try:
        eventually(lambda: first.acts, 30, "the first process leads")
        both.append(Candidate(cluster.kubeconfig, namespace, folder / "second.log"))
        yield both[0], both[1]
    finally:
        for one in both:
            one.process.kill()
            one.process.wait()


def test_a_stopped_leader_is_replaced_and_does_nothing_when_it_goes_on(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    with candidates(cluster, namespace, tmp_path) as (first, second):
        os.kill(first.process.pid, signal.SIGSTOP)
        eventually(lambda: second.acts, 30, "the second process leads")
        before = first.acts
        os.kill(first.process.pid, signal.SIGCONT)
        eventually(lambda: first.lost, 30, "the first process notices")
        assert first.process.wait(30) == 0
        after = first.acts[len(before) :]
        assert all(at < second.acts[0] for at in after), "nothing but what it was about to write when it was stopped"
        assert second.acts[0] - before[-1] >= DURATION / 3, "the fence fell well before"


def test_a_killed_leader_is_replaced_when_its_lease_has_run_out(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    with candidates(cluster, namespace, tmp_path) as (first, second):
        first.process.kill()
        first.process.wait()
        eventually(lambda: second.acts, 30, "the second process leads")
        assert max(first.acts) < min(second.acts)
        lease = cluster.get("lease", "operator", namespace)
        assert lease is not None
        assert lease["spec"]["leaseTransitions"] == 1


def test_an_api_server_that_freezes_suspends_the_leader_and_nobody_else_acts(
    control_plane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    with candidates(control_plane, namespace, tmp_path) as (first, second):
        control_plane.pause_apiserver()
        try:
            eventually(lambda: _quiet(first), 30, "the leader has stopped acting")
        finally:
            control_plane.resume_apiserver()
        count = len(first.acts) + len(second.acts)
        eventually(lambda: len(first.acts) + len(second.acts) > count + 20, 30, "one of them acts again")
        acting = sorted([(at, 1) for at in first.acts] + [(at, 2) for at in second.acts])
        changes = sum(one[1] != other[1] for one, other in pairwise(acting))
        assert changes <= 1, "never both"


async def test_a_released_lease_is_free_and_keeps_its_annotations(cluster: Cluster, namespace: str) -> None:
    async with connected(cluster.kubeconfig) as client:
        one = Lease(client, namespace=namespace, name="operator", duration=60)
        await one.acquire()
        one.set_annotations({"kfp-operator.dev/cursor": json.dumps({"sequence": 7})})
        await one.release()
        other = Lease(client, namespace=namespace, name="operator", duration=60)
        async with asyncio.timeout(10):
            await other.acquire()
        assert other.is_leader
        assert other.get_annotations() == {"kfp-operator.dev/cursor": '{"sequence": 7}'}
        stored = await client.get(LEASES, "operator", namespace)
        assert stored["spec"]["holderIdentity"] == other.holder


def _quiet(candidate: Candidate) -> bool:
    """Whether it lives and has not acted for a second."""
    return candidate.process.poll() is None and boot_time() - candidate.acts[-1] > 1
