"""Readiness tells what is missing; liveness depends on nothing."""

import re
from collections.abc import Mapping

import aiohttp
import pytest

from kfp_operator.errors import ConfigurationError
from kfp_operator.operator.health import Check, Health
from kfp_operator.operator.metrics import Metrics, Observed

OBSERVED = Observed(
    runs=lambda: {"running": 2, "succeeded": 40},
    queue_depth=lambda: 3,
    queue_delayed=lambda: 4,
    outbox=lambda: 5,
    nats_connected=lambda: True,
    leader=lambda: False,
)


async def get(health: Health, path: str, accept: str = "*/*") -> tuple[int, str, str]:
    url = f"http://127.0.0.1:{health.port}{path}"
    async with aiohttp.ClientSession() as session, session.get(url, headers={"Accept": accept}) as response:
        return response.status, await response.text(), response.headers["Content-Type"]


async def test_what_is_missing_stands_in_readiness_and_liveness_does_not_care() -> None:
    checks: Mapping[str, Check] = {"nats": Check(False, "connecting to nats://nats:4222: refused"), "lease": Check(True, "leads")}
    health = Health(Metrics(), lambda: checks)
    async with health.serving(0, "127.0.0.1"):
        status, text, _ = await get(health, "/readyz")
        assert status == 503
        assert text == "[-] nats: connecting to nats://nats:4222: refused\n[+] lease: leads\nnot ready\n"
        assert (await get(health, "/healthz"))[:2] == (200, "ok\n")
        status, text, kind = await get(health, "/readyz", "application/json")
        assert (status, kind) == (503, "application/json; charset=utf-8")
        assert '"nats": {"ok": false, "text": "connecting to nats://nats:4222: refused"}' in text


async def test_everything_in_order_is_ready() -> None:
    health = Health(Metrics(), lambda: {"lease": Check(True, "waits for the Lease")})
    async with health.serving(0, "127.0.0.1"):
        assert (await get(health, "/readyz"))[:2] == (200, "[+] lease: waits for the Lease\nready\n")


async def test_a_port_in_use_is_a_message_about_the_setting() -> None:
    first, second = Health(Metrics(), dict), Health(Metrics(), dict)
    async with first.serving(0, "127.0.0.1"):
        with pytest.raises(ConfigurationError, match=f"http.port {first.port} cannot be used"):
            async with second.serving(first.port, "127.0.0.1"):
                pass


async def test_metrics_are_served_with_values_read_off_at_the_time_of_asking() -> None:
    metrics = Metrics()
    metrics.observe(OBSERVED)
    metrics.count_request("patch", None, 409, 0.1)
    health = Health(metrics, dict)
    async with health.serving(0, "127.0.0.1"):
        _, text, kind = await get(health, "/metrics")
    assert kind.startswith("text/plain; version=")
    assert 'kfp_operator_runs{state="succeeded"} 40.0' in text
    assert "kfp_operator_workqueue_depth 3.0" in text
    assert "kfp_operator_nats_connected 1.0" in text
    assert "kfp_operator_leader 0.0" in text
    assert 'kfp_operator_api_requests_total{code="409",resource="",verb="patch"} 1.0' in text


def test_names_and_help_pass_the_rules_of_promtool() -> None:
    metrics = Metrics()
    metrics.observe(OBSERVED)
    families = list(metrics.registry.collect())
    assert len(families) > 15
    for family in families:
        assert re.fullmatch(r"kfp_operator(_[a-z]+)+", family.name), "snake case, with our prefix"
        assert family.documentation.endswith((".", "1 or 0.", "1.")), family.name
        for kind in ("counter", "gauge", "histogram", "summary"):
            assert kind not in family.name.split("_"), "no type in a name"
        for unit in ("s", "ms", "sec", "milliseconds", "minutes", "hours", "kb", "mb"):
            assert unit not in family.name.split("_"), "base units, in full"
        if family.type == "histogram":
            assert family.name.endswith("_seconds")
        if family.type != "counter":
            assert not family.name.endswith("_total")
    text = metrics.exposition().decode()
    assert "_created" not in text
    assert len(re.findall(r"^# HELP (\S+)", text, re.MULTILINE)) == len(set(re.findall(r"^# HELP (\S+)", text, re.MULTILINE)))


def test_two_operators_in_one_process_have_metrics_of_their_own() -> None:
    one, other = Metrics(), Metrics()
    one.status_writes.labels(kind="Run").inc()
    assert 'kfp_operator_status_writes_total{kind="Run"} 1.0' in one.exposition().decode()
    assert "status_writes_total{" not in other.exposition().decode()
