"""The protocol model (tests/unit/operator/test_protocol_model.py) through thousands of schedules."""

from tests.unit.operator.test_protocol_model import EVERYTHING, LIVELY, SPECS, run_schedules


def test_thousands_of_random_schedules_with_deaths_end_right() -> None:
    assert run_schedules(range(1000, 2000))["deaths"] > 1000


def test_hundreds_of_schedules_with_lost_streams_noise_and_interrupted_leadership_end_right() -> None:
    assert run_schedules(range(60, 360), EVERYTHING)["deaths"] > 200


def test_hundreds_of_schedules_with_retries_and_reopens_end_right() -> None:
    assert run_schedules(range(1000, 1300), LIVELY, SPECS, length=250)["tried again"] > 200


def test_hundreds_of_schedules_with_retries_reopens_and_lost_streams_end_right() -> None:
    assert run_schedules(range(1000, 1200), [*LIVELY, *EVERYTHING], SPECS, length=250)["tried again"] > 20
