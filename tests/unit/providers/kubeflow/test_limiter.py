import pytest

from kfp_operator.errors import Retryable
from kfp_operator.providers.kubeflow.limiter import LONGEST_PAUSE, Limiter
from tests.unit.providers.kubeflow.arrange import FakeClock


async def test_requests_go_out_at_the_rate_after_a_burst() -> None:
    clock = FakeClock()
    limiter = Limiter(5, 10, clock)
    for _ in range(10):
        await limiter.acquire()
    assert clock.passed == 0
    for _ in range(50):
        await limiter.acquire()
    assert clock.passed == pytest.approx(10)


async def test_a_long_pause_is_told_with_what_is_left_of_it() -> None:
    clock = FakeClock()
    limiter = Limiter(5, 10, clock)
    limiter.pause(60)
    clock.passed = 20
    with pytest.raises(Retryable, match="40 s of it are left") as caught:
        await limiter.acquire()
    assert (caught.value.reason, caught.value.after) == ("RateLimited", 40)
    clock.passed = 60
    await limiter.acquire()


async def test_a_short_pause_is_waited_out() -> None:
    clock = FakeClock()
    limiter = Limiter(5, 10, clock)
    limiter.pause(2)
    await limiter.acquire()
    assert clock.passed == 2


async def test_no_server_can_ask_for_a_pause_without_end() -> None:
    clock = FakeClock()
    limiter = Limiter(5, 10, clock)
    limiter.pause(1e9)
    clock.passed = LONGEST_PAUSE
    await limiter.acquire()
