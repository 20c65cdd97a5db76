"""The connections of one worker: a bounded number, used last in first out."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Final, Protocol, cast

from app.database.admission import Admission, AdmissionObserver
from app.database.connection import Connection
from app.database.lanes import Client, Lane
from app.database.logins import Login, first_connection
from app.errors import DatabaseUnavailableError

REPLACE_SECONDS: Final = 1.0
"""The least time between two replacements of all connections."""

CLOSE_SECONDS: Final = 1.0
"""How long the server may take to end a session that is closed."""

CANCEL_SECONDS: Final = 1.0
"""How long the server may take to end a statement that was cancelled. Then the connection is closed."""


class PoolObserver(AdmissionObserver, Protocol):
    """Receives the pool's events, for the metrics."""

    def pool_opened(self) -> None:
        """A connection was opened."""

    def pool_closed(self) -> None:
        """A connection was closed by the service or found closed by the server."""


@dataclass(slots=True, kw_only=True)
class LaneState:
    """One kind of statements at one moment: numbers of connections, and of requests that wait for one."""

    size: int
    in_use: int
    waiting: int


@dataclass(slots=True, kw_only=True)
class PoolState:
    """The pool at one moment: numbers of connections, and of requests that wait for one."""

    size: int
    """The most connections that may be open now."""
    open: int
    in_use: int
    waiting: int
    slow: LaneState
    """The part that slow statements have in these numbers."""


class Pool:
    """Up to `size` connections. Each serves one request at a time; the one used last is used next.

    A request is admitted, and takes an idle connection or opens a new one. The size may change.
    """

    def __init__(
        self,
        connect: Callable[[list[Login]], Awaitable[Connection]],
        *,
        size: int,
        wait_seconds: float,
        observer: PoolObserver,
    ) -> None:
        self._admission = Admission(size=size, wait_seconds=wait_seconds, observer=observer)
        self._connect = connect
        self._observer = observer
        self._idle: list[Connection] = []
        self.connections: set[Connection] = set()
        """All that are open: the idle ones, and those in use."""
        self._cancelling: set[asyncio.Task[None]] = set()
        """One for each connection whose last statement is being cancelled in the server."""
        self._closing: set[asyncio.Task[None]] = set()
        """One for each connection whose session the server is ending."""
        self._late: set[asyncio.Task[None]] = set()
        """One for each place of a request that has not waited for the end of its login."""
        self._opening = 0
        self._replaced_at = float("-inf")
        self._is_closed = False

    @property
    def state(self) -> PoolState:
        """The pool at this moment."""
        quick, slow = self._admission.quick, self._admission.slow
        return PoolState(
            size=self._admission.size,
            open=len(self.connections),
            in_use=quick.in_use + slow.in_use,
            waiting=quick.waiting + slow.waiting,
            slow=LaneState(size=slow.size, in_use=slow.in_use, waiting=slow.waiting),
        )

    @property
    def sessions(self) -> int:
        """How many sessions the server may have for this pool, now or as soon as the admitted requests have run on."""
        in_use = self._admission.quick.in_use + self._admission.slow.in_use
        return len(self._closing) + max(len(self.connections) + self._opening, in_use)

    def resize(self, size: int) -> None:
        """Have up to this many connections from now on. Those beyond it are closed: now, or when they are released."""
        if size != self._admission.size:
            self._admission.resize(size)
            while self._idle and self._has_too_many:
                self._discard(self._idle.pop(0))

    @property
    def _has_too_many(self) -> bool:
        return len(self.connections) + self._opening > self._admission.size

    def lane(self, *, is_slow: bool) -> Lane:
        """The lane of slow statements, or that of all others."""
        return self._admission.slow if is_slow else self._admission.quick

    def in_use(self) -> set[Connection]:
        """The connections that requests use, also those whose statement is being cancelled."""
        return self.connections.difference(self._idle)

    async def acquire(self, client: Client, lane: Lane) -> Connection:
        """Take a connection; wait for one if this client may use none now.

        Args:
            client: Who asks; None for the service itself.
            lane: The kind of the statement.

        Raises:
            OverloadedError: Too many requests wait already.
            PoolExhaustedError: No connection came free in time.
            DatabaseUnavailableError: A new connection could not be opened.
        """
        if not self._admission.enter_now(client, lane):
            await self._admission.wait(client, lane)
        return self._take_idle() or await self._open(client, lane)

    async def acquire_first(self) -> Connection:
        """Take a connection for the check of the database, before all requests that wait for one.

        It is released as that of a quick statement of the service itself.

        Raises:
            DatabaseUnavailableError: A new connection could not be opened, or logins are late and none is open.
        """
        if self._late and not self.connections:
            raise DatabaseUnavailableError from TimeoutError("logins take longer than a request waits")
        await self._admission.enter_first()
        return self._take_idle() or await self._open(None, self._admission.quick)

    def release(self, connection: Connection, client: Client, lane: Lane) -> None:
        """Return a connection that `acquire` gave. A closed one, or one inside a transaction, is not used again.

        If its last statement is being cancelled, it stays in use until the server has ended that statement: the next
        request would wait for it, and a statement that goes on beside a new connection would exceed the limit.
        """
        if connection.is_cancelling():
            task = asyncio.create_task(self._release_when_cancelled(connection, client, lane))
            self._cancelling.add(task)
            task.add_done_callback(self._cancelling.discard)
        else:
            self._release(connection, client, lane)

    def replace_all(self) -> None:
        """Replace every connection that is open now before it is used again, at most once in REPLACE_SECONDS."""
        now = perf_counter()
        if now > self._replaced_at + REPLACE_SECONDS:
            self._replaced_at = now

    def drop_all(self) -> None:
        """Close every connection now, and fail the requests that wait for one. Those that run a statement fail, too."""
        self._admission.fail_waiters()
        for connection in self.connections:
            connection.terminate()
        while self._idle:
            self._discard(self._idle.pop())

    async def close(self) -> None:
        """Close the idle connections now, and each other one when it is released."""
        self._is_closed = True
        for task in self._late:
            # It keeps its place: the server may still finish the login, so its lease has to rest.
            task.cancel()
        await asyncio.gather(*self._cancelling, return_exceptions=True)
        while self._idle:
            self._discard(self._idle.pop())
        await asyncio.gather(*self._closing, return_exceptions=True)

    async def _release_when_cancelled(self, connection: Connection, client: Client, lane: Lane) -> None:
        try:
            if not await connection.cancelled(CANCEL_SECONDS):
                # The server does not answer: the network may have lost the other connections, too.
                self.replace_all()
        finally:
            self._release(connection, client, lane)

    def _release(self, connection: Connection, client: Client, lane: Lane) -> None:
        if self._is_closed:
            connection.terminate()  # The worker stops, and waits for no session.
        if self._has_too_many or not connection.is_reusable():
            self._discard(connection)
        else:
            self._idle.append(connection)
            if (oldest := self._idle[0]).expires_at < perf_counter():
                # It is used last, and under a low load never again.
                self._idle.remove(oldest)
                self._discard(oldest)
        self._admission.leave(client, lane)

    def _take_idle(self) -> Connection | None:
        """The usable connection that was used last. Asking the driver takes no round trip, unlike a pre-ping."""
        now = perf_counter()
        while self._idle:
            connection = self._idle.pop()
            is_suspect = connection.opened_at < self._replaced_at
            if not connection.is_closed() and not is_suspect and now < connection.expires_at:
                return connection
            if is_suspect:
                # Its server may not answer, so its end is not waited for.
                connection.terminate()
            self._discard(connection)
        return None

    async def _open(self, client: Client, lane: Lane) -> Connection:
        """Open a connection for a request that has a place. If logins are late, the place stays theirs."""
        late: list[Login] = []
        try:
            return await self._open_new(late)
        except BaseException:
            if late:
                self._opening += 1
                task = asyncio.create_task(self._wait_for(late, client, lane))
                self._late.add(task)
                task.add_done_callback(self._late.discard)
                if not self.connections:
                    self._admission.fail_check()
            else:
                self._admission.leave(client, lane)
            raise

    async def _open_new(self, late: list[Login]) -> Connection:
        """Open a connection, once the sessions in whose place it is have ended in the server."""
        self._opening += 1
        try:
            if self._closing:
                await asyncio.wait(self._closing)
            connection = await self._connect(late)
        finally:
            self._opening -= 1
        self._add(connection)
        return connection

    async def _wait_for(self, late: list[Login], client: Client, lane: Lane) -> None:
        """Keep the place of a request until the server has ended its logins, and use the connection of one of them."""
        connection = await first_connection(late)
        self._opening -= 1
        if connection is None:
            self._admission.leave(client, lane)
        else:
            self._add(cast(Connection, connection))
            self._release(cast(Connection, connection), client, lane)

    def _add(self, connection: Connection) -> None:
        self.connections.add(connection)
        self._observer.pool_opened()

    def _discard(self, connection: Connection) -> None:
        if not connection.is_closed():
            task = asyncio.create_task(connection.end(CLOSE_SECONDS))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        self.connections.discard(connection)
        self._observer.pool_closed()
