import asyncio
import random

import pytest

from app.database.pool import WAITING_PER_CONNECTION, Pool
from app.errors import DatabaseUnavailableError, OverloadedError, PoolExhaustedError
from tests.databases import PoolEvents


class OpenConnection:
    """A connection as the pool sees it. The tests of statements and faults use real ones."""

    opened_at = 0.0
    expires_at = float("inf")

    def is_closed(self):
        """It never is."""
        return False

    def is_in_transaction(self):
        """It never is."""
        return False


async def connect():
    """A new connection."""
    return OpenConnection()


def make_pool(size=1, wait_seconds=5.0, connect=connect):
    """A pool that no request uses yet."""
    return Pool(connect, size=size, wait_seconds=wait_seconds, observer=PoolEvents())


def counts(pool):
    """Connections in use, and requests that wait."""
    return pool.state.in_use, pool.state.waiting


async def test_connections_are_given_in_the_order_of_arrival():
    """A released connection goes to the request that has waited longest."""
    pool, order = make_pool(), []
    held = await pool.acquire()

    async def request(number):
        connection = await pool.acquire()
        order.append(number)
        await asyncio.sleep(0)
        pool.release(connection)

    requests = [asyncio.create_task(request(number)) for number in range(5)]
    await asyncio.sleep(0.01)
    assert (1, 5) == counts(pool)
    assert [] == order
    pool.release(held)
    await asyncio.gather(*requests)

    assert list(range(5)) == order
    assert (0, 0) == counts(pool)


async def test_the_connection_used_last_is_used_next():
    """A second connection is opened only when the first is in use, and stays idle when it is not needed."""
    pool = make_pool(size=3)
    first, second = await pool.acquire(), await pool.acquire()
    pool.release(first)
    pool.release(second)

    assert [second] * 3 == [await acquired_and_released(pool) for _ in range(3)]
    assert 2 == pool.state.open


async def acquired_and_released(pool):
    """The connection that the next request gets."""
    connection = await pool.acquire()
    pool.release(connection)
    return connection


async def test_every_wait_has_the_same_limit():
    """One timer serves all waiters: each ends after its own wait, not after that of the first."""
    pool = make_pool(wait_seconds=0.2)
    await pool.acquire()
    now, waits = asyncio.get_running_loop().time, []

    async def request(delay):
        await asyncio.sleep(delay)
        started = now()
        with pytest.raises(PoolExhaustedError):
            await pool.acquire()
        waits.append(now() - started)

    await asyncio.gather(*(request(delay) for delay in (0, 0.05, 0.1, 0.3)))

    assert 4 == len(waits)
    assert all(0.19 < seconds < 0.38 for seconds in waits), waits
    assert (1, 0) == counts(pool)


async def test_a_wait_ends_in_time_after_an_earlier_waiter_was_served():
    """The timer that was set for a waiter who has a connection now does not forget the next waiter."""
    pool = make_pool(wait_seconds=0.2)
    held = await pool.acquire()
    first = asyncio.create_task(pool.acquire())
    await asyncio.sleep(0.1)
    pool.release(held)
    await first

    with pytest.raises(PoolExhaustedError):
        await asyncio.wait_for(pool.acquire(), 0.4)


@pytest.mark.parametrize("sheddable", [True, False])
async def test_the_queue_is_bounded(sheddable):
    """When it is full, a sheddable request is refused, and any other waits."""
    pool = make_pool(wait_seconds=0.1)
    await pool.acquire()
    waiting = [asyncio.create_task(pool.acquire()) for _ in range(WAITING_PER_CONNECTION)]
    await asyncio.sleep(0)

    with pytest.raises(OverloadedError if sheddable else PoolExhaustedError):
        await pool.acquire(sheddable=sheddable)
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_cancelled_waiter_takes_no_connection():
    """Cancelled before the connection came free or at the same moment: the next waiter gets it."""
    pool = make_pool()
    held = await pool.acquire()
    before, after, last = (asyncio.create_task(pool.acquire()) for _ in range(3))
    await asyncio.sleep(0)
    before.cancel()
    pool.release(held)  # passes over the cancelled waiter, whose task has not run since
    after.cancel()  # has been given the slot, and its task has not run since
    await asyncio.wait_for(last, 1)

    assert (1, 0) == counts(pool)
    assert before.cancelled()
    assert after.cancelled()


async def test_a_failed_connect_frees_its_slot():
    """When opening a connection fails or is cancelled, the next request can try."""

    async def fail():
        await asyncio.sleep(0.01)
        raise DatabaseUnavailableError

    pool = make_pool(connect=fail)
    cancelled = asyncio.create_task(pool.acquire())
    await asyncio.sleep(0)
    cancelled.cancel()

    for _ in range(3):
        with pytest.raises(DatabaseUnavailableError):
            await pool.acquire()
    assert (0, 0) == counts(pool)
    assert 0 == pool.state.open


async def test_no_connection_is_lost():
    """Under many requests, some cancelled at random moments, the limit is never exceeded and all slots come back."""
    pool, source, most = make_pool(size=3, wait_seconds=0.02), random.Random(7), 0

    async def request():
        nonlocal most
        connection = await pool.acquire(sheddable=False)
        try:
            most = max(most, pool.state.in_use)
            await asyncio.sleep(source.random() / 500)
        finally:
            pool.release(connection)

    requests = []
    for _ in range(500):
        requests.append(asyncio.create_task(request()))
        if source.random() < 0.3:
            asyncio.get_running_loop().call_later(source.random() / 50, requests[-1].cancel)
        if source.random() < 0.2:
            await asyncio.sleep(0.001)
    outcomes = await asyncio.gather(*requests, return_exceptions=True)

    assert {type(None), asyncio.CancelledError, PoolExhaustedError} == {type(outcome) for outcome in outcomes}
    assert 3 == most
    assert (0, 0) == counts(pool)
    assert pool.state.open <= 3
