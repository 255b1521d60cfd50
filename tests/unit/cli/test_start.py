"""`runs start`: what it asks for, and what it makes of an operator that does not take it up."""

import io
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import timedelta
from typing import Any

import pytest
from rich.console import Console

from kfp_operator.api.run_configuration import RunConfiguration
from kfp_operator.cli import start as starting
from kfp_operator.cli.exits import ExitCode
from kfp_operator.cli.target import Target
from kfp_operator.errors import ConfigurationError, Conflict, NotFound
from kfp_operator.operator.client import Change
from kfp_operator.operator.resources import Kinds, Resource
from kfp_operator.reconcile import run_configuration_manual as manual
from kfp_operator.reconcile.run_configuration_triggers import MANUAL
from kfp_operator.reconcile.starting import occurrence_name
from tests.builders import NAMES
from tests.unit.cli.invoking import invoke
from tests.unit.operator.simulated_time import run as simulate


class Api:
    """One RunConfiguration and Runs, as the client of the API server shows them. `seen` is called after each look."""

    def __init__(self, **status: Any) -> None:
        self.annotation = ""
        self.status: dict[str, Any] = {"observedGeneration": 1} | status
        self.runs: dict[str, dict[str, Any]] = {}
        self.version = 1
        self.conflicts = 0
        self.seen: Callable[[], None] = lambda: None

    def configuration(self) -> dict[str, Any]:
        annotations = {NAMES.start: self.annotation} if self.annotation else {}
        metadata = {
            "name": "nightly",
            "namespace": "team",
            "uid": "uid-nightly",
            "resourceVersion": str(self.version),
            "annotations": annotations,
        }
        return {"metadata": metadata, "spec": {"run": {"pipeline": "train"}}, "status": self.status}

    async def get(self, resource: Resource, name: str, namespace: str = "") -> dict[str, Any]:
        if resource.kind == "RunConfiguration":
            self.seen()
            return self.configuration()
        if name not in self.runs:
            raise NotFound(name, status=404)
        return self.runs[name]

    async def patch(
        self, resource: Resource, name: str, body: Mapping[str, Any], namespace: str = "", *, resource_version: str = ""
    ) -> Any:
        assert resource_version, "a start that somebody else asked for must not be lost"
        if self.conflicts:
            self.conflicts -= 1
            raise Conflict("changed", status=409)
        self.annotation = body["metadata"]["annotations"][NAMES.start]

    async def watch(self, *_: Any, **__: Any) -> AsyncIterator[Change]:
        for _change in ():
            yield Change("", {})

    def take_up(self, *, pending: bool = False, message: str = "") -> None:
        """The operator has seen the annotation."""
        entry = {"name": MANUAL, "baseline": self.annotation, "pending": [self.annotation] if pending else [], "message": message}
        self.status["triggers"] = [entry]


def target(api: Api) -> Target:
    return Target(api, Kinds(), NAMES, "team")  # type: ignore[arg-type]


def run_of(name: str) -> dict[str, Any]:
    conditions = [
        {"type": kind, "status": "True", "reason": "Succeeded", "lastTransitionTime": "2026-03-01T12:00:00Z"}
        for kind in ("Succeeded", "Completed")
    ]
    status = {"state": "succeeded", "completionState": "Succeeded", "attempt": 1, "conditions": conditions}
    return {"metadata": {"name": name, "namespace": "team", "uid": "u"}, "spec": {"pipeline": "train"}, "status": status}


async def test_it_asks_for_a_run_of_this_very_object_and_knows_its_name() -> None:
    api = Api()
    name, text = await starting.start(target(api), "nightly", {"epochs": "3"})
    asked = manual.parse(api.annotation)
    assert api.annotation == text
    assert (asked.uid, asked.parameters) == ("uid-nightly", {"epochs": "3"})
    assert name == occurrence_name(RunConfiguration.parse(api.configuration()), MANUAL, text)


async def test_two_starts_are_two() -> None:
    api = Api()
    first, _ = await starting.start(target(api), "nightly", {})
    api.take_up()
    second, _ = await starting.start(target(api), "nightly", {})
    assert first != second


def test_an_earlier_start_is_taken_up_first() -> None:
    async def work() -> None:
        api = Api()
        api.annotation = "earlier"
        looks = 0

        def seen() -> None:
            nonlocal looks
            looks += 1
            if looks == 3:
                api.take_up()

        api.seen = seen
        await starting.start(target(api), "nightly", {})
        assert looks >= 3

    simulate(work())


def test_without_an_operator_an_earlier_start_is_not_undone() -> None:
    async def work() -> None:
        api = Api()
        api.annotation = "earlier"
        with pytest.raises(Conflict, match="is the operator running"):
            await starting.start(target(api), "nightly", {})
        assert api.annotation == "earlier"

    simulate(work())


async def test_an_object_that_changes_meanwhile_is_looked_at_again() -> None:
    api = Api()
    api.conflicts = 3
    await starting.start(target(api), "nightly", {})
    api.conflicts = 1000
    api.take_up()
    with pytest.raises(Conflict, match="keeps changing"):
        await starting.start(target(api), "nightly", {})


async def test_parameters_that_are_too_long_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"spec\.run\.parameters"):
        await starting.start(target(Api()), "nightly", {"text": "x" * 5000})


def following(api: Api, *, within: float = 60) -> tuple[ExitCode, str]:
    out = io.StringIO()

    async def work() -> ExitCode:
        run, text = await starting.start(target(api), "nightly", {})
        console = Console(file=out, width=200)
        return await starting.follow(target(api), "nightly", run, text, within=timedelta(seconds=within), console=console)

    return simulate(work()), out.getvalue()


def test_it_follows_the_run_to_its_end() -> None:
    api = Api()

    def seen() -> None:
        if api.annotation:
            api.take_up()
            name = occurrence_name(RunConfiguration.parse(api.configuration()), MANUAL, api.annotation)
            api.runs[name] = run_of(name)

    api.seen = seen
    code, told = following(api)
    assert code is ExitCode.OK
    assert "succeeded" in told


def test_it_says_what_the_start_waits_for_and_stops_waiting() -> None:
    api = Api()
    api.seen = lambda: api.take_up(pending=True, message="parameter model: waits for the first run of base") if api.annotation else None
    code, told = following(api)
    assert code is ExitCode.TIMEOUT
    assert told.count("not started yet: parameter model") == 1


def test_it_says_that_no_run_was_started_and_why() -> None:
    api = Api()
    api.seen = lambda: (
        api.take_up(message="started nothing: Run x has not ended, and spec.concurrencyPolicy is Forbid") if api.annotation else None
    )
    code, told = following(api)
    assert code is ExitCode.FAILED
    assert "Forbid" in told


def test_without_an_operator_it_asks_for_one() -> None:
    code, told = following(Api())
    assert code is ExitCode.TIMEOUT
    assert "is the operator running" in told


def test_a_parameter_that_is_given_twice_is_wrong_usage() -> None:
    result = invoke("runs", "start", "nightly", "-p", "a=1", "-p", "a=2")
    assert result.exit_code == ExitCode.USAGE
    assert "a given more than once" in result.stderr


def test_an_annotation_of_any_length_is_recognised_once_it_was_seen() -> None:
    assert manual.baseline("word") == "word"
    assert len(manual.baseline("x" * 5000)) == 71
