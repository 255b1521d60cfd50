from datetime import timedelta

import pytest

from kfp_operator.reconcile.hourly import Allowance, allowance
from tests.builders import NOW, at


@pytest.mark.parametrize(
    ("started", "limit", "expected"),
    [
        ([], None, None),
        ([], 3, Allowance(3)),
        ([-10, -20], 3, Allowance(1)),
        ([-10, -20, -30], 3, Allowance(0, at(3570))),
        ([-10, -20, -30, -40], 3, Allowance(0, at(3570))),
        ([-3600, -3599, -1], 2, Allowance(0, at(1))),
        ([-3600, -3601], 2, Allowance(2)),
        ([], 0, Allowance(0)),
        ([-1], 0, Allowance(0)),
    ],
)
def test_no_more_runs_are_started_within_an_hour_than_allowed(started: list[float], limit: int | None, expected: Allowance | None) -> None:
    assert allowance([at(seconds) for seconds in started], limit, NOW) == expected


def test_one_more_is_allowed_when_it_says_so() -> None:
    started = [at(seconds) for seconds in (-100, -50, -1)]
    refused = allowance(started, 3, NOW)
    assert refused is not None
    assert refused.again is not None
    assert allowance(started, 3, refused.again) == Allowance(1)
    assert allowance(started, 3, refused.again - timedelta(microseconds=1)) == refused
