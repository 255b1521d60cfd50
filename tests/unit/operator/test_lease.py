"""At most one process acts at any time, and one soon does again after any failure."""

import asyncio
import logging
import random
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest

from kfp_operator.errors import ClusterUnavailable, Conflict, LeadershipLost, NotFound
from kfp_operator.operator.lease import Lease
from kfp_operator.operator.resources import Resource
from tests.unit.operator.simulated_time import now, run, until

DURATION = 15.0


class LeaseServer:
    """The API server's side of one Lease: optimistic locking, merge of spec and annotations, outages, lost answers."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 0
        self.down = False
        self.lose_answers = 0
        self.delay = 0.0
        self.writes = 0

    async def get(self, resource: Resource, name: str, namespace: str = "") -> dict[str, Any]:
        await self._network()
        if self.lease is None:
            raise NotFound("no such lease", status=404)
        return self.lease

    async def create(self, resource: Resource, body: Mapping[str, Any], namespace: str = "") -> dict[str, Any]:
        await self._network()
        if self.lease is not None:
            raise Conflict("exists", status=409)
        return await self._store(dict(body["metadata"]), dict(body["spec"]))

    async def patch(
        self,
        resource: Resource,
        name: str,
        body: Mapping[str, Any],
        namespace: str = "",
        *,
        subresource: str = "",
        resource_version: str = "",
    ) -> dict[str, Any]:
        await self._network()
        if self.lease is None:
            raise NotFound("no such lease", status=404)
        if resource_version != self.lease["metadata"]["resourceVersion"]:
            raise Conflict("changed", status=409)
        annotations = {**self.lease["metadata"].get("annotations", {}), **body.get("metadata", {}).get("annotations", {})}
        metadata = {**self.lease["metadata"], "annotations": {key: value for key, value in annotations.items() if value is not None}}
        return await self._store(metadata, {**self.lease["spec"], **body["spec"]})

    async def _network(self) -> None:
        await asyncio.sleep(self.delay)
        if self.down:
            raise ClusterUnavailable("connection refused")

    async def _store(self, metadata: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
        self.version += 1
        self.writes += 1
        self.lease = {"metadata": {**metadata, "resourceVersion": str(self.version)}, "spec": spec}
        if self.lose_answers:
            self.lose_answers -= 1
            raise ClusterUnavailable("the answer was lost")
        return self.lease


class Candidate:
    """A process that leads when it can, and can be paused like one under SIGSTOP: its tasks stand still, its clock does not."""

    def __init__(self, server: LeaseServer, name: str) -> None:
        self.lease = Lease(server, namespace="ns", name="operator", holder=name, duration=DURATION, now=now, chance=random.Random(name))
        self.task = asyncio.ensure_future(self._lead())
        self.lost: LeadershipLost | None = None

    async def _lead(self) -> None:
        await self.lease.acquire()
        try:
            await self.lease.hold()
        except LeadershipLost as error:
            self.lost = error

    async def kill(self) -> None:
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task


def test_the_first_process_leads_at_once_and_keeps_the_lease() -> None:
    async def main() -> None:
        server = LeaseServer()
        a = Candidate(server, "a")
        with pytest.raises(LeadershipLost, match="not held"):
            a.lease.guard()
        await asyncio.sleep(0.1)
        for _ in range(100):
            a.lease.guard()
            assert a.lease.is_leader
            await asyncio.sleep(1)
        assert server.lease is not None
        spec = server.lease["spec"]
        assert (spec["holderIdentity"], spec["leaseDurationSeconds"], spec["leaseTransitions"]) == ("a", 15, 0)
        assert server.writes <= 42
        await a.kill()

    run(main())


def test_a_standby_takes_over_when_the_leader_was_killed_not_before_the_lease_has_run_out() -> None:
    async def main() -> None:
        server = LeaseServer()
        a = Candidate(server, "a")
        await asyncio.sleep(1)
        b = Candidate(server, "b")
        await asyncio.sleep(60)
        assert (a.lease.is_leader, b.lease.is_leader) == (True, False)
        await a.kill()
        killed = now()
        await until(lambda: b.lease.is_leader, within=60)
        assert DURATION - a.lease.interval <= now() - killed <= DURATION + 1.2 * b.lease.interval
        assert server.lease is not None
        assert server.lease["spec"]["leaseTransitions"] == 1
        await b.kill()

    run(main())


def test_a_released_lease_is_taken_within_one_poll() -> None:
    async def main() -> None:
        server = LeaseServer()
        a, b = Candidate(server, "a"), Candidate(server, "b")
        await asyncio.sleep(30)
        leader, standby = (a, b) if a.lease.is_leader else (b, a)
        await leader.kill()
        await leader.lease.release()
        assert not leader.lease.is_leader
        await asyncio.sleep(1.2 * standby.lease.interval)
        assert standby.lease.is_leader
        await standby.kill()

    run(main())


def test_a_leader_that_was_paused_for_longer_than_the_lease_may_not_act_and_learns_that_another_leads() -> None:
    async def main() -> None:
        server = LeaseServer()
        a = Candidate(server, "a")
        await asyncio.sleep(1)
        b = Candidate(server, "b")
        await asyncio.sleep(10)
        a.task.cancel()  # stopped in the middle of everything; what it knows stays as it was
        with suppress(asyncio.CancelledError):
            await a.task
        while not b.lease.is_leader:
            if a.lease.is_leader:
                a.lease.guard()
            await asyncio.sleep(0.05)
        assert not a.lease.is_leader, "the fence fell before the other began"
        with pytest.raises(LeadershipLost, match="another process may act"):
            a.lease.guard()
        with pytest.raises(LeadershipLost, match="taken by another"):
            await a.lease.hold()  # it goes on
        assert b.lease.is_leader
        await b.kill()

    run(main())


@pytest.mark.slow
def test_two_processes_are_never_both_allowed_to_act_whatever_fails() -> None:
    async def main(seed: int) -> None:
        chance, server = random.Random(seed), LeaseServer()
        alive: list[Candidate] = [Candidate(server, "0"), Candidate(server, "1")]
        stopped: list[Candidate] = []
        led = 0
        for step in range(400):
            await asyncio.sleep(chance.expovariate(1))
            server.down = chance.random() < (0.5 if server.down else 0.05)
            server.lose_answers = chance.random() < 0.1
            server.delay = chance.choice([0, 0, 0.01, 2])
            if chance.random() < 0.03:
                victim = chance.choice(alive)
                alive.remove(victim)
                await victim.kill()
                stopped.append(victim)
                alive.append(Candidate(server, f"new {step}"))
            acting = [c for c in alive + stopped if c.lease.is_leader]
            assert len(acting) <= 1
            led += len(acting)
            alive = [c if c.lost is None else Candidate(server, f"{c.lease.holder} again") for c in alive]
        assert led > 50
        for candidate in alive:
            await candidate.kill()

    for seed in range(20):
        run(main(seed))


class MoodyServer(LeaseServer):
    """Fails in another way each time."""

    failures = 0

    async def _network(self) -> None:
        if self.down:
            self.failures += 1
            raise ClusterUnavailable(f"failure {self.failures}")


def test_an_outage_is_a_warning_once_whatever_faces_it_has(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def main() -> None:
        server = MoodyServer()
        a = Candidate(server, "a")
        for _ in range(2):
            await asyncio.sleep(10)
            server.down = True
            await asyncio.sleep(60)
            server.down = False
        await asyncio.sleep(10)
        assert server.failures > 60
        await a.kill()

    run(main())
    assert [r.levelname for r in caplog.records].count("WARNING") == 2, "one for each outage"
    assert [r.getMessage() for r in caplog.records].count("Lease ns/operator is read and written again") == 2


def test_a_leader_cut_off_from_the_api_server_stops_acting_and_goes_on_when_nobody_else_led_meanwhile() -> None:
    async def main() -> None:
        server = LeaseServer()
        a = Candidate(server, "a")
        await asyncio.sleep(10)
        server.down = True
        await asyncio.sleep(a.lease.interval)
        assert a.lease.is_leader, "short failures are ridden out"
        await asyncio.sleep(a.lease.deadline)
        assert not a.lease.is_leader
        assert a.lease.trouble == "connection refused"
        await asyncio.sleep(3600)
        server.down = False
        await asyncio.sleep(a.lease.interval)
        assert a.lease.is_leader
        assert a.lease.trouble == ""
        assert a.lost is None
        await a.kill()

    run(main())


def test_time_counts_from_before_a_renewal_was_sent_not_from_its_answer() -> None:
    async def main() -> None:
        server = LeaseServer()
        a = Candidate(server, "a")
        await asyncio.sleep(1)
        server.delay = 3
        sent = now() + a.lease.interval
        await asyncio.sleep(a.lease.interval + 3.5)
        server.down = True
        await asyncio.sleep(max(0, sent + a.lease.deadline - now()))
        assert not a.lease.is_leader
        await a.kill()

    run(main())


def test_a_lost_answer_to_a_renewal_does_not_end_leadership() -> None:
    async def main() -> None:
        server = LeaseServer()
        a = Candidate(server, "a")
        await asyncio.sleep(1)
        for _ in range(5):
            server.lose_answers = 1
            await asyncio.sleep(20)
            assert a.lease.is_leader
        await a.kill()

    run(main())


def test_somebody_editing_the_lease_does_not_end_leadership() -> None:
    async def main() -> None:
        server = LeaseServer()
        a = Candidate(server, "a")
        await asyncio.sleep(1)
        assert server.lease is not None
        server.version += 1
        server.lease["metadata"] = {**server.lease["metadata"], "resourceVersion": str(server.version), "annotations": {"note": "hello"}}
        await asyncio.sleep(30)
        assert a.lease.is_leader
        assert a.lease.get_annotations() == {"note": "hello"}
        await a.kill()

    run(main())


def test_a_deleted_lease_is_made_again_by_its_holder_with_its_annotations() -> None:
    async def main() -> None:
        server = LeaseServer()
        a = Candidate(server, "a")
        await asyncio.sleep(1)
        b = Candidate(server, "b")
        a.lease.set_annotations({"cursor": "7"})
        await asyncio.sleep(10)
        server.lease = None
        await asyncio.sleep(30)
        assert (a.lease.is_leader, b.lease.is_leader) == (True, False)
        assert server.lease is not None
        assert server.lease["metadata"]["annotations"] == {"cursor": "7"}
        await a.kill()
        await b.kill()

    run(main())


def test_annotations_are_written_with_the_next_renewal_and_survive_a_change_of_leader() -> None:
    async def main() -> None:
        server = LeaseServer()
        a = Candidate(server, "a")
        await asyncio.sleep(1)
        a.lease.set_annotations({"runs": "1", "inbound": "1"})
        a.lease.set_annotations({"runs": "2"})
        assert a.lease.get_annotations() == {"runs": "2", "inbound": "1"}
        await asyncio.sleep(a.lease.interval)
        writes = server.writes
        a.lease.set_annotations({"inbound": None})
        await a.kill()
        await a.lease.release()
        assert server.writes == writes + 1
        b = Candidate(server, "b")
        await asyncio.sleep(1)
        assert b.lease.get_annotations() == {"runs": "2"}
        await b.kill()

    run(main())


def test_a_standby_trusts_its_own_clock_not_the_times_in_the_lease() -> None:
    async def main() -> None:
        server = LeaseServer()
        stale = {"holderIdentity": "x", "leaseDurationSeconds": 15, "renewTime": "1999-01-01T00:00:00.000000Z", "leaseTransitions": 3}
        await server.create(None, {"metadata": {"name": "operator"}, "spec": stale})  # type: ignore[arg-type]
        a = Candidate(server, "a")
        started = now()
        await until(lambda: a.lease.is_leader, within=60)
        assert now() - started >= DURATION
        await a.kill()

    run(main())
