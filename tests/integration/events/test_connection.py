"""The bus on a real server that is absent, goes away, refuses us, or speaks TLS."""

import asyncio
import base64
import hashlib
import json
import socket
import time
from pathlib import Path
from typing import Any

import nkeys
import pytest
import trustme
from nacl.signing import SigningKey

from kfp_operator.errors import BusError, BusUnavailable, StreamMissing
from kfp_operator.events.jetstream import JetStreamBus
from kfp_operator.events.publisher import store
from kfp_operator.events.streams import Streams
from kfp_operator.settings import EventsSettings, NatsSettings
from tests.cluster import NatsServer
from tests.cluster.ports import free_port
from tests.doubles.events import completion
from tests.integration.events.rigs import SUBJECTS, Reader, connected, until_connected
from tests.waiting import eventually_async

SUBJECT = "events.run-completion.team-a.one.uid.1"


def settings(server: NatsServer, **changes: Any) -> NatsSettings:
    return NatsSettings.model_validate({"servers": [server.url], **changes})


def quick(nats: NatsSettings) -> JetStreamBus:
    return JetStreamBus(nats, ack_wait=1.0, longest_pause=0.3)


async def says(bus: JetStreamBus, text: str) -> None:
    await eventually_async(lambda: text in bus.last_error or None, 10, f"{text!r} is said; last: {bus.last_error!r}")


async def lost(bus: JetStreamBus) -> None:
    await eventually_async(lambda: not bus.connected, 20, "the loss is seen")


async def works(bus: JetStreamBus) -> None:
    await until_connected(bus)
    await Streams(bus, SUBJECTS, EventsSettings()).ensure()
    await store(bus, SUBJECTS, completion())
    assert bus.last_error == ""


async def test_a_bus_ends_at_whatever_moment_of_connecting_it_is_told_to(nats: NatsServer) -> None:
    for step in range(60):
        async with asyncio.timeout(10), quick(settings(nats)):
            await asyncio.sleep(step * 0.0001)  # not to wait for something: to be in the midst of it


# Absent, and back


async def test_a_bus_that_is_absent_at_start_is_used_when_it_comes() -> None:
    with NatsServer(port=free_port()) as server:
        server.stop()
        async with quick(settings(server)) as bus:
            assert not bus.connected
            await says(bus, "cannot connect to nats://127.0.0.1")
            with pytest.raises(BusUnavailable, match="cannot connect"):
                await bus.publish(SUBJECT, b"", {})
            await asyncio.to_thread(server.start)
            await works(bus)


async def test_an_error_does_not_show_the_password_in_a_url() -> None:
    nats = NatsSettings(servers=[f"nats://operator:hunter2@127.0.0.1:{free_port()}"])
    async with quick(nats) as bus:
        await says(bus, "cannot connect to nats://127.0.0.1")
        assert "hunter2" not in bus.last_error


async def test_no_server_at_all_is_a_named_setting() -> None:
    async with quick(NatsSettings()) as bus:
        await says(bus, "nats.servers is empty")


async def test_a_url_that_is_none_is_told() -> None:
    async with quick(NatsSettings(servers=["nats://:x"])) as bus:
        await says(bus, "invalid")


@pytest.mark.parametrize("kill", [False, True], ids=["restart", "kill -9"])
async def test_what_is_stored_and_consumed_survives_the_server(nats: NatsServer, kill: bool) -> None:
    async with connected(nats) as bus:
        await Streams(bus, SUBJECTS, EventsSettings()).ensure()
        reader = Reader(bus.consume("kfp-operator-runs", "projector"))
        await bus.publish(SUBJECT, b"before", {})
        await (await reader.take()).ack()
        await asyncio.to_thread(nats.kill if kill else nats.stop)
        await lost(bus)
        await asyncio.to_thread(nats.start)
        await until_connected(bus)
        await bus.publish(SUBJECT, b"after", {})
        bodies = {(await reader.take()).message.data}
        if b"before" in bodies:  # an acknowledgement that the server had not written down
            bodies = {(await reader.take()).message.data}
        assert bodies == {b"after"}
        assert await bus.last_sequence("kfp-operator-runs") == 2
        await reader.close()


async def test_every_event_is_stored_once_over_several_kills(nats: NatsServer) -> None:
    async with connected(nats) as bus:
        await Streams(bus, SUBJECTS, EventsSettings()).ensure()
        events = [completion(run_uid=f"uid-{number}") for number in range(300)]

        async def keep_storing(mine: list[Any]) -> None:
            for data in mine:
                async with asyncio.timeout(60):
                    while True:
                        try:
                            await store(bus, SUBJECTS, data)
                            break
                        except BusError:
                            await asyncio.sleep(0.02)

        work = [asyncio.create_task(keep_storing(events[start::8])) for start in range(8)]
        for reached in (40, 120, 200):
            await holds(bus, reached)
            await asyncio.to_thread(nats.kill)
            await asyncio.to_thread(nats.start)
        await asyncio.gather(*work)
        await holds(bus, 300)
        assert await bus.last_sequence("kfp-operator-runs") == 300


async def holds(bus: JetStreamBus, count: int) -> None:
    async def enough() -> int:
        stored = await bus.last_sequence("kfp-operator-runs")
        assert stored >= count
        return stored

    stored: int = await eventually_async(enough, 30, f"{count} events are stored", ignoring=(AssertionError, BusError))
    assert stored >= count


async def test_a_publish_while_the_server_is_away_fails_at_once_and_is_never_sent(nats: NatsServer) -> None:
    async with connected(nats) as bus:
        await Streams(bus, SUBJECTS, EventsSettings()).ensure()
        await asyncio.to_thread(nats.stop)
        await lost(bus)
        began = time.monotonic()
        for _ in range(10):
            with pytest.raises(BusUnavailable):
                await bus.publish(SUBJECT, b"late", {})
        assert time.monotonic() - began < 1
        await asyncio.to_thread(nats.start)
        await until_connected(bus)
        await bus.publish(SUBJECT, b"now", {})
        assert await bus.last_sequence("kfp-operator-runs") == 1


async def test_a_request_in_flight_fails_when_the_connection_does(nats: NatsServer) -> None:
    async with connected(nats) as bus:
        await Streams(bus, SUBJECTS, EventsSettings()).ensure()
        nats.pause()
        request = asyncio.create_task(bus.publish(SUBJECT, b"", {}))
        done, _ = await asyncio.wait({request}, timeout=0.3)
        assert not done
        began = time.monotonic()
        await asyncio.to_thread(nats.kill)
        with pytest.raises(BusUnavailable, match="lost"):
            await request
        assert time.monotonic() - began < 2


async def test_a_frozen_server_is_an_unknown_outcome_and_then_goes_on(nats: NatsServer) -> None:
    async with connected(nats) as bus:
        await Streams(bus, SUBJECTS, EventsSettings()).ensure()
        nats.pause()
        with pytest.raises(BusUnavailable, match="no answer within"):
            await bus.publish(SUBJECT, b"", {}, expected_last=0)
        nats.resume()
        await until_connected(bus)
        await holds(bus, 1)  # what was sent is stored after all


async def test_settling_while_the_server_is_away_raises_nothing_and_the_message_comes_again(nats: NatsServer) -> None:
    async with connected(nats) as bus:
        await Streams(bus, SUBJECTS, EventsSettings()).ensure()
        reader = Reader(bus.consume("kfp-operator-runs", "projector"))
        await bus.publish(SUBJECT, b"", {})
        delivery = await reader.take()
        await asyncio.to_thread(nats.stop)
        await lost(bus)
        await delivery.ack()
        await asyncio.to_thread(nats.start)
        again = await reader.take()
        assert again.deliveries >= 1
        await again.ack()
        assert await reader.nothing(1.0)
        await reader.close()


async def test_a_server_without_jetstream_is_told() -> None:
    with NatsServer(jetstream=False) as server:
        async with connected(server) as bus:
            with pytest.raises(BusUnavailable, match="JetStream is not enabled"):
                await Streams(bus, SUBJECTS, EventsSettings()).ensure()
            with pytest.raises(StreamMissing, match="JetStream is not enabled"):
                await bus.publish(SUBJECT, b"", {})


async def test_a_message_larger_than_the_server_takes_is_refused_before_it_is_sent(nats: NatsServer) -> None:
    async with connected(nats) as bus:
        await Streams(bus, SUBJECTS, EventsSettings()).ensure()
        for body, headers in ((b"x" * 1_048_577, {}), (b"x" * 1_048_000, {"reason": "y" * 1000})):
            with pytest.raises(BusError, match="max_payload"):
                await bus.publish(SUBJECT, body, headers)
        assert bus.connected
        await bus.publish(SUBJECT, b"x" * 1_048_000, {})
        message = await bus.last("kfp-operator-runs", SUBJECT)
        assert message is not None
        assert len(message.data) == 1_048_000


# Credentials

USERS = 'authorization { users = [ { user: operator, password: "right" } ] }'


async def test_wrong_credentials_are_told_and_right_ones_are_taken_without_a_restart(tmp_path: Path) -> None:
    password = tmp_path / "password"
    with NatsServer(config=USERS) as server:
        async with quick(settings(server, user="operator", passwordFile=password)) as bus:
            await says(bus, "nats.passwordFile")
            password.write_text("wrong\n")
            await says(bus, "Authorization Violation")
            password.write_text("right\n")
            await works(bus)


async def test_missing_credentials_are_told() -> None:
    with NatsServer(config=USERS) as server:
        async with quick(settings(server)) as bus:
            await says(bus, "Authorization Violation")


async def test_credentials_that_change_while_connected_are_read_anew(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("right")
    with NatsServer(config=USERS) as server:
        async with quick(settings(server, user="operator", passwordFile=password)) as bus:
            await works(bus)
            server.config = USERS.replace("right", "rotated")
            await asyncio.to_thread(server.restart)
            await says(bus, "Authorization Violation")
            password.write_text("rotated")
            await works(bus)


async def test_a_password_without_a_user_is_a_contradiction_that_is_told(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("x")
    async with quick(NatsSettings.model_validate({"servers": ["nats://127.0.0.1:1"], "passwordFile": tmp_path / "password"})) as bus:
        await says(bus, "nats.user is empty")


def seed(prefix: int) -> tuple[str, str]:
    """A new nkey: its seed and its public key."""
    encoded = nkeys.encode_seed(bytes(SigningKey.generate()), prefix)
    pair = nkeys.from_seed(bytearray(encoded))
    return encoded.decode(), pair.public_key.decode()


async def test_an_nkey_is_enough_and_a_new_one_is_taken_without_a_restart(tmp_path: Path) -> None:
    first, first_public = seed(nkeys.PREFIX_BYTE_USER)
    second, second_public = seed(nkeys.PREFIX_BYTE_USER)
    path = tmp_path / "operator.nk"
    path.write_text("garbage")
    config = "authorization {{ users = [ {{ nkey: {} }} ] }}"
    with NatsServer(config=config.format(first_public)) as server:
        async with quick(settings(server, nkeyFile=path)) as bus:
            await says(bus, "nats.nkeyFile")
            path.write_text(first + "\n")
            await works(bus)
            server.config = config.format(second_public)
            await asyncio.to_thread(server.restart)
            await says(bus, "Authorization Violation")
            path.write_text(second)
            await works(bus)


def jwt(issuer: str, subject: str, name: str, claims: dict[str, Any]) -> str:
    """A NATS JWT (version 2), signed with the issuer's seed."""
    pair = nkeys.from_seed(bytearray(issuer.encode()))
    body: dict[str, Any] = {"iat": int(time.time()), "iss": pair.public_key.decode(), "name": name, "sub": subject, "nats": claims}
    body["jti"] = base64.b32encode(hashlib.sha256(json.dumps(body).encode()).digest()).decode().rstrip("=")
    signed = b".".join(_base64(part) for part in ({"typ": "JWT", "alg": "ed25519-nkey"}, body))
    return b".".join([signed, base64.urlsafe_b64encode(pair.sign(signed)).rstrip(b"=")]).decode()


def _base64(document: dict[str, Any]) -> bytes:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=")


async def test_a_creds_file_is_enough(tmp_path: Path) -> None:
    operator_seed, operator = seed(nkeys.PREFIX_BYTE_OPERATOR)
    account_seed, account = seed(nkeys.PREFIX_BYTE_ACCOUNT)
    user_seed, user = seed(nkeys.PREFIX_BYTE_USER)
    unlimited = {"subs": -1, "conn": -1, "leaf": -1, "imports": -1, "exports": -1, "data": -1, "payload": -1, "wildcards": True}
    storage = {"mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1}
    operator_jwt = jwt(operator_seed, operator, "o", {"type": "operator", "version": 2})
    account_jwt = jwt(operator_seed, account, "a", {"type": "account", "version": 2, "limits": {**unlimited, **storage}})
    _, system = seed(nkeys.PREFIX_BYTE_ACCOUNT)
    system_jwt = jwt(operator_seed, system, "system", {"type": "account", "version": 2, "limits": unlimited})
    user_jwt = jwt(account_seed, user, "u", {"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1})
    creds = tmp_path / "operator.creds"
    creds.write_text("not yet")
    preload = f"resolver_preload: {{ {account}: {account_jwt}, {system}: {system_jwt} }}"
    config = f"operator: {operator_jwt}\nsystem_account: {system}\nresolver: MEMORY\n{preload}\n"
    with NatsServer(config=config) as server:
        async with quick(settings(server, credsFile=creds)) as bus:
            await says(bus, "nats.credsFile")
            creds.write_text(
                f"-----BEGIN NATS USER JWT-----\n{user_jwt}\n------END NATS USER JWT------\n\n"
                f"-----BEGIN USER NKEY SEED-----\n{user_seed}\n------END USER NKEY SEED------\n"
            )
            await works(bus)


async def test_what_the_server_forbids_is_told(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("p")
    config = 'authorization { users = [ { user: o, password: p, permissions: { publish: { deny: ["$JS.API.STREAM.CREATE.>"] } } } ] }'
    with NatsServer(config=config) as server:
        async with quick(settings(server, user="o", passwordFile=tmp_path / "password")) as bus:
            await until_connected(bus)
            with pytest.raises(BusUnavailable, match="permissions violation"):
                await Streams(bus, SUBJECTS, EventsSettings()).ensure()
            assert "stream.create" in bus.last_error


# TLS


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


def tls_config(authority: trustme.CA, folder: Path, *, verify: bool = False) -> str:
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    lines = [f'cert_file: "{folder}/server.pem"', f'key_file: "{folder}/server.pem"', f'ca_file: "{folder}/ca.pem"']
    return f"tls {{ {', '.join([*lines, *(['verify: true'] if verify else [])])} }}"


async def test_tls_with_an_authority_of_ones_own(authority: trustme.CA, tmp_path: Path) -> None:
    with NatsServer(config=tls_config(authority, tmp_path)) as server:
        async with quick(settings(server, tls={"caFile": tmp_path / "ca.pem"})) as bus:
            await works(bus)


async def test_a_certificate_of_another_authority_is_refused(authority: trustme.CA, tmp_path: Path) -> None:
    config = tls_config(authority, tmp_path)
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    with NatsServer(config=config) as server:
        async with quick(settings(server, tls={"caFile": tmp_path / "other.pem"})) as bus:
            await says(bus, "CERTIFICATE_VERIFY_FAILED")
            assert not bus.connected


async def test_a_client_certificate(authority: trustme.CA, tmp_path: Path) -> None:
    client = authority.issue_cert("operator@example.com")
    client.private_key_pem.write_to_path(tmp_path / "client.key")
    client.cert_chain_pems[0].write_to_path(tmp_path / "client.pem")
    with NatsServer(config=tls_config(authority, tmp_path, verify=True)) as server:
        files = {"caFile": tmp_path / "ca.pem", "certFile": tmp_path / "client.pem", "keyFile": tmp_path / "client.key"}
        async with quick(settings(server, tls=files)) as bus:
            await works(bus)
        async with quick(settings(server, tls={"caFile": tmp_path / "ca.pem"})) as bus:
            await says(bus, "cannot connect")
            assert not bus.connected


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"caFile": "nowhere.pem"}, "nats.tls.caFile"),
        ({"certFile": "nowhere.pem"}, "go together"),
        ({"certFile": "nowhere.pem", "keyFile": "nowhere.key"}, "nats.tls.certFile"),
    ],
)
async def test_tls_files_that_cannot_be_read_are_named(files: dict[str, str], said: str) -> None:
    async with quick(NatsSettings.model_validate({"servers": ["nats://127.0.0.1:1"], "tls": files})) as bus:
        await says(bus, said)


async def test_a_password_is_never_sent_in_clear_where_tls_is_configured(authority: trustme.CA, tmp_path: Path) -> None:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    (tmp_path / "password").write_text("hunter2")
    received: list[bytes] = []

    async def pretend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","version":"2.15.1","max_payload":1048576,"auth_required":true,"headers":true}\r\n')
        received.append(await reader.read(4096))
        writer.close()

    listener = socket.create_server(("127.0.0.1", 0))
    async with await asyncio.start_server(pretend, sock=listener) as server:
        nats = {
            "servers": [f"nats://127.0.0.1:{listener.getsockname()[1]}"],
            "user": "operator",
            "passwordFile": tmp_path / "password",
            "tls": {"caFile": tmp_path / "ca.pem"},
        }
        async with quick(NatsSettings.model_validate(nats)) as bus:
            await says(bus, "TLS is configured")
        server.close()
    assert received
    assert not any(b"hunter2" in data for data in received)
