import asyncio
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from aiohttp import web

from kfp_operator.errors import Permanent, Retryable
from kfp_operator.providers.kubeflow.authentication import TokenFile
from kfp_operator.providers.kubeflow.client import LARGEST_ANSWER, AnswerTooLarge
from kfp_operator.providers.kubeflow.errors import Failure, NoAnswer, Refusal
from tests.cluster.ports import free_port
from tests.unit.providers.kubeflow.arrange import FakeClock, client_of, serving

GATEWAY_404 = {
    "code": 5,
    "message": "Failed to get a run: Failed to fetch run 0..1: ResourceNotFoundError: Run 0..1 not found",
    "details": [{"@type": "type.googleapis.com/google.rpc.Status", "code": 5, "message": "Run 0..1 not found"}],
}


async def ask(status: int, body: object = "", *, headers: Mapping[str, str] | None = None, clock: FakeClock | None = None) -> Exception:
    """The error that an answer makes."""
    text = body if isinstance(body, str) else json.dumps(body)

    async def handle(_: web.Request) -> web.Response:
        return web.Response(status=status, text=text, headers=headers)

    async with serving(handle) as url, client_of(url, clock=clock) as client:
        with pytest.raises((Permanent, Retryable)) as caught:
            await client.get("/runs/1", what="get run 1")
        return caught.value


@pytest.mark.parametrize(
    ("status", "body", "kind", "reason", "said"),
    [
        (400, {"code": 3, "message": "a: b", "details": [{"message": "b is wrong"}]}, Refusal, "Refused", "b is wrong"),
        (
            400,
            {"code": 3, "message": 'proto:\N{NO-BREAK SPACE}(line 1:230): unknown field "foo"'},
            Refusal,
            "Refused",
            'unknown field "foo"',
        ),
        (
            400,
            {"error_message": "unknown template format", "error_details": "x\ngo.stack(0x1)"},
            Refusal,
            "Refused",
            "unknown template format",
        ),
        (400, "Invalid input error: Pipeline.Name length cannot exceed 128", Refusal, "Refused", "cannot exceed 128"),
        (404, GATEWAY_404, Refusal, "Refused", "Run 0..1 not found"),
        (404, "<html>nginx</html>", Failure, "InvalidAnswer", "is spec.parameters.endpoint the API server's URL"),
        (501, {"code": 12, "message": "Method Not Allowed", "details": []}, Refusal, "Refused", "Method Not Allowed"),
        (
            500,
            {"code": 13, "message": "a: b\ngo.stack(0x1)", "details": [{"message": "Internal Server Error"}]},
            Failure,
            "ProviderUnavailable",
            "a: b",
        ),
        (503, "<html>no healthy upstream</html>", Failure, "ProviderUnavailable", "answers 503"),
        (401, {"code": 16, "message": "Unauthenticated", "details": []}, Failure, "Unauthenticated", "audience pipelines.kubeflow.org"),
        (
            403,
            {"code": 7, "message": "no", "details": []},
            Failure,
            "PermissionDenied",
            "ClusterRole kubeflow-pipelines-edit in namespace kubeflow",
        ),
        (302, "", Failure, "Redirected", "spec.parameters.endpoint"),
        (200, "<html>log in</html>", Failure, "InvalidAnswer", "web page"),
        (200, '{"runs": [{"run_id"', Failure, "InvalidAnswer", "no JSON that is whole"),
        (200, "[]", Failure, "InvalidAnswer", "no JSON"),
    ],
)
async def test_answers_become_errors_that_say_what_to_do(status: int, body: object, kind: type, reason: str, said: str) -> None:
    error = await ask(status, body)
    assert type(error) is kind
    assert isinstance(error, Refusal | Failure)
    assert error.reason == reason
    assert said in str(error)
    assert "go.stack" not in str(error)
    assert str(error).startswith("get run 1: ")


@pytest.mark.parametrize(("body", "absent"), [(GATEWAY_404, True), ({"code": 5, "message": "Not Found", "details": []}, False)])
async def test_only_a_server_that_would_know_the_run_says_that_it_is_absent(body: object, absent: bool) -> None:
    error = await ask(404, body)
    assert isinstance(error, Refusal)
    assert error.absent is absent


@pytest.mark.parametrize(("code", "exists"), [(6, True), (10, False), (0, True)])
async def test_409_is_not_always_already_exists(code: int, exists: bool) -> None:
    error = await ask(409, {"code": code, "message": "m"} if code else {"error_message": "m"})
    assert isinstance(error, Refusal)
    assert error.exists is exists


@pytest.mark.parametrize(
    ("status", "header", "after"),
    [(429, "7", 7), (503, "30", 30), (429, "Sun, 01 Mar 2026 12:02:00 GMT", 120), (429, "", 5), (429, "soon", 5)],
)
async def test_a_pause_that_the_server_asks_for_is_kept_by_all_requests(status: int, header: str, after: float) -> None:
    clock, asked = FakeClock(), []

    async def handle(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(status=status, headers={"Retry-After": header} if header else {}) if len(asked) == 1 else web.json_response({})

    async with serving(handle) as url, client_of(url, clock=clock) as client:
        with pytest.raises(Failure) as caught:
            await client.get("/a", what="ask")
        assert caught.value.after == after
        with pytest.raises(Retryable, match="asked for a pause"):
            await client.get("/b", what="ask")
        assert len(asked) == 1
        clock.passed += after
        await client.get("/b", what="ask")
    assert len(asked) == 2


async def test_nothing_was_sent_where_nobody_listens() -> None:
    async with client_of(f"http://127.0.0.1:{free_port()}") as client:
        with pytest.raises(NoAnswer, match=r"create run: spec.parameters.endpoint http://127.0.0.1:\d+ does not answer") as caught:
            await client.post("/runs", {}, what="create run")
    assert not caught.value.sent


@pytest.mark.parametrize("how", ["reset", "hang", "half"])
async def test_a_request_without_an_answer_may_have_arrived(how: str) -> None:
    arrived, gone = [], asyncio.Event()

    async def handle(request: web.Request) -> web.StreamResponse:
        arrived.append(await request.text())
        assert request.transport is not None
        if how == "hang":
            await gone.wait()
        response = web.StreamResponse(headers={"Content-Length": "100"})
        if how == "half":
            await response.prepare(request)
            await response.write(b"{")
        request.transport.abort()
        return response

    async with serving(handle) as url, client_of(url, requestTimeoutSeconds=1) as client:
        with pytest.raises(NoAnswer) as caught:
            await client.post("/runs", {"a": 1}, what="create run")
        gone.set()
    assert caught.value.sent
    assert arrived == ['{"a":1}']


async def test_an_endless_answer_is_cut_off() -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(LARGEST_ANSWER // 2**20 + 2):
            await response.write(b" " * 2**20)
        return response

    async with serving(handle) as url, client_of(url) as client:
        with pytest.raises(AnswerTooLarge, match="more than 32 MiB"):
            await client.get("/runs", what="list runs")


async def test_a_rotated_token_fails_no_request(tmp_path: Path) -> None:
    file, seen = tmp_path / "token", []
    file.write_text("old-token")

    async def handle(request: web.Request) -> web.Response:
        seen.append(request.headers["Authorization"])
        file.write_text("new-token")
        return web.json_response({"code": 16, "message": "m"}, status=401) if len(seen) == 1 else web.json_response({"ok": True})

    async with serving(handle) as url, client_of(url, identity=TokenFile(str(file))) as client:
        assert await client.get("/runs", what="list runs") == {"ok": True}
    assert seen == ["Bearer old-token", "Bearer new-token"]


async def test_a_refused_token_is_not_tried_again_and_not_told(tmp_path: Path) -> None:
    file, seen = tmp_path / "token", []
    file.write_text("very-secret-token")

    async def handle(request: web.Request) -> web.Response:
        seen.append(request.headers["Authorization"])
        return web.json_response({"code": 16, "message": "TokenReview of very-secret-token failed"}, status=401)

    async with serving(handle) as url, client_of(url, identity=TokenFile(str(file))) as client:
        with pytest.raises(Failure) as caught:
            await client.get("/runs", what="list runs")
    assert len(seen) == 1
    assert "very-secret-token" not in str(caught.value)


async def test_a_redirect_is_not_followed_with_credentials(tmp_path: Path) -> None:
    file, seen = tmp_path / "token", []
    file.write_text("very-secret-token")

    async def handle(request: web.Request) -> web.Response:
        seen.append(request.path)
        return web.Response(status=302, headers={"Location": "/dex/auth?state=1"})

    async with serving(handle) as url, client_of(url, identity=TokenFile(str(file))) as client:
        with pytest.raises(Failure, match=r"sends elsewhere \(/dex/auth\)"):
            await client.get("/runs", what="list runs")
    assert seen == ["/apis/v2beta1/runs"]


async def test_filters_are_encoded_as_they_are_given() -> None:
    seen = []

    async def handle(request: web.Request) -> web.Response:
        seen.append(request.query["filter"])
        return web.json_response({})

    async with serving(handle) as url, client_of(url) as client:
        await client.get("/runs", {"filter": "a%2Bb+c &d=é%", "page_token": ""}, what="list runs")
    assert seen == ["a%2Bb+c &d=é%"]


async def test_authorities_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    async with client_of("https://127.0.0.1:1", caFile=str(file)) as client:
        with pytest.raises(Retryable, match=f"spec.parameters.caFile {file} cannot be used: No such file"):
            await client.get("/runs", what="list runs")
