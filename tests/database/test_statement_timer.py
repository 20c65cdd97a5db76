import asyncio
import time
from time import perf_counter

import pytest

from app.database.statement_timer import StatementTimer


async def rest(timer, seconds):
    """Sleep inside of a block of the timer, and return how long it took until it ended, and how."""
    began = perf_counter()
    try:
        with timer:
            await asyncio.sleep(seconds)
    except TimeoutError:
        return perf_counter() - began, "timeout"
    return perf_counter() - began, "ok"


async def test_each_block_has_the_whole_time_and_no_more():
    """However many there are, when they began, and whether earlier ones have ended."""
    timer = StatementTimer(0.3)

    async def later(delay, seconds):
        await asyncio.sleep(delay)
        return await rest(timer, seconds)

    found = await asyncio.gather(*(later(0.05 * n, 0.01 if n % 2 else 9) for n in range(12)))

    assert ["timeout", "ok"] * 6 == [end for _, end in found]
    assert all(0.29 < seconds < 0.6 for seconds, end in found if end == "timeout"), found
    assert (0.3, "ok") > await rest(timer, 0.01)


async def test_blocks_that_end_in_time_share_one_timer(monkeypatch):
    """A thousand of them set it once, and when it goes off without one that runs, it is not set again."""
    timer, loop = StatementTimer(0.2), asyncio.get_running_loop()
    delays, call_later = [], loop.call_later

    def recorded(delay, *call):
        delays.append(delay)
        return call_later(delay, *call)

    monkeypatch.setattr(loop, "call_later", recorded)

    for _ in range(1000):
        with timer:
            pass
    await asyncio.sleep(0.4)

    assert [0.2, 0.4] == delays  # the second one is that of the sleep


async def test_a_task_that_timed_out_goes_on():
    """It is not left as one that was cancelled, and its next block has the whole time again."""
    timer = StatementTimer(0.1)

    ends = [await rest(timer, seconds) for seconds in (9, 0.01, 9)]

    assert ["timeout", "ok", "timeout"] == [end for _, end in ends]
    task = asyncio.current_task()
    assert task is not None
    assert 0 == task.cancelling()


@pytest.mark.parametrize("delay", [0.05, 0.15])
async def test_a_cancellation_stays_one(delay):
    """A cancellation from outside is never turned into a TimeoutError, even if the time ends in the same turn."""
    task = asyncio.create_task(rest(StatementTimer(0.1), 9))
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_later(delay, task.cancel)
    time.sleep(0.2)  # noqa: ASYNC251  # so that both are due
    await asyncio.wait([task])

    assert task.cancelled()


async def test_a_block_of_a_cancelled_task_times_out():
    """As where a task cleans up: its own cancellation is not lost, and is not taken for that of the timer."""
    ends = []

    async def cleans_up():
        try:
            await asyncio.sleep(9)
        finally:
            ends.append(await rest(StatementTimer(0.1), 9))

    task = asyncio.create_task(cleans_up())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])

    assert ["timeout"] == [end for _, end in ends]
    assert task.cancelled()


async def test_another_error_of_a_block_past_its_time_is_raised():
    """The error is raised instead of TimeoutError, because it says more."""

    async def lose():
        with StatementTimer(0.05):
            try:
                await asyncio.sleep(9)
            finally:
                raise ValueError("lost")

    with pytest.raises(ValueError, match="lost"):
        await lose()
