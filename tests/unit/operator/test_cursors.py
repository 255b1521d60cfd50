"""How far consumers got, in a Lease or in a file."""

from pathlib import Path

import pytest

from kfp_operator.events.bus import Cursor
from kfp_operator.operator.cursors import NAME, FileCursors, LeaseCursors

CURSOR = Cursor("2026-03-01T12:00:00Z", 7)


def test_a_cursor_in_the_lease_is_an_annotation_under_the_group() -> None:
    annotations: dict[str, str] = {}
    cursors = LeaseCursors(lambda: annotations, lambda kept: annotations.update({k: v for k, v in kept.items() if v}), "kfp-operator.dev")
    assert cursors.get("projector") is None
    cursors.keep("projector", CURSOR)
    assert list(annotations) == ["kfp-operator.dev/cursor-projector"]
    assert cursors.get("projector") == CURSOR


def test_a_cursor_in_a_file_outlives_the_process(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    FileCursors(folder).keep("projector", CURSOR)
    FileCursors(folder).keep("triggers", Cursor("2026-03-01T12:00:00Z", 9))
    again = FileCursors(folder)
    assert (again.get("projector"), again.get("none")) == (CURSOR, None)
    assert [path.name for path in folder.iterdir()] == [NAME]


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"projector": 1}', '{"projector": {"created": "x", "sequence": "y"}}'])
def test_what_is_no_cursor_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / NAME).write_text(text)
    cursors = FileCursors(tmp_path)
    assert cursors.get("projector") is None
    cursors.keep("projector", CURSOR)
    assert FileCursors(tmp_path).get("projector") == CURSOR


def test_a_file_that_cannot_be_written_is_said_once_and_harms_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    cursors = FileCursors(tmp_path / "file")
    for sequence in range(3):
        cursors.keep("projector", Cursor("x", sequence))
    assert cursors.get("projector") == Cursor("x", 2)
    assert len(caplog.records) == 1
