import asyncio
from contextlib import suppress

import pytest

from kfp_operator.operator.clock_watch import EVERY, ClockWatch
from tests.unit.operator import simulated_time


class Clocks:
    wall = 1_000_000.0
    even = 50.0
    jumps = 0

    def pass_time(self, seconds: float, *, wall: float | None = None) -> None:
        self.even += seconds
        self.wall += seconds if wall is None else wall

    def jumped(self) -> None:
        self.jumps += 1


@pytest.mark.parametrize(
    ("wall", "jumps"),
    [(5.0, 0), (5.1, 0), (4.9, 0), (3605.0, 1), (-3595.0, 1), (5.6, 1), (4.4, 1)],
    ids=["even", "a little fast", "a little slow", "set forward", "set back", "a second forward", "a second back"],
)
def test_a_clock_that_was_set_is_noticed_once(wall: float, jumps: int) -> None:
    clocks = Clocks()
    watch = ClockWatch(clocks.jumped, wall=lambda: clocks.wall, even=lambda: clocks.even)
    clocks.pass_time(5, wall=wall)
    watch.look()
    assert clocks.jumps == jumps
    clocks.pass_time(5)
    watch.look()
    assert clocks.jumps == jumps


def test_a_clock_that_is_drawn_to_the_right_time_by_and_by_wakes_nobody() -> None:
    clocks = Clocks()
    watch = ClockWatch(clocks.jumped, wall=lambda: clocks.wall, even=lambda: clocks.even)
    for _ in range(1000):
        clocks.pass_time(5, wall=5.0025)  # 500 ppm, the most that NTP slews by
        watch.look()
    assert clocks.jumps == 0


def test_it_looks_every_few_seconds() -> None:
    clocks = Clocks()

    async def watched() -> None:
        watch = asyncio.create_task(ClockWatch(clocks.jumped, wall=lambda: clocks.wall, even=lambda: clocks.even).run())
        await asyncio.sleep(EVERY / 2)
        clocks.wall += 3600
        await asyncio.sleep(EVERY)
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await watch

    simulated_time.run(watched())
    assert clocks.jumps == 1
