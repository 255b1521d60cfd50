import asyncio
import re
from collections.abc import Coroutine, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kfp_operator.api.names import Names
from kfp_operator.api.run import Run
from kfp_operator.errors import ClusterError, ClusterUnavailable, Forbidden, NotFound
from kfp_operator.operator.kube_events import BURST, DRAIN, QUEUED, WINDOW, EventRecorder
from kfp_operator.operator.metrics import Metrics
from kfp_operator.operator.resources import EVENTS, Resource
from tests import builders
from tests.unit.operator import simulated_time
from tests.unit.operator.simulated_time import now


class Api:
    """Keeps Events as the API server does; `fail` is raised instead while it is set; each call takes `latency` seconds."""

    def __init__(self) -> None:
        self.events: dict[str, dict[str, Any]] = {}
        self.calls: list[str] = []
        self.fail: ClusterError | None = None
        self.latency = 0.0

    async def create(self, resource: Resource, body: Mapping[str, Any], namespace: str = "") -> dict[str, Any]:
        await self._called("create", resource, namespace)
        name = body["metadata"]["name"]
        assert name not in self.events
        self.events[name] = dict(body)
        return self.events[name]

    async def patch(self, resource: Resource, name: str, body: Mapping[str, Any], namespace: str = "") -> dict[str, Any]:
        await self._called("patch", resource, namespace)
        if name not in self.events:
            raise NotFound(name, status=404)
        self.events[name].update(body)
        return self.events[name]

    async def _called(self, verb: str, resource: Resource, namespace: str) -> None:
        assert (resource, namespace) == (EVENTS, "team")
        self.calls.append(verb)
        await asyncio.sleep(self.latency)
        if self.fail is not None:
            raise self.fail

    @property
    def told(self) -> list[tuple[str, int]]:
        return [(event["reason"], event["count"]) for event in self.events.values()]


class Rig:
    def __init__(self, group: str = "kfp-operator.dev") -> None:
        self.api, self.metrics = Api(), Metrics()
        self.recorder = EventRecorder(
            self.api, Names(group), self.metrics, now=lambda: datetime(2026, 3, 1, tzinfo=UTC) + timedelta(seconds=now()), clock=now
        )

    def counted(self, result: str) -> float:
        return self.metrics.registry.get_sample_value("kfp_operator_kube_events_total", {"result": result}) or 0.0

    async def all_told(self, number: int) -> None:
        await simulated_time.until(lambda: self.counted("written") + self.counted("failed") == number, within=1000)


def run(**metadata: str) -> Run:
    return builders.run(**metadata)


def simulate(main: Coroutine[Any, Any, None]) -> None:
    simulated_time.run(main)


def test_an_event_is_about_its_object_and_says_who_tells_it() -> None:
    async def main() -> None:
        rig = Rig("ml.example.org")
        async with rig.recorder.running():
            rig.recorder.warning(run(), "SpecRefused", "no such pipeline")
        ((name, event),) = rig.api.events.items()
        assert re.fullmatch(r"train-1\.[0-9a-f]{16}", name)
        assert event["metadata"] == {"name": name, "namespace": "team"}
        assert event["involvedObject"] == {
            "apiVersion": "ml.example.org/v1beta1",
            "kind": "Run",
            "namespace": "team",
            "name": "train-1",
            "uid": "uid-1",
            "resourceVersion": "1",
        }
        assert (event["type"], event["reason"], event["message"], event["count"]) == ("Warning", "SpecRefused", "no such pipeline", 1)
        assert event["firstTimestamp"] == event["lastTimestamp"] == "2026-03-01T00:16:40Z"
        assert event["source"]["component"] == event["reportingComponent"] == "kfp-operator"
        assert event["source"]["host"] == event["reportingInstance"] != ""
        assert rig.counted("written") == 1

    simulate(main())


def test_an_event_that_repeats_is_counted_on_the_first_one() -> None:
    async def main() -> None:
        rig = Rig()
        async with rig.recorder.running():
            for number in range(1, 4):
                rig.recorder.normal(run(), "Waiting", "for Provider mlops/local")
                await rig.all_told(number)
        (event,) = rig.api.events.values()
        assert event["count"] == 3
        assert rig.api.calls == ["create", "patch", "patch"]
        assert event["firstTimestamp"] == "2026-03-01T00:16:40Z"
        assert event["lastTimestamp"] >= event["firstTimestamp"]

    simulate(main())


@pytest.mark.parametrize(
    "other",
    [
        lambda recorder: recorder.normal(run(uid="uid-2"), "Waiting", "x"),
        lambda recorder: recorder.warning(run(), "Waiting", "x"),
        lambda recorder: recorder.normal(run(), "Started", "x"),
        lambda recorder: recorder.normal(run(), "Waiting", "y"),
    ],
    ids=["object", "type", "reason", "message"],
)
def test_what_differs_is_another_event(other: Any) -> None:
    async def main() -> None:
        rig = Rig()
        async with rig.recorder.running():
            rig.recorder.normal(run(), "Waiting", "x")
            other(rig.recorder)
        assert rig.api.calls == ["create", "create"]

    simulate(main())


def test_after_the_window_an_event_is_a_new_one() -> None:
    async def main() -> None:
        rig = Rig()
        async with rig.recorder.running():
            rig.recorder.normal(run(), "Waiting", "x")
            await rig.all_told(1)
            await asyncio.sleep(WINDOW + 1)
            rig.recorder.normal(run(), "Waiting", "x")
        assert rig.api.told == [("Waiting", 1), ("Waiting", 1)]

    simulate(main())


def test_an_event_that_somebody_deleted_is_made_again() -> None:
    async def main() -> None:
        rig = Rig()
        async with rig.recorder.running():
            rig.recorder.normal(run(), "Waiting", "x")
            await rig.all_told(1)
            rig.api.events.clear()
            await asyncio.sleep(1)
            rig.recorder.normal(run(), "Waiting", "x")
            await rig.all_told(2)
            rig.recorder.normal(run(), "Waiting", "x")
        assert rig.api.told == [("Waiting", 2)]

    simulate(main())


def test_an_object_that_says_too_much_is_muted_and_others_are_not() -> None:
    async def main() -> None:
        rig = Rig()
        async with rig.recorder.running():
            for number in range(BURST + 5):
                rig.recorder.normal(run(), "Noise", str(number))
            rig.recorder.normal(run(uid="uid-2"), "Quiet", "x")
            await rig.all_told(BURST + 1)
            assert rig.counted("dropped") == 5
            await asyncio.sleep(300)
            rig.recorder.normal(run(), "Noise", "again")
            rig.recorder.normal(run(), "Noise", "and again")
            await rig.all_told(BURST + 2)
        assert rig.counted("dropped") == 6
        assert ("Quiet", 1) in rig.api.told

    simulate(main())


def test_all_objects_together_are_held_to_ten_a_second() -> None:
    async def main() -> None:
        rig = Rig()
        async with rig.recorder.running():
            began = now()
            for number in range(110):
                rig.recorder.normal(run(uid=f"uid-{number}"), "Started", "x")
            await rig.all_told(110)
            assert 9.9 <= now() - began <= 10.5

    simulate(main())


def test_recording_never_waits_for_an_api_server_that_does_not_answer() -> None:
    async def main() -> None:
        rig = Rig()
        rig.api.latency = 30.0
        async with rig.recorder.running():
            began = now()
            for number in range(QUEUED + 10):
                rig.recorder.normal(run(uid=f"uid-{number}"), "Started", "x")
            assert now() == began
            assert rig.counted("dropped") == 10
        assert now() - began == pytest.approx(DRAIN)
        assert rig.counted("dropped") + rig.counted("failed") == QUEUED + 10, "what is left at the end is counted too"

    simulate(main())


@pytest.mark.parametrize("error", [Forbidden("the namespace is being terminated", status=403), ClusterUnavailable("no answer")])
def test_what_cannot_be_written_is_counted_and_the_next_is_written(error: ClusterError) -> None:
    async def main() -> None:
        rig = Rig()
        rig.api.fail = error
        async with rig.recorder.running():
            rig.recorder.normal(run(), "Lost", "x")
            await rig.all_told(1)
            assert (rig.counted("failed"), rig.counted("written")) == (1, 0)
            rig.api.fail = None
            rig.recorder.normal(run(), "Told", "x")
        assert rig.api.told == [("Told", 1)]

    simulate(main())


def test_what_is_recorded_last_is_written_before_the_end() -> None:
    async def main() -> None:
        rig = Rig()
        rig.api.latency = 0.1
        async with rig.recorder.running():
            for number in range(10):
                rig.recorder.normal(run(), "Last", str(number))
        assert len(rig.api.events) == 10
        rig.recorder.normal(run(), "After", "the end")  # is not an error

    simulate(main())


@pytest.mark.parametrize(
    ("name", "message"),
    [("a" * 253, "x" * 2000), (("b." * 127)[:253], "é" * 2000), ("c", "\udc80"), ("d", "")],
)
def test_names_and_messages_keep_to_the_bounds_of_the_api(name: str, message: str) -> None:
    async def main() -> None:
        rig = Rig()
        async with rig.recorder.running():
            rig.recorder.normal(run(name=name), "Long", message)
        ((found, event),) = rig.api.events.items()
        assert len(found) <= 253
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", found)
        assert len(event["message"].encode()) <= 1024
        assert event["message"].endswith("…") == (len(message) > 1024)

    simulate(main())
