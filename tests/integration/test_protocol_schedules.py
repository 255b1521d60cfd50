"""The protocol model (tests/unit/operator/test_protocol_model.py) through thousands of schedules."""

from tests.unit.operator.test_protocol_model import run_schedules


def test_thousands_of_random_schedules_with_deaths_end_right() -> None:
    assert run_schedules(range(1000, 3000)) > 2000
