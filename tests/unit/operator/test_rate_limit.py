from hypothesis import given
from hypothesis import strategies as st

from kfp_operator.operator.rate_limit import RateLimit


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_passes_and_then_so_many_in_a_second() -> None:
    clock = Clock()
    limit = RateLimit(clock)
    assert [limit.take("a", 1, per_second=2, burst=3) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    clock.now = 0.5
    assert [limit.take("a", 1, per_second=2, burst=3) for _ in range(2)] == [0.0, 0.5]


def test_what_is_refused_costs_nothing() -> None:
    clock = Clock()
    limit = RateLimit(clock)
    assert limit.take("a", 3, per_second=1, burst=4) == 0
    assert limit.take("a", 3, per_second=1, burst=4) == 2
    assert limit.take("a", 1, per_second=1, burst=4) == 0


def test_senders_do_not_share() -> None:
    limit = RateLimit(Clock())
    assert limit.take("a", 1, per_second=1, burst=1) == 0
    assert limit.take("a", 1, per_second=1, burst=1) > 0
    assert limit.take("b", 1, per_second=1, burst=1) == 0


def test_who_is_forgotten_begins_anew() -> None:
    limit = RateLimit(Clock())
    for name in ("a", "b"):
        limit.take(name, 1, per_second=1, burst=1)
    limit.keep(["b"])
    assert limit.take("a", 1, per_second=1, burst=1) == 0
    assert limit.take("b", 1, per_second=1, burst=1) > 0


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(0, 5)), max_size=30), st.floats(0.1, 50), st.integers(5, 20))
def test_never_more_passes_than_the_burst_and_the_rate_allow(steps: list[tuple[float, int]], per_second: float, burst: int) -> None:
    clock = Clock()
    limit = RateLimit(clock)
    passed = 0
    for seconds, count in steps:
        clock.now += seconds
        if limit.take("a", count, per_second=per_second, burst=burst) == 0:
            passed += count
        assert passed <= burst + clock.now * per_second + 1e-6
