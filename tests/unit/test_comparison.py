"""The page that compares with the Go operator names tests that exist, for each defect."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "compared-with-the-go-operator.md").read_text()
ROWS = {int(row[1]): row[2] for row in re.finditer(r"^\| (\d+) \|(.*)$", PAGE, re.MULTILINE)}
ELSEWHERE = {35, 37}
"""Defects of parts that do not exist here."""
_DEFINED = re.compile(r"^(?:async )?def (test_\w+)", re.MULTILINE)
TESTS = {name for path in (ROOT / "tests").rglob("test_*.py") for name in _DEFINED.findall(path.read_text())}


def test_each_defect_is_there_once_in_order() -> None:
    assert list(ROWS) == [number for number in range(1, 39) if number not in ELSEWHERE]


@pytest.mark.parametrize("number", ROWS)
def test_a_defect_is_kept_away_by_tests_that_exist(number: int) -> None:
    named = re.findall(r"`(test_\w+)`", ROWS[number])
    assert named
    assert [name for name in named if name not in TESTS] == []
