"""Providers are opened, checked and watched; what goes wrong in any of it is a Check that says so."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from typing import Self

import pytest

from kfp_operator.api.provider import Provider as Resource
from kfp_operator.errors import InvalidSpec, Permanent, Retryable
from kfp_operator.operator import backends as module
from kfp_operator.operator.backends import Backends
from kfp_operator.operator.backoff import backoff
from kfp_operator.providers.protocol import Provider, RunUpdate
from tests import builders as b
from tests.doubles.world import Fate, SimulatedBackend
from tests.waiting import eventually_async

NAME = "mlops/local"


class Watched(SimulatedBackend):
    """A provider whose watches wait for what the test puts in: an update is told, an error ends the watch."""

    def __init__(self) -> None:
        super().__init__(Fate(), lambda: b.NOW)
        self.news: asyncio.Queue[RunUpdate | Exception | None] = asyncio.Queue()
        self.begun = 0
        self.trouble: Exception | None = None
        self.closed = False

    async def check(self) -> None:
        if self.trouble is not None:
            raise self.trouble

    async def close(self) -> None:
        self.closed = True

    async def watch_runs(self) -> AsyncIterator[RunUpdate]:
        self.begun += 1
        while (item := await self.news.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item


class Rig:
    """Backends, and what they were given and told."""

    def __init__(self, open_: Callable[[Resource], Provider] | None = None) -> None:
        self.time = b.NOW
        self.provider = Watched()
        self.updates: list[str] = []
        self.troubled: list[str] = []
        self.pauses: list[float] = []
        self.backends = Backends(
            open_ or (lambda _: self.provider),
            now=self.now,
            on_update=self.updates.append,
            on_trouble=self.troubled.append,
            pause=self.pause,
        )

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await asyncio.sleep(0)

    def now(self) -> datetime:
        return self.time

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.backends.close_all()


def resource(generation: int = 1) -> Resource:
    found = b.provider().resource
    return found.model_copy(update={"metadata": found.metadata.model_copy(update={"generation": generation})})


@pytest.mark.parametrize(
    ("error", "reason", "permanent"),
    [
        (Retryable("503", reason="ServerBusy"), "ServerBusy", False),
        (Permanent("no kfp", reason="KfpMissing"), "KfpMissing", False),
        (InvalidSpec("wrong", field="spec.parameters"), "InvalidSpec", True),
        (OSError("no route"), "ProviderUnavailable", False),
    ],
)
async def test_a_provider_that_cannot_be_used_says_why(error: Exception, reason: str, permanent: bool) -> None:
    async with Rig() as rig:
        rig.provider.trouble = error
        check = await rig.backends.check(resource())
        assert (check.ok, check.reason, check.permanent) == (False, reason, permanent)
        assert str(error) in check.message
        rig.provider.trouble = None
        assert (await rig.backends.check(resource())).ok


async def test_a_type_that_fails_to_open_is_told_instead_of_retried_in_silence() -> None:
    def broken(_: Resource) -> Provider:
        raise TypeError("open() takes 1 positional argument")

    async with Rig(broken) as rig:
        check = await rig.backends.check(resource())
        assert (check.ok, check.reason) == (False, "ProviderFailed")
        assert check.message == "type local failed: TypeError: open() takes 1 positional argument"


async def test_an_edited_provider_is_closed_and_opened_anew() -> None:
    opened: list[Watched] = []

    def open_(_: Resource) -> Provider:
        opened.append(Watched())
        return opened[-1]

    async with Rig(open_) as rig:
        await rig.backends.check(resource())
        await rig.backends.check(resource())
        assert len(opened) == 1
        await rig.backends.check(resource(generation=2))
        assert len(opened) == 2
        assert opened[0].closed


async def test_updates_wake_their_runs_and_the_latest_is_kept() -> None:
    async with Rig() as rig:
        await rig.backends.check(resource())
        for update in (b.update("queued"), b.update("queued", "running")):
            rig.provider.news.put_nowait(update)
        await eventually_async(lambda: rig.updates == ["sub", "sub"], 5, "both are told")
        backend = rig.backends.get(NAME)
        assert backend is not None
        assert backend.latest["sub"].state == "running"


async def test_a_watch_that_keeps_failing_is_the_providers_trouble_until_it_lasts() -> None:
    async with Rig() as rig:
        await rig.backends.check(resource())
        for n in range(module.WATCH_FAILURES):
            rig.provider.news.put_nowait(b.update("running"))
            rig.provider.news.put_nowait(KeyError("state") if n % 2 else Retryable("disk full"))
        await eventually_async(lambda: rig.troubled == [NAME], 10, "the trouble is told once")
        check = rig.backends.check_of(NAME)
        assert check is not None
        assert (check.ok, check.reason, check.message) == (False, "WatchFailed", "its runs cannot be watched: disk full")
        assert not (await rig.backends.check(resource())).ok, "an answer to the check does not make up for it"
        await eventually_async(lambda: rig.provider.begun == module.WATCH_FAILURES + 1, 10, "the watch begins again")
        assert not (await rig.backends.check(resource())).ok
        rig.time += timedelta(seconds=10)
        assert (await rig.backends.check(resource())).ok
        rig.provider.news.put_nowait(None)
        await eventually_async(lambda: rig.provider.begun == module.WATCH_FAILURES + 2, 10, "a watch that ends begins again")
        assert rig.troubled == [NAME], "one end after a long time is no trouble"
        assert rig.pauses == [1, 2, 4, 1]


def test_a_wait_grows_to_its_bound_and_has_no_end() -> None:
    """2.0**1024 is no float: an outage of some hours would have ended whoever computed it."""
    assert [backoff(n, most=30) for n in (1, 2, 5, 6, 100_000)] == [1, 2, 16, 30, 30]
