import asyncio
import random

import pytest

from app.database.logins import Login
from app.database.pool import Pool
from app.database_url import DatabaseHost
from app.errors import DatabaseUnavailableError, PoolExhaustedError
from tests.databases import PoolEvents


class OpenConnection:
    """A connection as the pool sees it. The tests of statements and faults use real ones."""

    opened_at = 0.0
    expires_at = float("inf")

    def is_closed(self):
        """It never is."""
        return False

    def is_reusable(self):
        """It is never inside a transaction."""
        return not self.is_closed()

    def is_cancelling(self):
        """It never is."""
        return False

    async def end(self, _seconds):
        """It ends at once."""


async def connect(_late):
    """A new connection."""
    return OpenConnection()


def make_pool(size=1, wait_seconds=5.0, connect=connect):
    """A pool that no request uses yet."""
    return Pool(connect, size=size, wait_seconds=wait_seconds, observer=PoolEvents())


async def acquire(pool):
    """A connection for the service itself."""
    return await pool.acquire(None, pool.lane(is_slow=False))


def release(pool, connection):
    """Return a connection of `acquire`."""
    pool.release(connection, None, pool.lane(is_slow=False))


def counts(pool):
    """Connections in use, and requests that wait."""
    return pool.state.in_use, pool.state.waiting


async def test_the_connection_used_last_is_used_next():
    """A second connection is opened only when the first is in use, and stays idle when it is not needed."""
    pool = make_pool(size=3)
    first, second = await acquire(pool), await acquire(pool)
    release(pool, first)
    release(pool, second)

    assert [second] * 3 == [await acquired_and_released(pool) for _ in range(3)]
    assert 2 == pool.state.open


async def acquired_and_released(pool):
    """The connection that the next request gets."""
    connection = await acquire(pool)
    release(pool, connection)
    return connection


async def test_a_failed_connect_frees_its_slot():
    """When opening a connection fails or is cancelled, the next request can try."""

    async def fail(_late):
        await asyncio.sleep(0.01)
        raise DatabaseUnavailableError

    pool = make_pool(connect=fail)
    cancelled = asyncio.create_task(acquire(pool))
    await asyncio.sleep(0)
    cancelled.cancel()

    for _ in range(3):
        with pytest.raises(DatabaseUnavailableError):
            await acquire(pool)
    assert (0, 0) == counts(pool)
    assert 0 == pool.state.open


@pytest.mark.parametrize("is_answered", [True, False])
async def test_a_connection_stays_in_use_until_its_statement_is_cancelled(is_answered):
    """Its slot is free when the server has ended the statement, or when the connection is closed."""

    class Cancelling(OpenConnection):
        answered = asyncio.Event()
        closed = False

        def is_closed(self):
            return self.closed

        def is_cancelling(self):
            return not self.answered.is_set() and not self.closed

        async def cancelled(self, _seconds):
            await self.answered.wait()
            self.closed = not is_answered
            return is_answered

        def terminate(self):
            self.closed = True

    async def connect(_late):
        return Cancelling()

    pool = make_pool(connect=connect)
    connection = await acquire(pool)
    release(pool, connection)
    waiting = asyncio.create_task(acquire(pool))
    await asyncio.sleep(0.05)
    assert (1, 1) == counts(pool)
    assert not waiting.done()

    connection.answered.set()
    given = await asyncio.wait_for(waiting, 5)

    assert is_answered == (given is connection)
    assert (1, 0) == counts(pool)
    assert 1 == pool.state.open


async def test_a_connection_is_opened_when_the_session_in_whose_place_it_is_has_ended():
    """The server would otherwise have one session more than the pool may open."""
    ended = asyncio.Event()

    class Expired(OpenConnection):
        expires_at = 0.0

        async def end(self, _seconds):
            await ended.wait()

    opened = iter([Expired(), OpenConnection()])

    async def connect(_late):
        return next(opened)

    pool = make_pool(connect=connect)
    release(pool, await acquire(pool))  # It is too old, so it is closed.
    waiting = asyncio.create_task(acquire(pool))
    await asyncio.sleep(0.05)
    assert not waiting.done()

    ended.set()
    assert not isinstance(await asyncio.wait_for(waiting, 5), Expired)


async def test_a_login_that_goes_on_keeps_its_place_and_its_lease():
    """Also when the pool is closed: the server may still finish it."""
    logins: list[Login] = []

    async def never():
        await asyncio.sleep(60)

    async def connect(late):
        logins.append(Login(DatabaseHost(name="127.0.0.1", port=1), never(), seconds=60))
        late.append(logins[0])
        raise DatabaseUnavailableError

    pool = make_pool(size=2, connect=connect)
    with pytest.raises(DatabaseUnavailableError):
        await acquire(pool)

    assert (1, 0) == counts(pool)
    assert (0, 1) == (pool.state.open, pool.sessions)
    await pool.close()
    assert 1 == pool.sessions
    await asyncio.sleep(0)  # it begins
    logins[0].task.cancel()
    await asyncio.wait({logins[0].task})


async def test_no_connection_is_lost():
    """Under many requests, some cancelled at random moments, the limit is never exceeded and all slots come back."""
    pool, source, most = make_pool(size=3, wait_seconds=0.02), random.Random(7), 0

    async def request():
        nonlocal most
        connection = await acquire(pool)
        try:
            most = max(most, pool.state.in_use)
            await asyncio.sleep(source.random() / 500)
        finally:
            release(pool, connection)

    requests = []
    for _ in range(500):
        requests.append(asyncio.create_task(request()))
        if source.random() < 0.3:
            asyncio.get_running_loop().call_later(source.random() / 50, requests[-1].cancel)
        if source.random() < 0.2:
            await asyncio.sleep(0.001)
    outcomes = await asyncio.gather(*requests, return_exceptions=True)

    assert {type(None), asyncio.CancelledError, PoolExhaustedError} <= {type(outcome) for outcome in outcomes}
    assert 3 == most
    assert (0, 0) == counts(pool)
    assert pool.state.open <= 3


async def test_a_smaller_pool_closes_what_it_has_too_many():
    """Idle connections at once, those in use when they are released; each counts until the server has ended it."""
    ended = asyncio.Event()

    class Ending(OpenConnection):
        async def end(self, _seconds):
            await ended.wait()

    async def connect(_late):
        return Ending()

    pool = make_pool(size=5, connect=connect)
    connections = [await acquire(pool) for _ in range(5)]
    for connection in connections[:2]:
        release(pool, connection)

    pool.resize(2)
    assert (3, 5) == (pool.state.open, pool.sessions)
    release(pool, connections[2])
    assert (2, 5) == (pool.state.open, pool.sessions)
    release(pool, connections[3])
    release(pool, connections[4])

    assert (2, 5) == (pool.state.open, pool.sessions)
    ended.set()
    await asyncio.sleep(0.01)
    assert 2 == pool.sessions == pool.state.size


async def test_a_connection_that_is_being_opened_is_one_of_the_sessions():
    """Also one that a request will open that was admitted a moment ago."""
    opened = asyncio.Event()

    async def connect(_late):
        await opened.wait()
        return OpenConnection()

    pool = make_pool(size=0, connect=connect)
    waiting = asyncio.create_task(acquire(pool))
    await asyncio.sleep(0)
    assert 0 == pool.sessions
    pool.resize(1)
    assert 1 == pool.sessions
    await asyncio.sleep(0.01)
    pool.resize(0)
    assert 1 == pool.sessions

    opened.set()
    release(pool, await waiting)
    assert 0 == pool.state.open


async def test_a_connection_that_replaces_a_closing_one_is_one_of_the_sessions():
    """A pool that becomes smaller meanwhile closes another one, and never counts fewer sessions than there will be."""
    ended = asyncio.Event()

    class Ending(OpenConnection):
        async def end(self, _seconds):
            await ended.wait()

    async def connect(_late):
        return Ending()

    pool = make_pool(size=3, connect=connect)
    connections = [await acquire(pool) for _ in range(3)]
    connections[0].expires_at = float("-inf")
    release(pool, connections[0])
    replacing = asyncio.create_task(acquire(pool))
    await asyncio.sleep(0)
    release(pool, connections[1])
    release(pool, connections[2])

    pool.resize(2)
    assert (1, 4) == (pool.state.open, pool.sessions)
    ended.set()
    while not replacing.done():
        assert pool.sessions >= 2
        await asyncio.sleep(0)
    assert 2 == pool.sessions == pool.state.open
