import asyncio
from datetime import UTC, datetime

import pytest

from kfp_operator.api.states import RunState
from kfp_operator.errors import Retryable
from kfp_operator.providers.local.feed import Feed
from kfp_operator.providers.protocol import RunUpdate, StateChange


def update(run: str, state: RunState = RunState.RUNNING, message: str = "") -> RunUpdate:
    return RunUpdate(run, run, (StateChange(state, datetime(2026, 1, 1, tzinfo=UTC)),), message=message)


async def taken(feed: Feed, *, join: list[RunUpdate], tell: list[RunUpdate]) -> list[tuple[str, str]]:
    """What a watch hears that begins with `join` while `tell` happens."""
    watcher = feed.join()
    for item in tell:
        feed.tell(item)
    watcher.begin(join)
    feed.end()
    return [(heard.submission_id, heard.message) async for heard in watcher.updates()]


async def test_a_slow_watch_hears_the_latest_of_each_run_once() -> None:
    assert await taken(Feed(), join=[], tell=[update("a", message="1"), update("b"), update("a", message="2")]) == [("b", ""), ("a", "2")]


async def test_what_a_watch_begins_with_does_not_hide_what_came_meanwhile() -> None:
    assert await taken(Feed(), join=[update("a", message="old"), update("b")], tell=[update("a", message="new")]) == [
        ("a", "new"),
        ("b", ""),
    ]


async def test_the_same_is_not_told_twice_in_a_row() -> None:
    feed = Feed()
    watcher = feed.join()
    feed.tell(update("a"))
    heard = watcher.updates()
    assert (await anext(heard)).submission_id == "a"
    feed.tell(update("a"))
    feed.tell(update("b"))
    assert (await anext(heard)).submission_id == "b"


async def test_a_watch_that_left_hears_nothing_and_the_others_all() -> None:
    feed = Feed()
    gone, here = feed.join(), feed.join()
    feed.leave(gone)
    feed.tell(update("a"))
    feed.end()
    assert [heard.submission_id async for heard in here.updates()] == ["a"]


async def test_an_error_ends_a_watch_after_what_was_to_be_told() -> None:
    feed = Feed()
    heard = feed.join().updates()
    feed.tell(update("a"))
    feed.end(Retryable("the disk is full"))
    assert (await anext(heard)).submission_id == "a"
    with pytest.raises(Retryable, match="the disk is full"):
        await anext(heard)


async def test_a_watch_waits_for_the_next_change() -> None:
    feed = Feed()
    waiting = asyncio.ensure_future(anext(feed.join().updates()))
    await asyncio.sleep(0)
    assert not waiting.done()
    feed.tell(update("a"))
    assert (await waiting).submission_id == "a"
