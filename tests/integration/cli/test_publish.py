import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from kfp_operator.cli.exits import ExitCode
from kfp_operator.events.streams import Streams
from kfp_operator.events.subjects import Subjects
from kfp_operator.settings import EventsSettings
from tests.cluster import NatsServer, free_port
from tests.doubles.events import check_cloudevent
from tests.integration.cli.shell import Shell
from tests.integration.events.rigs import connected
from tests.integration.operator.bus import Reader

KIND = ("--kind", "connection_dataset_version", "--ref", "connections.penguins")


@pytest.fixture
def shell(tmp_path: Path, nats: NatsServer) -> Shell:
    """Somebody at a terminal who has NATS and no cluster."""
    return Shell(tmp_path, KFPOP_NATS__SERVERS=nats.url)


def make_streams(server: NatsServer, prefix: str = "events") -> None:
    async def work() -> None:
        async with connected(server) as bus:
            await Streams(bus, Subjects(prefix), EventsSettings(prefix=prefix)).ensure()

    asyncio.run(work())


def inbound(server: NatsServer) -> list[dict[str, Any]]:
    return Reader(server.url).events("inbound")


def test_an_event_is_stored_and_its_place_is_told(shell: Shell, nats: NatsServer) -> None:
    make_streams(nats)
    result = shell.run("events", "publish", "-n", "team-a", *KIND, "--data", "version=7", "--data", '{"rows": 344}', "--id", "7")
    (event,) = inbound(nats)
    check_cloudevent({name: value for name, value in event.items() if name != "nats"})
    assert event["data"] == {"ref": "connections.penguins", "kind": "connection_dataset_version", "version": "7", "rows": 344}
    assert (result.exit_code, result.stdout) == (ExitCode.OK, f"stored  {event['nats']}  id 7\n")
    assert event["nats"].startswith("events.inbound.team-a.connection_dataset_version.")


def test_the_same_id_again_is_stored_before(shell: Shell, nats: NatsServer) -> None:
    make_streams(nats)
    for said in ("stored  ", "stored before  "):
        result = shell.run("events", "publish", "-n", "team-a", *KIND, "--id", "7", "--source", "/lake")
        assert (result.exit_code, result.stdout.startswith(said)) == (ExitCode.OK, True)
    assert len(inbound(nats)) == 1


def test_json_is_the_event_that_is_stored(shell: Shell, nats: NatsServer, tmp_path: Path) -> None:
    make_streams(nats)
    (tmp_path / "metrics.json").write_text('{"accuracy": 0.97}')
    args = ["--kind", "model_version_new_metric", "--ref", "models.penguin", "--data", f"@{tmp_path}/metrics.json", "-o", "json"]
    result = shell.run("events", "publish", "-n", "team-a", *args)
    (event,) = inbound(nats)
    assert json.loads(result.stdout) | {"nats": event["nats"]} == event


def test_another_prefix_is_another_place(shell: Shell, nats: NatsServer) -> None:
    make_streams(nats, "ml")
    result = shell.run("events", "publish", "-n", "team-a", *KIND, env={"KFPOP_EVENTS__PREFIX": "ml"})
    assert result.stdout.startswith("stored  ml.inbound.team-a.")


def test_without_a_stream_it_is_told_and_not_stored(shell: Shell) -> None:
    result = shell.run("events", "publish", "-n", "team-a", *KIND)
    assert result.exit_code == ExitCode.UNAVAILABLE
    assert "no stream stores events.inbound.team-a" in result.stderr


def test_without_nats_it_is_told_why(shell: Shell) -> None:
    result = shell.run("events", "publish", "-n", "team-a", *KIND, "--nats", f"nats://127.0.0.1:{free_port()}")
    assert result.exit_code == ExitCode.UNAVAILABLE
    assert "cannot connect" in result.stderr
    result = shell.run("events", "publish", "-n", "team-a", *KIND, env={"KFPOP_NATS__SERVERS": ""})
    assert result.exit_code == ExitCode.USAGE
    assert "no NATS server is known" in result.stderr
