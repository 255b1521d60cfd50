"""NATS is absent, gone, frozen, refuses us, loses what it had or holds what strangers put there: runs go on and all is told in the end."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.js.api import StreamConfig

from kfp_operator.api.run import Run
from kfp_operator.events import binding, envelope
from kfp_operator.events.subjects import Subjects
from kfp_operator.operator.client import Cluster
from kfp_operator.schemas import RunCompletion, RunStatus
from tests.integration.operator.backends import BACKENDS
from tests.integration.operator.bus import Reader
from tests.integration.operator.harness import KINDS, Bench, Operator
from tests.integration.operator.together import scenario
from tests.integration.operator.verdict import all_ended_well, ended_well, results, settled, starts
from tests.waiting import eventually

NOW = datetime.now(UTC)
SUBJECTS = Subjects()
RUNS = SUBJECTS.stream("runs")


def waiting(bench: Bench, name: str) -> tuple[dict[str, Any], Path]:
    """A Run that goes on until the file is made."""
    gate = bench.folder / f"{name}.go"
    return bench.run(name, "wait", parameters={"wait_for": str(gate)}), gate


def undelivered(bench: Bench, name: str, within: float = 40) -> str:
    """The message of EventsDelivered=False, once it is there."""

    def shown() -> str:
        found = bench.condition("mlr", name, "EventsDelivered")
        return found["message"] if found is not None and found["status"] == "False" else ""

    return eventually(shown, within, f"the status of {name} says that events are not delivered")


def readiness(operator: Operator, *words: str, within: float = 30) -> str:
    """What /readyz says, once it is not ready and says all these words."""

    def says() -> str:
        code, text = operator.readiness()
        assert code == 503, text
        assert all(word in text for word in words), text
        return text

    return eventually(says, within, f"readiness says {words}")


def store(bench: Bench, subject: str, body: bytes, headers: Mapping[str, str] | None = None) -> None:
    """Store a message, as somebody who may publish there."""

    async def send(client: Client) -> None:
        await client.jetstream().publish(subject, body, headers=dict(headers or {}))

    Reader(bench.nats.url).do(send)


def forge(bench: Bench, data: RunStatus | RunCompletion, subject: str = "") -> None:
    """Store an event that looks like one of the operator."""
    wire = binding.encode(envelope.build(data))
    store(bench, subject or envelope.bus_subject(SUBJECTS, data), wire.body, wire.headers)


def completion_of(run: Run, **changes: Any) -> RunCompletion:
    """A completion of the Run that says that it failed."""
    status, metadata = run.status, run.metadata
    told = {"provider": status.provider, "status": "failed", "state": "failed", "run_name": metadata.full_name, "run_uid": metadata.uid}
    return RunCompletion(**told | {"pipeline_name": f"{metadata.namespace}/scenario", "run_id": status.provider_id} | changes)


def body_of(bench: Bench, name: str) -> dict[str, Any]:
    """A Run as the API server has it."""
    return bench.ask(lambda client: client.get(KINDS.run, name, bench.namespace))


def set_back(bench: Bench, before: dict[str, Any]) -> None:
    """Make a Run what it was, as the restore of a backup does."""
    name = before["metadata"]["name"]
    now = body_of(bench, name)
    labels = {key: before["metadata"]["labels"].get(key) for key in now["metadata"]["labels"]}
    status = {key: before["status"].get(key) for key in now["status"]} | before["status"]

    async def write(client: Cluster) -> None:
        metadata = {"labels": labels, "finalizers": before["metadata"]["finalizers"]}
        await client.patch(KINDS.run, name, {"metadata": metadata}, bench.namespace)
        await client.patch(KINDS.run, name, {"status": status}, bench.namespace, subresource="status")

    bench.ask(write)


@scenario
def test_a_run_that_a_backup_set_back_is_made_right_from_what_the_bus_holds(bench: Bench) -> None:
    operator = bench.operator(leaderElection={"enabled": False}).start()
    bench.prepare()
    document, gate = waiting(bench, "it")
    bench.apply(document)
    bench.wait("it", "running")
    before = body_of(bench, "it")
    gate.touch()
    ended_well(bench, "it", "succeeded")
    assert operator.stop() == 0
    set_back(bench, before)
    assert bench.wait("it", "running").metadata.finalizers
    operator.restart()
    ended_well(bench, "it", "succeeded")


@pytest.mark.parametrize("backend", BACKENDS)
@scenario
def test_runs_run_while_nats_is_absent_and_are_told_when_it_appears(bench: Bench, backend: str) -> None:
    bench.nats.stop()
    operator = bench.operator().start()
    bench.prepare()
    readiness(operator, "[-] nats: cannot connect to nats://127.0.0.1")
    bench.apply(bench.run("early"), bench.run("bad", "raise"), bench.run("refused", parameters={"unknown": 1}))
    assert "event bus" in undelivered(bench, "early")
    run = bench.get("early")
    assert run is not None
    eventually(lambda: starts(bench)[run.metadata.uid], 30, "the run began without NATS")
    assert operator.metric("kfp_operator_events_outbox_pending") == 3
    bench.nats.start()
    all_ended_well(bench, {"early": "succeeded", "bad": "failed", "refused": "failed"})
    operator.wait_ready()


@scenario
def test_a_process_that_cannot_ask_what_was_told_of_a_run_does_not_start_it(bench: Bench) -> None:
    operator = bench.operator(fault="bound", leaderElection={"enabled": False}).start()
    bench.prepare()
    bench.apply(bench.run("it"))
    assert operator.wait_end() == -signal.SIGKILL
    bench.nats.stop()
    operator.restart()
    assert "waits for the event bus" in bench.wait_reason("mlr", "it", "EventBusUnavailable")["message"]
    assert not starts(bench)
    bench.nats.start()
    ended_well(bench, "it", "succeeded")


@pytest.mark.parametrize("lost", ["", f"{RUNS}/obs", "."], ids=["nothing", "its consumers", "everything"])
@scenario
def test_a_run_that_ends_while_nats_is_gone_is_told_when_it_is_back(bench: Bench, lost: str) -> None:
    operator = bench.operator().start().wait_ready()
    bench.prepare()
    document, gate = waiting(bench, "it")
    bench.apply(document)
    bench.wait("it", "running")
    bench.nats.kill()
    gate.touch()
    undelivered(bench, "it")
    readiness(operator, "[-] nats:")
    streams = bench.nats.folder / "jetstream" / "jetstream" / "$G" / "streams"
    if lost:
        shutil.rmtree(streams / lost)
    bench.nats.start()
    ended_well(bench, "it", "succeeded")
    operator.wait_ready()


@scenario
def test_a_run_that_ends_while_nats_is_frozen_is_told_when_it_goes_on(bench: Bench) -> None:
    operator = bench.operator().start().wait_ready()
    bench.prepare()
    document, gate = waiting(bench, "it")
    bench.apply(document)
    bench.wait("it", "running")
    bench.nats.pause()
    try:
        gate.touch()
        undelivered(bench, "it")
        readiness(operator, "[-] nats:")
    finally:
        bench.nats.resume()
    ended_well(bench, "it", "succeeded")
    operator.wait_ready()


@scenario
def test_a_run_that_is_deleted_while_nats_is_gone_is_stopped_at_once_and_goes_when_its_end_is_told(bench: Bench) -> None:
    bench.operator().start().wait_ready()
    bench.prepare()
    bench.apply(bench.run("it", "hang"))
    run = bench.wait("it", "running")
    bench.nats.kill()
    bench.cluster.kubectl("delete", "mlr", "it", "-n", bench.namespace, "--wait=false")
    eventually(lambda: results(bench), 30, "the run is stopped at the provider")
    undelivered(bench, "it")
    bench.nats.start()
    eventually(lambda: bench.get("it") is None, 30, "the Run is gone")
    reader = Reader(bench.nats.url)
    (told,) = reader.completions(run.metadata.full_name)
    assert told["state"] == "stopped"
    eventually(lambda: reader.unsettled() == 0, 90, "the projector has acknowledged everything")
    assert [e["data"] for e in reader.events("documented")] == [told]


@pytest.mark.parametrize("backend", BACKENDS)
@scenario
def test_runs_are_stopped_while_nats_is_away_by_an_operator_that_was_restarted_meanwhile(bench: Bench, backend: str) -> None:
    operator = bench.operator(leaderElection={"enabled": False}).start()
    bench.prepare(maxActiveRuns=3)
    document, gate = waiting(bench, "stays")
    bench.apply(bench.run("cancelled", "hang"), document)
    for name in ("cancelled", "stays"):
        bench.wait(name, "running")
    bench.nats.kill()
    operator.kill()
    operator.restart()
    undelivered(bench, "stays")
    bench.apply(bench.run("cancelled", "hang", cancel=True), bench.run("late", "hang", activeDeadlineSeconds=1))
    eventually(lambda: results(bench) == 2, 40, "both are stopped at the provider")
    bench.nats.start()
    all_ended_well(bench, {"cancelled": "stopped", "late": "failed"}, quiet=False)
    eventually(lambda: bench.condition("mlr", "stays", "EventsDelivered") is None, 20, "there was nothing to tell of the third")
    gate.touch()
    ended_well(bench, "stays", "succeeded")


@scenario
def test_wrong_credentials_are_named_and_corrected_ones_taken_up(bench: Bench) -> None:
    bench.nats.config = "authorization: { user: operator, password: right }"
    bench.nats.restart()
    secret = bench.folder / "password"
    secret.write_text("wrong")
    operator = bench.operator(nats={"servers": [bench.nats.url], "user": "operator", "passwordFile": str(secret)}).start()
    readiness(operator, "[-] nats:", "Authorization Violation")
    bench.prepare()
    bench.apply(bench.run("it"))
    undelivered(bench, "it")
    secret.write_text("right")
    operator.wait_ready()
    bench.nats.config = ""  # whoever reads the streams below has no password
    bench.nats.restart()
    ended_well(bench, "it", "succeeded")


@scenario
def test_streams_and_consumers_that_are_deleted_under_a_run_are_made_again(bench: Bench) -> None:
    operator = bench.operator().start().wait_ready()
    bench.prepare(maxActiveRuns=2)
    runs, gates = zip(*(waiting(bench, name) for name in ("consumer", "streams")), strict=True)
    bench.apply(*runs)
    for name in ("consumer", "streams"):
        bench.wait(name, "running")
    reader = Reader(bench.nats.url)
    reader.do(lambda client: client.jetstream().delete_consumer(RUNS, "projector"))
    gates[0].touch()
    ended_well(bench, "consumer", "succeeded")
    for stream in (RUNS, "kfp-operator-documented"):
        reader.do(lambda client, stream=stream: client.jetstream().delete_stream(stream))
    gates[1].touch()
    ended_well(bench, "streams", "succeeded")
    operator.wait_ready()


@scenario
def test_a_completion_that_vanishes_before_it_had_its_effect_is_stored_again(bench: Bench) -> None:
    operator = bench.operator(fault="completion-published", leaderElection={"enabled": False}).start()
    bench.prepare()
    bench.apply(bench.run("it"), bench.run("refused", parameters={"unknown": 1}))
    assert operator.wait_end() == -signal.SIGKILL
    reader = Reader(bench.nats.url)
    assert reader.completions()
    reader.do(lambda client: client.jetstream().delete_stream(RUNS))
    operator.restart()
    all_ended_well(bench, {"it": "succeeded", "refused": "failed"})


@scenario
def test_a_stream_that_overlaps_is_named_and_nothing_is_stored_in_it(bench: Bench) -> None:
    reader = Reader(bench.nats.url)
    theirs = StreamConfig(name="theirs", subjects=["events.>"], allow_msg_ttl=True)
    reader.do(lambda client: client.jetstream().add_stream(theirs))
    operator = bench.operator().start()
    readiness(operator, "stream theirs stores events.run-completion.>")
    command = [sys.executable, "-m", "kfp_operator", "doctor", "--nats", bench.nats.url, "--kubeconfig", str(bench.cluster.kubeconfig)]
    doctor = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert doctor.returncode == 1
    assert "stream theirs stores events.run-completion.>" in doctor.stdout
    bench.prepare()
    bench.apply(bench.run("it"))
    undelivered(bench, "it")
    info = reader.do(lambda client: client.jetstream().stream_info("theirs"))
    assert info.state.messages == 0
    reader.do(lambda client: client.jetstream().delete_stream("theirs"))
    ended_well(bench, "it", "succeeded")
    operator.wait_ready()


@scenario
def test_what_strangers_store_among_the_events_does_no_harm_and_is_counted(bench: Bench) -> None:
    operator, reader = bench.operator().start().wait_ready(), Reader(bench.nats.url)
    bench.prepare()
    document, gate = waiting(bench, "it")
    bench.apply(document)
    run = bench.wait("it", "running")
    uid, place = run.metadata.uid, SUBJECTS.run_completion(bench.namespace, "it", run.metadata.uid, 1)
    before = run.status

    store(bench, SUBJECTS.run_completion("elsewhere", "x", "y", 1), b"noise")
    store(bench, place, b"in the place of the completion")
    store(bench, "events.run-completion.no-subject-of-ours", json.dumps({"status": "succeeded"}).encode())
    forge(bench, completion_of(run), SUBJECTS.run_completion(bench.namespace, "other", uid, 1))
    forge(bench, completion_of(run, run_uid="another"))  # of a Run that had this name
    forge(bench, completion_of(run, run_name=f"{bench.namespace}/nobody"))  # a uid belongs to one name
    names = {"provider": before.provider, "pipeline_name": "", "run_name": run.metadata.full_name}
    forge(bench, RunStatus(**names, run_uid=uid, transition=1, state="unknown", time=NOW))  # number 1 was told before
    for result, count in (("poison", 4), ("gone", 1), ("foreign", 1), ("duplicate", 1)):
        eventually(lambda r=result, n=count: operator.metric("kfp_operator_projected_total", result=r) == n, 20, f"{result} is counted")
    assert len(reader.messages("dead-letter")) == 4
    after = bench.get("it")
    assert after is not None
    assert after.status == before

    gate.touch()
    bench.wait("it", "succeeded")
    bench.released("it")
    (stored,) = (e for e in reader.events() if e["nats"] == place)
    assert stored["data"]["state"] == "succeeded"
    assert b"in the place of the completion" in [m.data for m in reader.messages("dead-letter")]
    eventually(lambda: reader.unsettled() == 0, 90, "the projector has acknowledged everything")


@scenario
def test_a_forged_completion_is_believed_so_only_the_operator_may_publish_there(bench: Bench) -> None:
    """What SECURITY.md warns of. It is told once all the same, and nothing after it."""
    bench.operator().start().wait_ready()
    bench.prepare()
    document, gate = waiting(bench, "it")
    bench.apply(document)
    forge(bench, completion_of(bench.wait("it", "running"), message="says who?"))
    ended = settled(bench, {"it": "failed"})["it"]
    assert ended.status.message == "says who?"
    gate.touch()
    eventually(lambda: results(bench), 30, "the run ends at the backend")
    bench.apply(bench.run("next", parameters={"unknown": 1}))
    ended_well(bench, "next", "failed")
    assert bench.runs()["it"].status == ended.status
    assert len(Reader(bench.nats.url).completions(ended.metadata.full_name)) == 1
