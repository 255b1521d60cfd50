"""Errors that a provider should not raise are told apart from those it may, and all calls are counted."""

from collections.abc import Awaitable, Callable

import pytest

from kfp_operator.errors import InvalidSpec, Permanent, Retryable
from kfp_operator.operator.guarded import GuardedProvider
from kfp_operator.operator.metrics import Metrics
from kfp_operator.providers.protocol import Provider, RunUpdate
from tests import builders as b
from tests.doubles.world import Fate, SimulatedBackend


class Failing(SimulatedBackend):
    """A provider whose get_run raises what it is told to."""

    def __init__(self, error: Exception | None) -> None:
        super().__init__(Fate(), lambda: b.NOW)
        self.error = error

    async def get_run(self, submission_id: str) -> RunUpdate | None:
        if self.error is not None:
            raise self.error
        return b.update("running")


def counted(metrics: Metrics, result: str) -> float:
    labels = {"provider": "mlops/local", "call": "get_run", "result": result}
    return metrics.registry.get_sample_value("kfp_operator_provider_calls_total", labels) or 0.0


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (Retryable("503"), "retryable"),
        (Permanent("no such experiment"), "permanent"),
        (InvalidSpec("wrong", field="spec.x"), "permanent"),
    ],
)
async def test_errors_of_the_protocol_pass_as_they_are(error: Exception, result: str) -> None:
    metrics = Metrics()
    with pytest.raises(type(error)) as raised:
        await GuardedProvider("mlops/local", Failing(error), metrics).get_run("sub")
    assert raised.value is error
    assert counted(metrics, result) == 1


async def test_any_other_error_may_pass_and_names_the_call() -> None:
    metrics = Metrics()
    with pytest.raises(Retryable) as raised:
        await GuardedProvider("mlops/local", Failing(KeyError("run_id")), metrics).get_run("sub")
    assert str(raised.value) == "Provider mlops/local failed in get_run: KeyError: 'run_id'"
    assert raised.value.reason == "ProviderFailed"
    assert counted(metrics, "defect") == 1


async def test_answers_pass_as_they_are() -> None:
    metrics = Metrics()
    inner = Failing(None)
    guarded: Provider = GuardedProvider("mlops/local", inner, metrics)
    assert await guarded.get_run("sub") == b.update("running")
    assert (guarded.statuses, guarded.keeps_pipelines, guarded.keeps_experiments) == (
        inner.statuses,
        inner.keeps_pipelines,
        inner.keeps_experiments,
    )
    calls: list[Callable[[], Awaitable[object]]] = [
        guarded.check,
        guarded.close,
        lambda: guarded.delete_pipeline("p"),
        lambda: guarded.cancel_run("sub"),
    ]
    assert [await call() for call in calls] == [None] * 4
    assert [a.name for a in await guarded.artifacts("sub")] == ["model"]
    assert counted(metrics, "success") == 1
