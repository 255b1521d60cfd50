import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from kfp_operator.cli import publishing
from kfp_operator.cli.exits import ExitCode
from kfp_operator.errors import BusError, BusUnavailable, ConfigurationError
from kfp_operator.events import inbound
from kfp_operator.events.inbound import Inbound
from kfp_operator.schemas import V1EventKind
from tests.doubles.deliveries import SECRET
from tests.doubles.inbound_port import TOKENS, Port
from tests.unit.cli.invoking import invoke

KIND = ("--kind", "connection_dataset_version", "--ref", "connections.penguins")


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", SECRET)


def made(**payload: Any) -> Inbound:
    return inbound.make("team-a", V1EventKind.ALERT_INFO, "alerts.Drift", payload, source="/s", id_="1")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], {}),
        (["version=7", "note=a=b", "empty="], {"version": "7", "note": "a=b", "empty": ""}),
        (['{"rows": 344, "tags": ["a"]}'], {"rows": 344, "tags": ["a"]}),
        (["rows=1", '{"rows": 2}', "more=3"], {"rows": 2, "more": "3"}),
        (["@-"], {"from": "stdin"}),
    ],
)
def test_data_is_text_json_or_a_file(given: list[str], expected: dict[str, Any]) -> None:
    assert publishing.payload(given, '{"from": "stdin"}') == expected


def test_data_may_be_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text('{"accuracy": 0.97}')
    assert publishing.payload([f"@{tmp_path}/metrics.json"]) == {"accuracy": 0.97}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("version", "'version' is not name=value, a JSON object, or @FILE with one"),
        ("=7", "'=7' is not name=value"),
        ("{", "--data: not JSON"),
        ("@/no/such/file", "cannot read /no/such/file: No such file or directory"),
        ("@-", "@-: not JSON"),
    ],
)
def test_data_that_is_none_is_refused(given: str, told: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        publishing.payload([given])
    assert told in str(caught.value)


async def test_over_http_an_event_is_stored_by_the_operator(tmp_path: Path) -> None:
    async with Port(tmp_path).serving() as port:
        url = f"http://127.0.0.1:{port.server.port}"
        first, again = [await publishing.to_http(f"{url}{path}", TOKENS["team"], "", made()) for path in ("", "/v1/events")]
        assert (first.already, again.already) == (False, True)
        assert port.stored() == [first.subject]
        there = await publishing.to_http(f"{url}/", TOKENS["many"], "team-b", made())
        assert there.subject.startswith("events.inbound.team-b.alert_info.")


async def test_what_the_operator_answers_is_told(tmp_path: Path) -> None:
    async with Port(tmp_path).serving() as port:
        url = f"http://127.0.0.1:{port.server.port}"
        with pytest.raises(BusError, match="HTTP 401: the token is not known"):
            await publishing.to_http(url, "wrong", "", made())
        with pytest.raises(BusError, match="HTTP 403: token team may not send events for namespace 'team-b'"):
            await publishing.to_http(url, TOKENS["team"], "team-b", made())
        with pytest.raises(ConfigurationError, match=r"HTTP 400: token many is good for several namespaces"):
            await publishing.to_http(url, TOKENS["many"], "", made())
        port.bus.down = True
        with pytest.raises(BusUnavailable, match="HTTP 503: events cannot be stored now"):
            await publishing.to_http(url, TOKENS["team"], "", made())
        with pytest.raises(ConfigurationError, match="HTTP 404: that is no answer of an operator's port for events"):
            await publishing.to_http(f"{url}/other", TOKENS["team"], "", made())
    with pytest.raises(BusUnavailable, match=url):
        await publishing.to_http(url, TOKENS["team"], "", made())


@pytest.mark.parametrize("url", ["events.example.org", "ftp://x", "http://", "http://x:99999", "http://[", ""])
async def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"--url: .* is not a URL"):
        await publishing.to_http(url, "t", "", made())


@pytest.mark.parametrize("text", ["", " \n", "two words"])
def test_a_file_without_a_token_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "token").write_text(text)
    with pytest.raises(ConfigurationError, match="does not hold a token"):
        publishing.read_token(tmp_path / "token")


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (KIND, "say which namespace the event is for"),
        (("-n", "a", "--kind", "run_status_done", "--ref", "runs.x"), "'run_status_done' is not one of connection_git_commit"),
        (("-n", "a", "--kind", "alert_info", "--ref", "runs.x"), "alert_info can never come from runs.x"),
        (("-n", "a", *KIND, "--data", "x"), "--data: 'x' is not name=value"),
        (("-n", "A", *KIND), "'A' is not the name of a namespace"),
        (("-n", "a", *KIND, "--id", "a\nb"), "attribute id holds a control character"),
        ((*KIND, "--url", "https://x"), "the operator wants a token: give --token-file"),
        ((*KIND, "--url", "x", "--token", "t"), "'x' is not a URL"),
        ((*KIND, "--url", "https://x", "--token-file", "/no/such"), "cannot read /no/such"),
    ],
)
def test_what_cannot_be_meant_is_wrong_usage(args: tuple[str, ...], told: str) -> None:
    result = invoke("events", "publish", *args)
    assert result.exit_code == ExitCode.USAGE
    assert told in " ".join(result.stderr.replace("│", " ").split())


@contextmanager
def answering(document: object) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server on a thread of its own that accepts everything, its address, and what it was sent."""
    sent: list[dict[str, Any]] = []
    loop = asyncio.new_event_loop()

    async def answer(request: web.Request) -> web.Response:
        sent.append({"token": request.headers["Authorization"], "query": dict(request.query), "event": json.loads(await request.text())})
        return web.json_response(document, status=202)

    async def start() -> web.AppRunner:
        app = web.Application()
        app.router.add_post("/v1/events", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    runner = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    yield f"http://127.0.0.1:{runner.addresses[0][1]}", sent
    asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


def test_the_command_hands_the_event_over_and_tells_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a-token\n")
    with answering({"events": [{"id": "7", "source": "/s", "subject": "events.inbound.team-a.x.1", "duplicate": False}]}) as (url, sent):
        args = ["--url", url, *KIND, "--id", "7", "--data", "version=1"]
        result = invoke("events", "publish", *args, "--token-file", tmp_path / "token", "-n", "team-a")
        assert (result.exit_code, result.stdout) == (ExitCode.OK, "stored  events.inbound.team-a.x.1  id 7\n")
        shown = invoke("events", "publish", *args, "-o", "json", env={"KFP_OPERATOR_TOKEN": "another"})
    assert [(one["token"], one["query"]) for one in sent] == [("Bearer a-token", {"namespace": "team-a"}), ("Bearer another", {})]
    assert sent[0]["event"]["data"] == {"ref": "connections.penguins", "kind": "connection_dataset_version", "version": "1"}
    assert (sent[0]["event"]["id"], sent[0]["event"]["source"]) == ("7", "urn:kfp-operator:cli")
    assert json.loads(shown.stdout) == sent[1]["event"]


def test_what_was_stored_before_is_said_and_is_no_error() -> None:
    with answering({"events": [{"subject": "s", "duplicate": True}]}) as (url, _):
        result = invoke("events", "publish", "--url", url, "--token", "t", *KIND, "--id", "7")
    assert (result.exit_code, result.stdout) == (ExitCode.OK, "stored before  s  id 7\n")


def test_without_an_id_each_call_is_another_event() -> None:
    with answering({"events": [{"subject": "s", "duplicate": False}]}) as (url, sent):
        for _ in range(2):
            invoke("events", "publish", "--url", url, "--token", "t", *KIND)
    assert len({one["event"]["id"] for one in sent}) == 2


def test_kinds_are_completed() -> None:
    from kfp_operator.cli.completion import inbound_kinds

    assert inbound_kinds("alert_") == ["alert_info", "alert_warning", "alert_critical"]
    assert inbound_kinds("run_") == []
