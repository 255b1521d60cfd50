"""The start with many settled Runs, and what an operator with nothing to do costs."""

import logging
import subprocess
import sys
import time
from pathlib import Path

from kfp_operator.operator.client import Cluster as Client
from kfp_operator.operator.credentials import load_credentials
from tests.bench import load
from tests.bench.report import Figure
from tests.bench.watched import usage
from tests.cluster import Cluster, NatsServer, Progress
from tests.integration.operator.harness import Operator
from tests.waiting import eventually

_WITHIN = 300.0
_SETTLE = 10.0  # seconds after the start until the idle time begins
_IDLE = 30.0
_log = logging.getLogger(__name__)


async def beginning(cluster: Cluster, nats: NatsServer, folder: Path, count: int, progress: Progress) -> list[Figure]:
    """Start with `count` settled Runs: a bare Kopf, then the operator; then see what it uses while nothing happens."""
    cluster.kubectl("create", "namespace", "settled")
    async with Client(await load_credentials(cluster.kubeconfig)) as client:
        await load.create(client, "settled", "run", count, settled=True, progress=progress)
        started = time.monotonic()
        async for _ in client.list(load.KINDS.run):
            pass
        listed = time.monotonic() - started
    progress.say(f"{count} settled Runs: starting a bare Kopf")
    bare_seconds, bare_memory = _bare_kopf(cluster, count)
    progress.say(f"{count} settled Runs: starting the operator")
    operator = Operator(cluster.kubeconfig, folder, nats=nats.url, log={"level": "info"}, leaderElection={})
    started = time.monotonic()
    with operator:
        eventually(lambda: operator.readiness()[0] == 200, _WITHIN, f"the operator is ready\n{operator.tail()}")
        seconds = time.monotonic() - started
        at_start = usage(operator.pid)
        seen = operator.metric("kfp_operator_runs", state="succeeded")
        progress.say(f"seeing what it uses while nothing happens, for {_IDLE:.0f} s")
        _pause(_SETTLE)
        before, requests = usage(operator.pid), _writes(operator)
        _pause(_IDLE)
        after = usage(operator.pid)
        written = _writes(operator) - requests
    cpu = (after.cpu - before.cpu) / _IDLE
    scale = count / 10_000
    return [
        Figure(f"reading {count} Runs page by page, nothing else", f"{listed:.1f} s"),
        Figure(f"bare Kopf handler: start to {count} Runs seen", f"{bare_seconds:.1f} s, {bare_memory:.0f} MB"),
        Figure(
            f"operator: start to ready, {seen:.0f} Runs seen",
            f"{seconds:.1f} s, {at_start.peak:.0f} MB at most; {seconds / bare_seconds:.1f} times a bare Kopf",
            f"{7 * max(scale, 1):.0f} s, {_memory_bar(count):.0f} MB",
            seen == count and seconds <= 7 * max(scale, 1) and at_start.peak <= _memory_bar(count),
        ),
        Figure(
            "operator with nothing to do",
            f"{after.resident:.0f} MB, {cpu:.2%} of a core",
            "150 MB, 1 % of a core",
            after.resident <= max(150.0, _memory_bar(count)) and cpu <= 0.01,
        ),
        Figure("its writes of Runs and their status over the restart", f"{written:.0f}", "0", written == 0),
    ]


def _memory_bar(count: int) -> float:
    """120 MB for 10 000, 400 MB for 50 000."""
    return max(120.0, 120.0 + (count - 10_000) * 280 / 40_000)


def _bare_kopf(cluster: Cluster, count: int) -> tuple[float, float]:
    """Seconds and peak memory of a bare Kopf until it has seen everything."""
    command = [sys.executable, "-m", "tests.bench.bare_kopf", str(cluster.kubeconfig), str(count)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=root
    ) as process:
        try:
            if process.stdout is None:
                raise AssertionError
            line = process.stdout.readline()
            if not line:
                raise RuntimeError("the bare Kopf ended by itself")
            return float(line), usage(process.pid).peak
        finally:
            process.kill()


def _writes(operator: Operator) -> float:
    return operator.metric("kfp_operator_status_writes_total", kind="Run")


def _pause(seconds: float) -> None:
    """Let time pass: a measurement of nothing."""
    time.sleep(seconds)
