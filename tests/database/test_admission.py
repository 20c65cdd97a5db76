import asyncio
import random

import pytest

from app.database.admission import WAITING_PER_CONNECTION, Admission
from app.errors import OverloadedError, PoolExhaustedError
from tests.databases import Waits


def admission(places=1, wait_seconds=5.0):
    """A queue that nobody stands in."""
    return Admission(places, wait_seconds=wait_seconds, observer=Waits())


async def test_places_are_given_in_order_of_arrival():
    """Who comes later waits, and whoever leaves gives the place to the one who waits longest."""
    full, order = admission(), []
    await full.enter()

    async def visit(number):
        await full.enter()
        order.append(number)
        await asyncio.sleep(0)
        full.leave()

    visits = [asyncio.create_task(visit(number)) for number in range(5)]
    await asyncio.sleep(0.01)
    assert (1, 5, []) == (full.taken, full.waiting, order)
    full.leave()
    await asyncio.gather(*visits)

    assert list(range(5)) == order
    assert (0, 0) == (full.taken, full.waiting)


async def test_everyone_waits_as_long_as_the_others():
    """One timer serves all: each is sent away after its own time, not after that of the first."""
    full = admission(wait_seconds=0.2)
    await full.enter()
    started, ended = asyncio.get_running_loop().time(), []

    async def visit(delay):
        await asyncio.sleep(delay)
        with pytest.raises(PoolExhaustedError):
            await full.enter()
        ended.append(asyncio.get_running_loop().time() - started - delay)

    await asyncio.gather(*(visit(delay) for delay in (0, 0.05, 0.1, 0.3)))

    assert all(0.19 < seconds < 0.3 for seconds in ended)
    assert (1, 0) == (full.taken, full.waiting)


async def test_one_who_came_after_the_others_left_is_watched_too():
    """The timer that was set for somebody who has been served since does not forget the next."""
    full = admission(wait_seconds=0.2)
    await full.enter()
    first = asyncio.create_task(full.enter())
    await asyncio.sleep(0.1)
    full.leave()
    await first

    with pytest.raises(PoolExhaustedError):
        await asyncio.wait_for(full.enter(), 0.4)


@pytest.mark.parametrize("may_be_shed", [True, False])
async def test_the_queue_has_an_end(may_be_shed):
    """Past it who may be refused is refused, and who may not waits all the same."""
    full = admission(wait_seconds=0.1)
    await full.enter()
    waiting = [asyncio.create_task(full.enter()) for _ in range(WAITING_PER_CONNECTION)]
    await asyncio.sleep(0)

    with pytest.raises(OverloadedError if may_be_shed else PoolExhaustedError):
        await full.enter(may_be_shed=may_be_shed)
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_place_for_one_who_has_just_given_up_goes_to_the_next():
    """Whether that one gave up before the place was given or in the same moment."""
    full = admission()
    await full.enter()
    before, after, last = (asyncio.create_task(full.enter()) for _ in range(3))
    await asyncio.sleep(0)
    before.cancel()
    full.leave()  # passes over the one who has given up, whose task has not run since
    after.cancel()  # has been given the place, and has not noticed yet
    await asyncio.wait_for(last, 1)

    assert (1, 0) == (full.taken, full.waiting)
    assert before.cancelled()
    assert after.cancelled()


async def test_no_place_is_lost():
    """Under many requests, some of them given up at any moment, places are never exceeded and all come back."""
    full, source, most = admission(places=3, wait_seconds=0.02), random.Random(7), 0

    async def visit():
        nonlocal most
        await full.enter(may_be_shed=False)
        try:
            most = max(most, full.taken)
            await asyncio.sleep(source.random() / 500)
        finally:
            full.leave()

    visits = []
    for _ in range(500):
        visits.append(asyncio.create_task(visit()))
        if source.random() < 0.3:
            asyncio.get_running_loop().call_later(source.random() / 50, visits[-1].cancel)
        if source.random() < 0.2:
            await asyncio.sleep(0.001)
    outcomes = await asyncio.gather(*visits, return_exceptions=True)

    kinds = {type(outcome) for outcome in outcomes}
    assert {type(None), asyncio.CancelledError, PoolExhaustedError} == kinds
    assert 3 == most
    assert (0, 0) == (full.taken, full.waiting)
