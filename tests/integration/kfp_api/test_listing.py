"""Filters, pages and sorting of lists, with the traps that were found in the real server's."""

import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

import pytest

from tests.integration.kfp_api.site import Clock, Site, site

RUNS = 7


async def filled(s: Site) -> None:
    """Runs run-0 to run-6, which took ten seconds each, one after the other; and two that have just begun."""
    reference = await s.pipeline()
    for number in range(RUNS):
        await s.run(f"run-{number}", reference, display_name=f"name {number}", description=f"owner=ns/{number} a+b 100%")
        s.clock.forward(10)
    for number in (4, 5):
        await s.run(f"late-{number}", reference)


def predicate(operation: str, key: str, **value: Any) -> dict[str, str]:
    return {"filter": quote(json.dumps({"predicates": [{"operation": operation, "key": key, **value}]}))}


async def found(s: Site, **query: str) -> set[str]:
    answer = await s.ask("GET", "/runs", **query)
    assert answer.status == 200, answer.text
    return {r["run_id"] for r in answer.body.get("runs", [])}


def at(clock: Clock, seconds: float) -> str:
    """A moment this long ago."""
    moment = clock()
    clock.forward(-seconds)
    text = clock().strftime("%Y-%m-%dT%H:%M:%SZ")
    clock.forward(seconds)
    assert clock() == moment
    return text


def runs(numbers: Iterable[int]) -> set[str]:
    return {f"run-{n}" for n in numbers}


async def test_states_times_and_texts_are_filtered() -> None:
    async with site() as s:
        await filled(s)
        assert await found(s, **predicate("EQUALS", "state", string_value="SUCCEEDED")) == runs(range(7)), "all of them ended meanwhile"
        assert await found(s, **predicate("IN", "state", string_values={"values": ["PENDING", "RUNNING"]})) == {"late-4", "late-5"}
        assert await found(s, **predicate("EQUALS", "status", string_value="Succeeded")) == runs(range(7))
        recent = predicate("GREATER_THAN_EQUALS", "finished_at", timestamp_value=at(s.clock, 20))
        assert await found(s, **recent) == runs((4, 5, 6)), "what has not ended finished in 1970"
        assert await found(s, **predicate("IS_SUBSTRING", "description", string_value="ns/3")) == runs([3])
        assert await found(s, **predicate("EQUALS", "name", string_value="name 2")) == runs([2])
        assert not await found(s, **predicate("EQUALS", "state", string_value="NONSENSE"))


async def test_predicates_are_anded() -> None:
    async with site() as s:
        await filled(s)
        both = [
            {"operation": "EQUALS", "key": "state", "string_value": "SUCCEEDED"},
            {"operation": "LESS_THAN", "key": "created_at", "timestamp_value": at(s.clock, 45)},
        ]
        assert await found(s, filter=quote(json.dumps({"predicates": both}))) == runs((0, 1, 2))


async def test_a_time_in_a_string_matches_everything_that_has_one() -> None:
    async with site() as s:
        await filled(s)
        garbage = predicate("GREATER_THAN_EQUALS", "finished_at", string_value="2999-01-01T00:00:00Z")
        assert await found(s, **garbage) == runs(range(7))


async def test_a_filter_is_decoded_twice() -> None:
    async with site() as s:
        await filled(s)
        once = json.dumps({"predicates": [{"operation": "IS_SUBSTRING", "key": "description", "string_value": "ns/1 a+b"}]})
        assert not await found(s, filter=once), "the plus became a blank"
        assert await found(s, filter=quote(once)) == runs([1])
        bare = once.replace("a+b", "a+b 100%")
        assert (await s.ask("GET", "/runs", filter=bare)).status == 400


async def test_a_substring_is_a_pattern() -> None:
    async with site() as s:
        await filled(s)
        assert len(await found(s, **predicate("IS_SUBSTRING", "description", string_value="ns%100"))) == RUNS


async def test_pages_are_walked_by_tokens_that_hold_sort_and_filter() -> None:
    async with site() as s:
        await filled(s)
        query = {"page_size": "2", "sort_by": "created_at desc"} | predicate("IS_SUBSTRING", "run_id", string_value="run-")
        seen: list[str] = []
        answer = await s.ask("GET", "/runs", **query)
        total = answer.body["total_size"]
        while True:
            seen += [r["run_id"] for r in answer.body["runs"]]
            token = answer.body.get("next_page_token")
            if not token:
                break
            answer = await s.ask("GET", "/runs", page_token=token, page_size="2")
        assert seen == [f"run-{n}" for n in reversed(range(RUNS))]
        assert total == RUNS


async def test_a_token_does_not_fit_another_list() -> None:
    async with site() as s:
        await filled(s)
        token = (await s.ask("GET", "/runs", page_size="2")).body["next_page_token"]
        assert (await s.ask("GET", "/runs", page_token=token, sort_by="created_at desc")).status == 400
        assert (await s.ask("GET", "/runs", page_token=token, **predicate("EQUALS", "state", string_value="FAILED"))).status == 400


async def test_there_is_no_second_page_when_sorted_by_experiment() -> None:
    async with site() as s:
        await filled(s)
        token = (await s.ask("GET", "/runs", page_size="2", sort_by="experiment_id")).body["next_page_token"]
        assert (await s.ask("GET", "/runs", page_token=token)).status == 400


async def test_archived_runs_are_in_lists_unless_filtered() -> None:
    async with site() as s:
        await filled(s)
        await s.ask("POST", "/runs/run-0:archive", {})
        assert "run-0" in await found(s)
        assert "run-0" not in await found(s, **predicate("EQUALS", "storage_state", string_value="AVAILABLE"))


async def test_a_page_has_twenty_and_at_most_two_hundred() -> None:
    async with site() as s:
        reference = await s.pipeline()
        for number in range(230):
            await s.run(f"r{number}", reference)
        for size, wanted in (("", 20), ("50", 50), ("500", 200)):
            query = {"page_size": size} if size else {}
            assert len((await s.ask("GET", "/runs", **query)).body["runs"]) == wanted


@pytest.mark.parametrize(("operation", "status"), [("EQUALS", 200), ("IS_SUBSTRING", 400)])
async def test_tags_are_filtered_by_equality_only(operation: str, status: int) -> None:
    async with site() as s:
        await s.pipeline("one", tags='{"team":"a"}')
        await s.pipeline("two", tags='{"team":"b"}')
        answer = await s.ask("GET", "/pipelines", **predicate(operation, "tags.team", string_value="a"))
        assert answer.status == status
        if status == 200:
            assert [p["name"] for p in answer.body["pipelines"]] == ["one"]
