"""The work queue has client-go's semantics."""

import asyncio
import random
from contextlib import suppress

import pytest

from kfp_operator.operator.queue import QueueShutDown, WorkQueue
from tests.unit.operator.simulated_time import now, run


def queue(**options: float) -> WorkQueue[str]:
    return WorkQueue(chance=random.Random(1), **options)


def test_a_key_that_is_added_twice_while_it_waits_comes_once() -> None:
    async def main() -> None:
        q = queue()
        q.add("a")
        q.add("b")
        q.add("a")
        assert len(q) == 2
        assert [await q.get(), await q.get()] == ["a", "b"]
        assert len(q) == 0

    run(main())


def test_a_key_that_is_added_while_it_is_worked_on_comes_again_after_done_and_not_before() -> None:
    async def main() -> None:
        q = queue()
        q.add("a")
        assert await q.get() == "a"
        q.add("a")
        q.add("a")
        waiting = asyncio.ensure_future(q.get())
        await asyncio.sleep(100)
        assert not waiting.done()
        assert (len(q), q.working) == (1, 1)
        q.done("a")
        assert await waiting == "a"
        q.done("a")
        assert (len(q), q.working) == (0, 0)

    run(main())


def test_no_key_is_ever_with_two_workers_and_none_is_lost() -> None:
    async def main() -> None:
        q, held, handled = queue(), set(), dict.fromkeys("abcdef", 0)
        chance = random.Random(7)

        async def worker() -> None:
            with suppress(QueueShutDown):
                while True:
                    key = await q.get()
                    assert key not in held
                    held.add(key)
                    await asyncio.sleep(chance.random())
                    handled[key] += 1
                    held.discard(key)
                    q.done(key)

        workers = [asyncio.ensure_future(worker()) for _ in range(4)]
        for _ in range(500):
            q.add(chance.choice("abcdef"))
            await asyncio.sleep(chance.random() / 10)
        last = dict(handled)
        for key in handled:
            q.add(key)
        await asyncio.sleep(60)
        assert all(handled[key] > last[key] for key in handled)
        q.shutdown()
        await asyncio.gather(*workers)

    run(main())


def test_of_several_delays_the_earliest_wins_and_the_key_comes_once() -> None:
    async def main() -> None:
        q = queue()
        start = now()
        for seconds in (30, 10, 20):
            q.add_after("a", seconds)
        assert q.delayed == 1
        assert await q.get() == "a"
        assert now() - start == pytest.approx(10)
        q.done("a")
        await asyncio.sleep(100)
        assert (len(q), q.delayed) == (0, 0)

    run(main())


def test_delayed_keys_come_in_the_order_of_their_times() -> None:
    async def main() -> None:
        q = queue()
        for key, seconds in (("c", 3), ("a", 1), ("b", 2), ("now", 0)):
            q.add_after(key, seconds)
        assert [await q.get() for _ in range(4)] == ["now", "a", "b", "c"]

    run(main())


def test_a_retry_waits_twice_as_long_each_time_up_to_the_cap_until_it_is_forgotten() -> None:
    async def main() -> None:
        q = queue(base=1, cap=10)
        delays = [q.retry("a") for _ in range(7)]
        for delay, ideal in zip(delays, (1, 2, 4, 8, 10, 10, 10), strict=True):
            assert 0.8 * ideal <= delay <= 1.2 * ideal
        assert len(set(delays)) == 7, "spread, so that what failed together does not come back together"
        assert q.failures("a") == 7
        assert q.retry("b") <= 1.2, "failures are counted for each key"
        q.forget("a")
        assert q.retry("a") <= 1.2

    run(main())


def test_a_retry_after_thousands_of_failures_still_has_a_finite_delay() -> None:
    async def main() -> None:
        q = queue(base=1, cap=10)
        for _ in range(5000):
            delay = q.retry("a")
        assert delay <= 12

    run(main())


def test_a_retry_waits_at_least_as_long_as_the_server_asked_for() -> None:
    async def main() -> None:
        q = queue()
        start = now()
        q.retry("a", at_least=42)
        await q.get()
        assert now() - start == pytest.approx(42)

    run(main())


def test_shutdown_hands_out_what_is_ready_then_ends_every_worker_and_takes_nothing_more() -> None:
    async def main() -> None:
        q = queue()
        q.add("a")
        q.add_after("later", 5)
        q.shutdown()
        q.add("b")
        q.add_after("b", 1)
        assert await q.get() == "a"
        for _ in range(3):
            with pytest.raises(QueueShutDown):
                await q.get()
        assert q.delayed == 0

    run(main())


def test_a_cancelled_worker_loses_no_key() -> None:
    async def main() -> None:
        q = queue()
        waiting = asyncio.ensure_future(q.get())
        await asyncio.sleep(0)
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting
        q.add("a")
        assert await q.get() == "a"

    run(main())
