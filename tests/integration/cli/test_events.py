import asyncio
import json
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kfp_operator.cli.exits import ExitCode
from kfp_operator.events import binding, envelope, publisher
from kfp_operator.events.envelope import RunEvent
from kfp_operator.events.jetstream import JetStreamBus
from kfp_operator.events.streams import Streams
from kfp_operator.events.subjects import Subjects
from kfp_operator.settings import EventsSettings
from tests.cluster import NatsServer, free_port
from tests.doubles.events import check_cloudevent, completion, status
from tests.integration.cli.shell import Shell
from tests.integration.events.rigs import connected
from tests.waiting import eventually

SUBJECTS = Subjects()


@pytest.fixture
def shell(tmp_path: Path, nats: NatsServer) -> Shell:
    """Somebody at a terminal who has NATS and no cluster."""
    return Shell(tmp_path, KFPOP_NATS__SERVERS=nats.url)


def publish(server: NatsServer, *events: RunEvent) -> None:
    """Store events as the operator does."""

    async def work() -> None:
        async with connected(server) as bus:
            await Streams(bus, SUBJECTS, EventsSettings()).ensure()
            for event in events:
                await publisher.store(bus, SUBJECTS, event)

    asyncio.run(work())


def with_bus(server: NatsServer, work: str, *args: object) -> object:
    """What a method of the bus answers."""

    async def call() -> object:
        async with connected(server) as bus:
            return await getattr(bus, work)(*args)

    return asyncio.run(call())


def watching(server: NatsServer) -> bool:
    """Whether somebody reads the stream."""
    info = with_bus(server, "api", "STREAM.INFO.kfp-operator-runs")
    assert isinstance(info, dict)
    return bool(info["state"]["consumer_count"])


def test_stored_events_are_lines_in_the_order_of_their_storage(shell: Shell, nats: NatsServer) -> None:
    publish(nats, status(), status(transition=2, state="running", attempt=2, message="again\nand again"), completion())
    result = shell.run("events", "watch", "--since", "all", "--count", 3)
    assert result.exit_code == ExitCode.OK
    assert result.stdout.splitlines() == [
        "2026-01-02T03:04:05Z  team-a/penguin-x7k2p  status      running",
        "2026-01-02T03:04:05Z  team-a/penguin-x7k2p  status      running       attempt 2  again and again",
        "2026-01-02T03:14:15Z  team-a/penguin-x7k2p  completion  succeeded     1 artifact",
    ]


def test_json_is_the_cloudevent_on_a_line(shell: Shell, nats: NatsServer) -> None:
    publish(nats, status(), completion())
    lines = shell.run("events", "watch", "--since", "all", "--count", 2, "-o", "json").stdout.splitlines()
    for line in lines:
        check_cloudevent(json.loads(line))
    assert json.loads(lines[1]) == json.loads(binding.encode(envelope.build(completion())).body)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--completions"], ["team-a/one completion", "team-b/one completion"]),
        (["--status-only"], ["team-a/one status", "team-a/two status"]),
        (["-n", "team-a"], ["team-a/one status", "team-a/two status", "team-a/one completion"]),
        (["--run", "one"], ["team-a/one status", "team-a/one completion", "team-b/one completion"]),
        (["-n", "team-a", "--run", "one", "--completions"], ["team-a/one completion"]),
    ],
)
def test_only_the_events_that_are_asked_for_are_printed(shell: Shell, nats: NatsServer, flags: list[str], expected: list[str]) -> None:
    publish(
        nats,
        status(run_name="team-a/one"),
        status(run_name="team-a/two", run_uid="two"),
        completion(run_name="team-a/one"),
        completion(run_name="team-b/one", run_uid="other"),
    )
    result = shell.run("events", "watch", "--since", "all", "--count", len(expected), *flags)
    assert [" ".join(line.split()[1:3]) for line in result.stdout.splitlines()] == expected


def test_by_default_only_new_events_are_printed(shell: Shell, nats: NatsServer) -> None:
    publish(nats, status())
    with shell.start("events", "watch", "--count", 1) as watch:
        eventually(lambda: watching(nats), 20, "the stream is read")
        publish(nats, completion())
        assert watch.wait() == ExitCode.OK
        assert [line.split()[2] for line in watch.stdout] == ["completion"]


def test_events_since_a_while_are_printed(shell: Shell, nats: NatsServer) -> None:
    publish(nats, status())
    stored = time.monotonic()
    eventually(lambda: time.monotonic() - stored > 2.2, 5, "the first event is older than two seconds")
    publish(nats, completion())
    result = shell.run("events", "watch", "--since", "2s", "--count", 1)
    assert [line.split()[2] for line in result.stdout.splitlines()] == ["completion"]


def test_an_outage_of_nats_loses_and_repeats_nothing(shell: Shell, nats: NatsServer) -> None:
    publish(nats, status())
    with shell.start("events", "watch", "--since", "all", "--count", 3) as watch:
        watch.until("running")
        nats.kill()
        watch.until("... NATS")
        nats.start()
        publish(nats, status(transition=2, state="retrying"), completion())
        assert watch.wait(30) == ExitCode.OK
        assert [line.split()[3] for line in watch.stdout] == ["running", "retrying", "succeeded"]


def test_a_stream_that_was_made_anew_is_read_from_its_beginning(shell: Shell, nats: NatsServer) -> None:
    publish(nats, status(), status(transition=2, state="retrying"))
    with shell.start("events", "watch", "--since", "all", "--count", 3) as watch:
        watch.until("retrying")
        with_bus(nats, "api", "STREAM.DELETE.kfp-operator-runs")
        publish(nats, completion())
        assert watch.wait(30) == ExitCode.OK
        assert watch.stdout[-1].split()[3] == "succeeded"


def test_a_stream_that_is_not_there_yet_is_waited_for(shell: Shell, nats: NatsServer) -> None:
    with shell.start("events", "watch", "--since", "all", "--count", 1) as watch:
        watch.until("stream kfp-operator-runs does not exist")
        publish(nats, completion())
        assert watch.wait(30) == ExitCode.OK


def test_a_message_that_is_no_event_is_told_apart(shell: Shell, nats: NatsServer) -> None:
    publish(nats, status())
    with_bus(nats, "publish", "events.run-completion.team-a.x.y.1", b"\x1b[31mnonsense", {})
    publish(nats, completion())
    result = shell.run("events", "watch", "--since", "all", "--count", 2)
    assert len(result.stdout.splitlines()) == 2
    assert "message 2 on events.run-completion.team-a.x.y.1 is no event" in result.stderr


def test_ctrl_c_is_the_usual_end(shell: Shell, nats: NatsServer) -> None:
    publish(nats)
    with shell.start("events", "watch") as watch:
        eventually(lambda: watching(nats), 20, "the stream is read")
        watch.interrupt()
        assert watch.wait() == ExitCode.OK
        assert not watch.stderr


def test_watching_takes_nothing_from_plain_subscribers(shell: Shell, nats: NatsServer) -> None:
    publish(nats, completion())
    assert shell.run("events", "watch", "--since", "all", "--count", 1).exit_code == ExitCode.OK

    async def work() -> None:
        async with connected(nats) as bus:
            await publisher.publish_documented(bus, SUBJECTS, envelope.build(completion()))
            with shell.start("events", "watch", "--since", "all") as watch:
                await asyncio.to_thread(watch.until, "succeeded")
                assert await delivered(bus) == 0

    asyncio.run(work())


async def delivered(bus: JetStreamBus) -> int:
    """How many copies went out on the documented subject."""
    consumer = await bus.api("CONSUMER.INFO.kfp-operator-documented.documented-subject")
    return int(consumer["delivered"]["stream_seq"])


def test_the_private_server_of_an_operator_on_this_machine_is_found(tmp_path: Path, nats: NatsServer) -> None:
    shell = Shell(tmp_path)
    (shell.state_dir / "nats").mkdir(parents=True)
    (shell.state_dir / "nats" / "url").write_text(f"{nats.url}\n")
    publish(nats, completion())
    assert "succeeded" in shell.run("events", "watch", "--since", "all", "--count", 1).stdout


def test_without_a_known_server_it_is_said_what_to_set(tmp_path: Path) -> None:
    result = Shell(tmp_path).run("events", "watch")
    assert result.exit_code == ExitCode.USAGE
    for way in ("--nats", "nats.servers", "KFPOP_NATS__SERVERS", str(tmp_path / "state")):
        assert way in result.stderr


def test_a_server_that_does_not_answer_is_named(tmp_path: Path) -> None:
    url = f"nats://127.0.0.1:{free_port()}"
    with Shell(tmp_path).start("events", "watch", "--nats", url) as watch:
        assert watch.wait(30) == ExitCode.UNAVAILABLE
        assert url in watch.stderr[-1]
        assert "Traceback" not in "".join(watch.stderr)


def test_times_are_those_of_the_events(shell: Shell, nats: NatsServer) -> None:
    at = datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC)
    publish(nats, status(time=at))
    assert shell.run("events", "watch", "--since", "all", "--count", 1).stdout.startswith("2026-05-06T07:08:09Z")
