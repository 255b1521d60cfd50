"""The port for events from outside, over real sockets, with a bus in memory."""

import asyncio
import json
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme

from kfp_operator.errors import ConfigurationError
from kfp_operator.events import binding, inbound
from kfp_operator.events.http_binding import BATCH_TYPE
from kfp_operator.operator import inbound_server
from kfp_operator.operator.inbound_listener import Limits
from kfp_operator.operator.inbound_server import InboundServer
from kfp_operator.operator.metrics import Metrics
from kfp_operator.settings import InboundSettings, InboundTlsSettings
from tests.doubles.bus import MemoryBus
from tests.doubles.deliveries import NOW, SECRET, bearer, github_headers, gitlab_headers, payload
from tests.doubles.inbound_port import SUBJECTS, TOKENS, Port, event
from tests.waiting import eventually_async

PROMPTLY = 10.0


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", SECRET)


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[Port]:
    async with Port(tmp_path).serving() as made:
        yield made


def subject(id_: str = "7", namespace: str = "team-a") -> str:
    return f"events.inbound.{namespace}.connection_dataset_version.{inbound.digest('/lake', id_)}"


async def test_an_event_is_stored_before_it_is_accepted(port: Port) -> None:
    answer = await port.event(event())
    assert answer.status == 202
    assert answer.document == {"events": [{"id": "7", "source": "/lake", "subject": subject(), "duplicate": False}], "ignored": []}
    (message,) = port.bus.messages("events.inbound.>")
    assert inbound.receive(SUBJECTS, message).data.payload == {"version": "1"}
    assert port.counted("token team", "stored") == 1


async def test_a_repetition_is_accepted_and_stored_once(port: Port) -> None:
    await port.event(event())
    answer = await port.event(event())
    assert (answer.status, answer.document["events"][0]["duplicate"], port.stored()) == (202, True, [subject()])
    assert port.counted("token team", "duplicate") == 1


async def test_binary_mode_and_batches_are_accepted(port: Port) -> None:
    attributes = {"ce-specversion": "1.0", "ce-id": "b", "ce-source": "/lake", "ce-type": "org.kubeflow.pipelines.event"}
    assert (await port.event(event()["data"], **attributes, **{"Content-Type": "application/json"})).status == 202
    answer = await port.event([event(id="1"), event(id="2")], **{"Content-Type": BATCH_TYPE})
    assert [one["id"] for one in answer.document["events"]] == ["1", "2"]
    assert sorted(port.stored()) == sorted(subject(id_) for id_ in ("b", "1", "2"))
    assert (await port.event([], **{"Content-Type": BATCH_TYPE})).document == {"events": [], "ignored": []}


async def test_of_a_batch_with_one_that_is_refused_none_is_stored(port: Port) -> None:
    answer = await port.event([event(), event(id="2", type="other")], **{"Content-Type": BATCH_TYPE})
    assert (answer.status, port.stored()) == (422, [])
    assert answer.detail.startswith("event [1] of the batch: type is 'other'")
    assert port.counted("token team", "refused") == 2


@pytest.mark.parametrize(
    "authorization", ["", "Bearer", "Bearer ", "Basic dG9rZW4=", "Bearer wrong", f"Token {TOKENS['team']}", "Bearer \xe9"]
)
async def test_who_has_no_known_token_is_not_listened_to(port: Port, authorization: str) -> None:
    answer = await port.post("/v1/events", event(), {"Authorization": authorization, "Content-Type": binding.STRUCTURED_TYPE})
    assert (answer.status, port.stored()) == (401, [])
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="kfp-operator"'
    assert answer.headers["Connection"] == "close"


@pytest.mark.parametrize(
    ("token", "query", "status", "namespace"),
    [
        ("team", "", 202, "team-a"),
        ("team", "?namespace=team-a", 202, "team-a"),
        ("team", "?namespace=team-b", 403, ""),
        ("many", "?namespace=team-b", 202, "team-b"),
        ("many", "?namespace=team-c", 403, ""),
        ("many", "", 400, ""),
        ("many", "?namespace=", 400, ""),
        ("alerts", "", 403, ""),
    ],
)
async def test_a_token_is_good_for_its_namespaces_and_kinds(port: Port, token: str, query: str, status: int, namespace: str) -> None:
    answer = await port.event(event(), token, query)
    assert answer.status == status
    assert port.stored() == ([subject(namespace=namespace)] if namespace else [])


async def test_the_namespace_is_never_taken_from_the_event(port: Port) -> None:
    data = event()["data"] | {"namespace": "team-b"}
    await port.event(event(namespace="team-b", data=data))
    assert port.stored() == [subject()]


@pytest.mark.parametrize(
    ("body", "headers", "status", "told"),
    [
        (b"{", {}, 400, "the body is not JSON"),
        (b"[" * 200_000, {}, 400, "recursion limit"),
        (event(specversion="0.3"), {}, 400, "not a CloudEvent 1.0"),
        (event(), {"Content-Type": "application/json"}, 415, "not a CloudEvent: content-type is application/json"),
        (event(), {"Content-Encoding": "gzip"}, 415, "content-encoding is not supported"),
        (event(data={"ref": "runs.train", "kind": "run_status_done"}), {}, 422, "told by the operator alone"),
        (event(data={"ref": "x", "kind": "alert_info"}), {}, 422, "is not a reference"),
        (event(data=event()["data"] | {"x": "a" * 65536}), {}, 413, "65536 are allowed"),
        (event(subject="a" * 9000), {}, 413, "8192 are allowed"),
        (b" " * (Limits().events_body + 1), {}, 413, "the body is larger than 1048576 bytes"),
        ([event(id=str(n)) for n in range(101)], {"Content-Type": BATCH_TYPE}, 400, "100 are allowed"),
    ],
    ids=["no-json", "deep", "version", "media", "encoding", "internal", "ref", "data", "attributes", "body", "batch"],
)
async def test_what_cannot_be_accepted_is_explained(port: Port, body: object, headers: dict[str, str], status: int, told: str) -> None:
    answer = await port.event(body, **headers)
    assert (answer.status, port.stored()) == (status, [])
    assert told in answer.detail
    assert answer.document["status"] == status


async def test_a_body_without_a_length_is_bounded_too(port: Port) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 100_000

    headers = {"Authorization": f"Bearer {TOKENS['team']}", "Content-Type": binding.STRUCTURED_TYPE}
    async with port.client.post(f"http://127.0.0.1:{port.server.port}/v1/events", data=chunks(), headers=headers) as response:
        assert response.status == 413


async def test_more_events_than_agreed_are_put_off(port: Port) -> None:
    batch = {"Content-Type": BATCH_TYPE}
    assert (await port.event([event(id=str(n)) for n in range(100)], "slow", **batch)).status == 202
    answer = await port.event(event(id="x"), "slow")
    assert (answer.status, answer.headers["Retry-After"], len(port.stored())) == (429, "2", 100)
    assert answer.detail == "more than 0.5 events per second (eventsPerSecond)"
    assert (await port.event(event(id="x"))).status == 202, "others are not held up"
    port.seconds += 2
    assert (await port.event(event(id="y"), "slow")).status == 202


async def test_while_the_bus_is_away_senders_are_told_to_come_back(port: Port) -> None:
    port.bus.down = True
    answer = await port.event(event())
    assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
    assert port.counted("token team", "unavailable") == 1
    port.bus.down = False
    assert (await port.event(event())).status == 202


async def test_without_the_stream_it_is_the_same(port: Port) -> None:
    port.bus.delete_stream(SUBJECTS.stream("inbound"))
    assert (await port.event(event())).status == 503


async def test_after_a_batch_that_was_stored_in_part_the_same_batch_completes_it(port: Port) -> None:
    port.bus.fail("publish", after=1)
    batch = [event(id=str(n)) for n in range(3)]
    assert (await port.event(batch, **{"Content-Type": BATCH_TYPE})).status == 503
    answer = await port.event(batch, **{"Content-Type": BATCH_TYPE})
    assert answer.status == 202
    assert sorted(one["duplicate"] for one in answer.document["events"]) == [False, True, True]
    assert len(port.stored()) == 3


async def test_webhooks_of_every_type_become_events(port: Port) -> None:
    body = payload("github-push")
    assert (await port.post("/hooks/team-a/github", body, github_headers(body))).status == 202
    assert (await port.post("/hooks/team-a/gitlab", payload("gitlab-push"), gitlab_headers())).status == 202
    answer = await port.post("/hooks/team-a/oci-registry", payload("registry-push"), bearer())
    assert answer.document["ignored"] == [{"reason": "mediaType 'application/octet-stream' is not that of a manifest", "count": 1}]
    assert (await port.post("/hooks/team-a/alertmanager", payload("alertmanager"), bearer())).status == 202
    kinds = [one.split(".")[3] for one in port.stored()]
    assert kinds == ["connection_git_commit", "connection_git_commit", "connection_registry_image", "alert_critical"]
    assert port.counted("/hooks/team-a/alertmanager", "ignored") == 1


async def test_a_delivery_that_comes_again_is_stored_once(port: Port) -> None:
    body = payload("github-push")
    answers = [await port.post("/hooks/team-a/github", body, github_headers(body)) for _ in range(2)]
    assert [answer.document["events"][0]["duplicate"] for answer in answers] == [False, True]
    assert len(port.stored()) == 1


async def test_a_delivery_that_says_nothing_is_accepted_with_the_reason(port: Port) -> None:
    answer = await port.post("/hooks/team-a/github", b"{}", github_headers(b"{}", event="ping"))
    assert (answer.status, answer.document["events"]) == (202, [])
    assert "only push becomes an event" in answer.document["ignored"][0]["reason"]


@pytest.mark.parametrize("path", ["/hooks/team-a/github", "/hooks/team-a/nobody", "/hooks/team-b/github", "/hooks/team-a/alertmanager"])
async def test_whoever_lacks_the_secret_learns_nothing(port: Port, path: str) -> None:
    body = payload("github-push")
    answer = await port.post(path, body, github_headers(body, secret="guessed") | bearer("guessed"))
    assert (answer.status, answer.detail) == (401, "there is no connection of that name, or its secret is another one")
    assert port.stored() == []


async def test_an_authentic_delivery_that_is_something_else_is_an_error(port: Port) -> None:
    answer = await port.post("/hooks/team-a/alertmanager", b"{}", bearer())
    assert (answer.status, answer.detail) == (400, "the body is not version 4 of Alertmanager's webhook payload")


async def test_webhooks_are_put_off_as_tokens_are_but_not_by_strangers(port: Port) -> None:
    body = payload("github-push")
    for _ in range(150):
        assert (await port.post("/hooks/team-a/slow", b"{}", github_headers(b"{}", secret="guessed"))).status == 401
    for _ in range(100):
        assert (await port.post("/hooks/team-a/slow", body, github_headers(body))).status == 202
    assert (await port.post("/hooks/team-a/slow", body, github_headers(body))).status == 429


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/events", 405), ("PUT", "/hooks/team-a/github", 405), ("POST", "/", 404), ("POST", "/hooks/a", 404)],
)
async def test_there_is_nothing_else(port: Port, method: str, path: str, status: int) -> None:
    async with port.client.request(method, f"http://127.0.0.1:{port.server.port}{path}") as response:
        assert response.status == status


async def test_requests_are_counted_by_their_answers(port: Port) -> None:
    await port.event(event())
    await port.event(event(), "wrong")
    text = port.metrics.exposition().decode()
    assert 'kfp_operator_inbound_requests_total{code="202",route="events"} 1.0' in text
    assert 'kfp_operator_inbound_requests_total{code="401",route="events"} 1.0' in text


async def test_neither_tokens_nor_payloads_are_logged(port: Port, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = event(data=event()["data"] | {"note": "CONFIDENTIAL"})
    await port.event(secret)
    await port.event(secret, "sent-as-a-token")
    await port.event(json.dumps(secret).encode()[:-1])
    await port.event(secret | {"type": "other"})
    port.bus.down = True
    await port.event(secret)
    await port.post("/hooks/team-a/alertmanager", payload("alertmanager", note="CONFIDENTIAL"), bearer("sent-as-a-secret"))
    reader, writer = await asyncio.open_connection("127.0.0.1", port.server.port)
    writer.write(b"POST /v1/events HTTP/1.1\r\nAuthorization: Bearer CONFIDENTIAL\r\nBad\x00Header: CONFIDENTIAL\r\n\r\n")
    assert b"400" in await asyncio.wait_for(reader.readline(), PROMPTLY)
    writer.close()
    told = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith(("kfp_operator", "aiohttp")))
    assert "/hooks/team-a/alertmanager: a delivery was refused" in told
    assert not [word for word in (TOKENS["team"], SECRET, "CONFIDENTIAL", "sent-as-a-token", "sent-as-a-secret") if word in told]


async def test_a_stranger_cannot_fill_the_log(port: Port, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        await port.post("/hooks/team-a/github", b"{}", {})
    port.seconds += inbound_server.TELL_AGAIN
    await port.post("/hooks/team-a/github", b"{}", {})
    assert len([record for record in caplog.records if "was refused" in record.getMessage()]) == 2


@asynccontextmanager
async def limited(folder: Path, **limits: Any) -> AsyncIterator[Port]:
    async with Port(folder, limits=limits).serving() as port:
        yield port


async def begin(
    port: Port, rest: str, authorization: str = f"Bearer {TOKENS['team']}"
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send the beginning of a request, headers and all that is in `rest`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port.server.port)
    path = "/v1/events" if authorization else "/hooks/team-a/github"
    writer.write(f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\n{rest}".encode())
    await writer.drain()
    return reader, writer


async def test_more_than_the_budget_of_memory_is_put_off(tmp_path: Path) -> None:
    async with limited(tmp_path, budget=2000) as port:
        held = [await begin(port, "Content-Length: 1001\r\n\r\n" + " " * 1000, authorization="") for _ in range(2)]
        await eventually_async(lambda: port.server._strangers.left == 0, PROMPTLY, "the bodies are read")
        ping = github_headers(b"{}", event="ping")
        answer = await port.post("/hooks/team-a/github", b"{}", ping)
        assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
        assert (await port.event(event())).status == 202, "who has a token is served from another budget"
        for _, writer in held:
            writer.close()
        await eventually_async(lambda: port.server._strangers.left == 2000, PROMPTLY, "the memory is free again")
        assert (await port.post("/hooks/team-a/github", b"{}", ping)).status == 202


async def test_a_body_that_breaks_off_is_no_defect_of_ours(port: Port, caplog: pytest.LogCaptureFixture) -> None:
    _, writer = await begin(port, "Content-Length: 100\r\n\r\n{")
    await eventually_async(lambda: port.server._trusted.left < port.limits.budget, PROMPTLY, "the body is read")
    writer.transport.abort()
    counted = 'inbound_requests_total{code="400",route="events"} 1.0'
    await eventually_async(lambda: counted in port.metrics.exposition().decode(), PROMPTLY, "the request is over")
    assert "please report" not in caplog.text


async def test_neither_are_chunks_that_are_none(port: Port, caplog: pytest.LogCaptureFixture) -> None:
    reader, writer = await begin(port, "Transfer-Encoding: chunked\r\n\r\nfoo\r\n")
    assert b" 400 " in await asyncio.wait_for(reader.readline(), PROMPTLY)
    writer.close()
    assert "please report" not in caplog.text


async def test_a_body_that_does_not_come_is_not_waited_for(tmp_path: Path) -> None:
    async with limited(tmp_path, body_within=0.1) as port:
        reader, writer = await begin(port, "Content-Length: 100\r\n\r\n{")
        answer = await asyncio.wait_for(reader.read(), PROMPTLY)
        assert b" 408 " in answer.splitlines()[0]
        assert b"the body did not come within 0.1 s" in answer
        writer.close()


@pytest.mark.parametrize("sent", ["", "POST /v1/events HTTP/1.1\r\nX-Slow: "])
async def test_a_request_that_does_not_come_is_not_waited_for(tmp_path: Path, sent: str) -> None:
    async with limited(tmp_path, request_within=0.1) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port.server.port)
        writer.write(sent.encode())
        assert await asyncio.wait_for(reader.read(), PROMPTLY) == b""
        writer.close()


@asynccontextmanager
async def certified(folder: Path) -> AsyncIterator[tuple[Port, trustme.CA, InboundTlsSettings]]:
    authority = trustme.CA()
    tls = InboundTlsSettings(cert_file=folder / "tls.crt", key_file=folder / "tls.key")
    issue(authority, tls)
    async with Port(folder, tls=tls).serving() as port:
        yield port, authority, tls


def issue(authority: trustme.CA, tls: InboundTlsSettings) -> None:
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(str(tls.key_file))
    certificate.cert_chain_pems[0].write_to_path(str(tls.cert_file))


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def test_over_tls_and_with_a_renewed_certificate(tmp_path: Path) -> None:
    async with certified(tmp_path) as (port, authority, tls):
        url = f"https://127.0.0.1:{port.server.port}/v1/events"
        headers = {"Authorization": f"Bearer {TOKENS['team']}", "Content-Type": binding.STRUCTURED_TYPE}

        async def accepted(by: trustme.CA) -> bool:
            connector = aiohttp.TCPConnector(ssl=trusting(by), force_close=True)
            async with aiohttp.ClientSession(connector=connector) as client:
                try:
                    async with client.post(url, json=event(), headers=headers) as response:
                        return response.status == 202
                except aiohttp.ClientConnectorCertificateError:
                    return False

        assert await accepted(authority)
        assert "with TLS" in port.server.checks()["inbound"].text
        another = trustme.CA()
        assert not await accepted(another)
        issue(another, tls)
        await eventually_async(lambda: accepted(another), PROMPTLY, "the renewed certificate is in use")


async def test_a_certificate_that_does_not_match_is_told_and_not_used(tmp_path: Path) -> None:
    async with certified(tmp_path) as (port, authority, tls):
        trustme.CA().issue_cert("127.0.0.1").cert_chain_pems[0].write_to_path(str(tls.cert_file))  # and the key is still the old one
        await eventually_async(lambda: "tls.key" in port.server.checks()["inbound"].text, PROMPTLY, "readiness tells")
        connector = aiohttp.TCPConnector(ssl=trusting(authority))
        async with aiohttp.ClientSession(connector=connector) as client, client.get(f"https://127.0.0.1:{port.server.port}/") as response:
            assert response.status == 404


async def test_a_certificate_that_cannot_be_used_keeps_it_from_starting(tmp_path: Path) -> None:
    tls = InboundTlsSettings(cert_file=tmp_path / "no.crt", key_file=tmp_path / "no.key")
    with pytest.raises(ConfigurationError, match=r"inbound.tls.certFile, keyFile: .*no.crt"):
        async with Port(tmp_path, tls=tls).serving():
            pass


async def test_a_port_in_use_is_a_message_about_the_setting(port: Port, tmp_path: Path) -> None:
    file = tmp_path / "senders.yaml"
    settings = InboundSettings(port=port.server.port, tokens_file=file)
    other = InboundServer(settings, bus=port.bus, subjects=SUBJECTS, metrics=Metrics(), now=lambda: NOW)
    with pytest.raises(ConfigurationError, match=f"inbound.port {port.server.port} cannot be used"):
        async with other.serving("127.0.0.1"):
            pass


async def test_without_a_port_nothing_is_opened(tmp_path: Path) -> None:
    server = InboundServer(InboundSettings(), bus=MemoryBus(SUBJECTS), subjects=SUBJECTS, metrics=Metrics(), now=lambda: NOW)
    async with server.serving():
        assert (server.port, server.checks()) == (None, {})


async def test_readiness_tells_of_the_port_and_of_a_file_that_cannot_be_used(port: Port, tmp_path: Path) -> None:
    check = port.server.checks()["inbound"]
    assert (check.ok, check.text) == (True, f"port {port.server.port}, 4 tokens, 5 connections")
    (tmp_path / "senders.yaml").write_text("tokens: {")
    await eventually_async(lambda: "is not YAML" in port.server.checks()["inbound"].text, PROMPTLY, "readiness tells")
    assert (await port.event(event())).status == 202


async def test_a_revoked_token_is_refused(port: Port, tmp_path: Path) -> None:
    (tmp_path / "senders.yaml").write_text("tokens: []")

    async def refused() -> bool:
        return (await port.event(event())).status == 401

    await eventually_async(refused, PROMPTLY, "the token is revoked")


async def test_connections_beyond_the_limit_are_closed(tmp_path: Path) -> None:
    async with limited(tmp_path, connections=3) as port:
        held = [await asyncio.open_connection("127.0.0.1", port.server.port) for _ in range(3)]
        reader, writer = await asyncio.open_connection("127.0.0.1", port.server.port)
        assert await asyncio.wait_for(reader.read(), PROMPTLY) == b""
        for _, one in [*held, (reader, writer)]:
            one.close()

        async def served() -> bool:
            try:
                return (await port.event(event())).status == 202
            except aiohttp.ClientError:
                return False

        await eventually_async(served, PROMPTLY, "others are served again")
