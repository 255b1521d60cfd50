"""Scenarios that run beside one another, because most of their time is waiting for what the operator does after so many seconds.

A module decorates its tests with `scenario`; the first that runs starts all those of the module that were selected, a few at a time,
and each test waits for its own. Every scenario has a namespace, a NATS server and a state folder of its own, on the backend that its
parameter `backend` names if it has one; but in a module with a function `prepare` they share one `Bench` with an operator that runs,
which that function gets first, and name their objects themselves.
"""

import contextlib
import functools
import inspect
import re
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import Cluster, NatsServer
from tests.doubles.mlmd.engine import Mlmd
from tests.integration.operator.backends import backend
from tests.integration.operator.harness import Bench

AT_ONCE = 6
WITHIN = 240.0


class Together:
    """The scenarios of one module."""

    def __init__(self, cluster: Cluster, folder: Path, items: list[pytest.Function], shared: Bench | None, mlmd: Mlmd | None) -> None:
        self._cluster = cluster
        self._mlmd = mlmd
        self._folder = folder
        self._shared = shared
        self._executor = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="scenario")
        self._futures: dict[str, Future[None]] = {item.nodeid: self._executor.submit(self._live, item) for item in items}

    def wait(self, nodeid: str) -> None:
        """Return when the scenario has ended well; raise what it raised."""
        self._futures[nodeid].result(WITHIN)

    def close(self) -> None:
        """Begin no more, and wait for those that have begun."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _live(self, item: pytest.Function) -> None:
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        if self._shared is not None:
            chosen = str(parameters.get("backend", self._shared.backend.name))
            item.function.scenario(self._shared.on(chosen), **parameters)
            return
        name = f"test-{secrets.token_hex(4)}"
        folder = self._folder / re.sub(r"\W+", "-", item.name)[-60:]
        folder.mkdir()
        self._cluster.kubectl("create", "namespace", name)
        try:
            with (
                NatsServer() as nats,
                backend(str(parameters.get("backend", "local")), self._cluster, name, folder, self._mlmd) as chosen,
                contextlib.closing(Bench(self._cluster, name, nats, folder, backend=chosen)) as bench,
            ):
                item.function.scenario(bench, **parameters)
        finally:
            discard(self._cluster, name)
            self._cluster.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


def scenario(function: Callable[..., None]) -> Callable[..., None]:
    """Make a test of a function that takes a `Bench` and parameters: it runs beside the other scenarios of its module."""

    @functools.wraps(function)
    def test(together: Together, request: pytest.FixtureRequest, **_: Any) -> None:
        together.wait(request.node.nodeid)

    given = list(inspect.signature(function).parameters.values())[1:]
    fixtures = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in ("together", "request")]
    test.__signature__ = inspect.Signature([*(p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in given), *fixtures])
    test.scenario = function
    return test


def discard(cluster: Cluster, namespace: str) -> None:
    """Take finalizers off what is left in the namespace, so that it can go: no operator will."""
    for resource in ("mlr", "mlp", "mlexp", "mlprv"):
        names = cluster.kubectl("get", resource, "-n", namespace, "-o", "name").stdout.split()
        if names:
            patch = '{"metadata":{"finalizers":null}}'
            cluster.kubectl("patch", *names, "-n", namespace, "--type=merge", "-p", patch, check=False)


def mlmd_of(request: pytest.FixtureRequest) -> Mlmd | None:
    """The metadata store, if a scenario of the module runs on Kubeflow Pipelines."""
    items = (i for i in request.session.items if isinstance(i, pytest.Function) and i.module is request.module)
    wanted = any(hasattr(i, "callspec") and i.callspec.params.get("backend") == "kubeflow" for i in items)
    return request.getfixturevalue("mlmd") if wanted else None


@contextlib.contextmanager
def starting(request: pytest.FixtureRequest, cluster: Cluster, folder: Path) -> Iterator[Together]:
    """Start the scenarios of the module of this request."""
    items = [i for i in request.session.items if isinstance(i, pytest.Function) and i.module is request.module]
    shared = None
    if hasattr(request.module, "prepare"):
        shared = request.getfixturevalue("shared")
        request.module.prepare(shared)
    scenarios = [i for i in items if hasattr(i.function, "scenario")]
    together = Together(cluster, folder, scenarios, shared, mlmd_of(request))
    try:
        yield together
    finally:
        together.close()
