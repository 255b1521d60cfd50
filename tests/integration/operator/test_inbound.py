"""The whole operator takes events from outside, with and without the Lease, and tells about it."""

import hashlib
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from kfp_operator.cli.exits import ExitCode
from tests.cluster.ports import free_port
from tests.doubles.deliveries import SECRET, github_headers, payload
from tests.doubles.inbound_port import event
from tests.integration.cli.shell import Shell
from tests.integration.operator.bus import Reader
from tests.integration.operator.harness import Bench
from tests.waiting import eventually

TOKEN = "a-token-that-is-nowhere-else"


def post(port: int, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, Any]:
    """Status and document of the answer; 0 while nothing answers."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=body, headers=dict(headers), method="POST")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 -- the scheme is written above
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())
    except OSError as error:
        return 0, str(error)


def send(port: int, **changes: Any) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/cloudevents+json"}
    return post(port, "/v1/events", json.dumps(event(**changes)).encode(), headers)


def senders(folder: Path, namespace: str) -> Path:
    (folder / "secret").write_text(SECRET)
    token = {"name": "test", "sha256": hashlib.sha256(TOKEN.encode()).hexdigest(), "namespaces": [namespace]}
    hook = {"namespace": namespace, "name": "penguins", "type": "github", "secretFile": "secret"}
    file = folder / "senders.yaml"
    file.write_text(yaml.safe_dump({"tokens": [token], "connections": [hook]}))
    return file


def test_every_process_takes_events_and_a_sender_survives_an_outage(bench: Bench, reader: Reader, tmp_path: Path) -> None:
    file = senders(tmp_path, bench.namespace)
    ports = {"leader": free_port(), "standby": free_port()}
    operators = {name: bench.operator(name, inbound={"port": port, "tokensFile": str(file)}) for name, port in ports.items()}
    operators["leader"].start().wait_ready()
    operators["standby"].start().wait_ready()
    assert "waits for the Lease" in operators["standby"].readiness()[1]
    for name, operator in operators.items():
        assert f"[+] inbound: port {ports[name]}, 1 tokens, 1 connections" in operator.readiness()[1]

    assert [send(port)[1]["events"][0]["duplicate"] for port in ports.values()] == [False, True]
    body = payload("github-push")
    assert post(ports["standby"], f"/hooks/{bench.namespace}/penguins", body, github_headers(body))[0] == 202

    shell = Shell(tmp_path)
    args = ["--kind", "alert_info", "--ref", "alerts.Drift", "--id", "1", "--url", f"http://127.0.0.1:{ports['leader']}"]
    assert shell.run("events", "publish", *args, env={"KFP_OPERATOR_TOKEN": TOKEN}).exit_code == ExitCode.OK
    assert shell.run("events", "publish", *args, "--token", "another").exit_code == ExitCode.UNAVAILABLE

    kinds = [found["data"]["kind"] for found in reader.events("inbound")]
    assert kinds == ["connection_dataset_version", "connection_git_commit", "alert_info"]
    assert operators["leader"].metric("kfp_operator_inbound_events_total", result="stored", sender="token test") == 2
    assert operators["standby"].metric("kfp_operator_inbound_events_total", result="duplicate", sender="token test") == 1

    bench.nats.kill()
    assert send(ports["leader"], id="8")[0] == 503
    bench.nats.start()
    eventually(lambda: send(ports["leader"], id="8")[0] == 202, 30, "events are taken again")
    assert len(reader.events("inbound")) == 4

    file.write_text("tokens: []")
    eventually(lambda: send(ports["leader"], id="9")[0] == 401, 20, "the token is revoked")
    for operator in operators.values():
        log = operator.log.read_text()
        assert [word for word in (TOKEN, SECRET, "Ada Lovelace") if word in log] == []
        assert operator.stop() == 0, operator.tail()
        assert "Traceback" not in log


@pytest.mark.parametrize(
    ("text", "told"),
    [("tokens: {", "is not YAML"), ("tokens: [{name: x}]", "tokens[0].sha256: Field required"), (None, "cannot be read: No such file")],
)
def test_senders_that_cannot_be_used_keep_it_from_starting(bench: Bench, tmp_path: Path, text: str | None, told: str) -> None:
    if text is not None:
        (tmp_path / "senders.yaml").write_text(text)
    operator = bench.operator(inbound={"port": free_port(), "tokensFile": str(tmp_path / "senders.yaml")}).start()
    assert operator.wait_end() == ExitCode.USAGE
    assert told in operator.log.read_text()
