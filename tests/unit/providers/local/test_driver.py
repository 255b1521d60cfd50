import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from kfp_operator.providers.local import driver
from kfp_operator.providers.local.driver import Identity, Log


def test_of_many_that_make_a_file_one_wins_and_its_text_is_whole(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda n: driver.create_json(tmp_path / "claim.json", {"by": n}), range(64)))
    assert won.count(True) == 1
    assert (tmp_path / "claim.json").read_text() == f'{{"by": {won.index(True)}}}'
    assert [path.name for path in tmp_path.iterdir()] == ["claim.json"]


def test_an_event_that_is_still_being_written_is_not_read(tmp_path: Path) -> None:
    driver.append_event(tmp_path, event="start", path="a")
    with (tmp_path / driver.EVENTS).open("a") as file:
        file.write('not json\n[1]\n{"event": 7}\n{"event": "en')
    assert [event["event"] for event in driver.read_events(tmp_path)] == ["start"]


def test_there_are_no_events_before_the_first(tmp_path: Path) -> None:
    assert driver.read_events(tmp_path) == []


def test_the_first_step_that_failed_is_the_culprit_unless_it_was_repeated_with_success() -> None:
    def end(path: str, code: int) -> dict[str, object]:
        return {"event": "end", "path": path, "code": code}

    events = [end("load", 1), end("load", 0), end("train", 1), end("clean-up", 0), end("push", 2)]
    assert driver.failed_step(events) == end("train", 1)
    assert driver.failed_step(events[:2]) is None


def test_messages_are_one_plain_paragraph_of_bounded_size() -> None:
    assert driver.plain("\x1b[91mFAILURE\x1b[0m:\n  column missing\r\n") == "FAILURE: column missing"
    assert len(driver.plain("ä" * 5000).encode()) <= driver.MAX_MESSAGE


@pytest.mark.parametrize(
    ("code", "said"),
    [(3, "exited with code 3"), (-15, "was killed by signal SIGTERM"), (137, "was killed by signal SIGKILL (out of memory?)")],
)
def test_the_end_of_a_process_is_told_for_people(code: int, said: str) -> None:
    assert driver.describe_exit(code) == said


def test_a_living_process_has_the_same_identity_whenever_one_looks() -> None:
    assert Identity.of(os.getpid()) == Identity.of(os.getpid()) is not None


def test_another_process_under_the_same_pid_is_told_apart() -> None:
    own = Identity.of(os.getpid())
    assert own is not None
    assert replace(own, started="1") != own
    assert replace(own, boot="00000000-0000-0000-0000-000000000000") != own
    assert replace(own, host="elsewhere") != own


def test_a_process_that_ended_has_no_identity_even_before_it_is_reaped() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert Identity.of(process.pid) is None
    process.wait()
    assert Identity.of(process.pid) is None


def kept(folder: Path) -> dict[int, bytes]:
    return {int(path.name): path.read_bytes() for path in folder.iterdir()}


def test_a_short_log_is_kept_whole(tmp_path: Path) -> None:
    log = Log(tmp_path / "log", 800)
    log.write(b"a" * 50)
    log.write(b"b" * 100)
    assert kept(tmp_path / "log") == {0: b"a" * 50 + b"b" * 50, 100: b"b" * 50}


def test_a_long_log_keeps_its_first_half_and_its_end(tmp_path: Path) -> None:
    log = Log(tmp_path / "log", 800)
    text = b"".join(b"%09d\n" % n for n in range(1000))
    for begin in range(0, len(text), 77):
        log.write(text[begin : begin + 77])
    parts = kept(tmp_path / "log")
    assert sum(map(len, parts.values())) <= 800
    assert b"".join(parts[offset] for offset in (0, 100, 200, 300)) == text[:400]
    assert text.endswith(b"".join(parts[offset] for offset in sorted(parts) if offset >= 400))
    assert max(parts) + len(parts[max(parts)]) == len(text)


def test_one_write_may_be_longer_than_the_whole_log(tmp_path: Path) -> None:
    log = Log(tmp_path / "log", 800)
    log.write(b"x" * 100_000)
    assert sum(map(len, kept(tmp_path / "log").values())) == 800


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_ends_the_log_and_says_so(tmp_path: Path) -> None:
    log = Log(tmp_path / "log", 800)
    (tmp_path / "log" / f"{0:020d}").symlink_to("/dev/full")
    log.write(b"hello")
    log.write(b"hello")
    assert log.error == "the log ends early: No space left on device"
