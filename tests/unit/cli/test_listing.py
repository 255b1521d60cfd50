import pytest

from kfp_operator.cli.listing import Listing, text
from kfp_operator.events import binding, envelope
from kfp_operator.events.bus import StoredMessage
from kfp_operator.events.envelope import Received, RunEvent
from kfp_operator.events.subjects import Subjects
from tests.doubles.events import END, completion, status

SUBJECTS = Subjects()


def received(data: RunEvent) -> Received:
    return Received(envelope.build(data), data)


def stored(data: RunEvent, body: bytes | None = None) -> StoredMessage:
    wire = binding.encode(envelope.build(data))
    return StoredMessage("runs", 7, envelope.bus_subject(SUBJECTS, data), wire.headers, wire.body if body is None else body, END)


def test_a_line_says_when_what_and_why() -> None:
    line = text(received(completion(status="failed", state="failed", message="step train failed", attempt=2)))
    assert line == "2026-01-02T03:14:15Z  team-a/penguin-x7k2p  completion  failed        attempt 2  1 artifact  step train failed"


def test_a_run_that_never_ran_has_no_time() -> None:
    line = text(received(completion(run_end_time=None, status="failed", state="stopped", artifacts=[])))
    assert line.split() == ["team-a/penguin-x7k2p", "completion", "stopped"]


def test_a_run_without_a_run_object_is_named_by_its_backend() -> None:
    line = text(received(completion(run_name="", run_uid="", artifacts=[])))
    assert line == "2026-01-02T03:14:15Z  mlops/kfp run 0b9c  completion  succeeded"


@pytest.mark.parametrize(("message", "shown"), [("a\nb", "a b"), ("\x1b[2Jgone", "[2Jgone"), ("x" * 300, "x" * 199 + "…")])
def test_a_message_stays_on_its_line(message: str, shown: str) -> None:
    assert text(received(status(message=message))).endswith(f"  {shown}")


def test_what_is_no_event_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    listing = Listing(SUBJECTS, "text")
    assert not listing.show(stored(status(), b"nonsense"))
    assert listing.show(stored(status()))
    assert listing.shown == 1
    output = capsys.readouterr()
    assert len(output.out.splitlines()) == 1
    assert output.err.startswith("... message 7 on events.run-status.team-a.penguin-x7k2p.")
