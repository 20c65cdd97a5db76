"""Limits on all connections of a worker together: their number, and the bytes that they buffer."""

import asyncio
import time
from abc import abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping
from enum import StrEnum
from heapq import nsmallest
from typing import Final, Protocol

import structlog

log = structlog.get_logger(__name__)

_AT_ONCE: Final = 64
"""How many connections a search finds, so that not every new connection causes a search."""

_SETTLED_SECONDS: Final = 0.2
"""A connection that has been idle or receiving for less is closed after all others: its client may be about to send."""

_SEARCH_COST: Final = 10
"""After a search that found nothing, the worker does not search for this many times the search's own duration."""

_LOG_SECONDS: Final = 60.0


class Phase(StrEnum):
    """What a connection is doing."""

    CLOSING = "closing"
    """Nothing more is answered. It waits until its client has read the last response."""

    IDLE = "idle"
    """No request has begun to arrive."""

    RECEIVING = "receiving"
    """A request has begun to arrive and has not arrived completely."""

    UNREAD = "unread"
    """Its client does not read the response as fast as it is written."""

    RUNNING = "running"
    """A handler runs. It is not closed because of the number of connections."""


_WAITING: Final = frozenset({Phase.IDLE, Phase.RECEIVING})

_ORDER: Final = (
    (Phase.CLOSING, False),
    (Phase.IDLE, False),
    (Phase.RECEIVING, False),
    (Phase.IDLE, True),
    (Phase.RECEIVING, True),
    (Phase.UNREAD, False),
)
"""The order in which connections are closed: their phase, and whether they were answered before."""


class Reason(StrEnum):
    """Why a connection was closed. The metric `worker_connections_shed_total` has a series for each."""

    CLOSING = "closing"
    IDLE = "idle"
    RECEIVING = "receiving"
    UNREAD = "unread"
    """MAX_CONNECTIONS was exceeded, and the connection was in this phase."""

    REFUSED = "refused"
    """MAX_CONNECTIONS was exceeded, and the handlers of all other connections were running: the new one gets 503."""

    BUFFERED_BYTES = "buffered_bytes"
    """MAX_BUFFERED_BYTES was exceeded."""


class Client(Protocol):
    """A connection, as far as its worker's totals need to know it."""

    @property
    def phase(self) -> Phase:
        """What the connection is doing."""

    @property
    def since(self) -> float:
        """When the phase has begun, or when the client has last made progress in it."""

    @property
    def has_answered(self) -> bool:
        """Whether a request of this connection was answered before."""

    @abstractmethod
    def has_input(self) -> bool:
        """Whether something has arrived that was not read yet."""

    @abstractmethod
    def buffered_bytes(self) -> int:
        """The bytes of the request, and those of the response that are in memory until all are sent."""

    @abstractmethod
    def moved_bytes(self) -> int:
        """A number that changes when the client sends or reads."""

    @abstractmethod
    def shed(self) -> None:
        """Close at once, and leave the worker's set of connections."""


class Observer(Protocol):
    """Receives the totals."""

    @abstractmethod
    def set_client_connections(self, connections: Mapping[str, int], *, buffered_bytes: int) -> None:
        """The number of connections by their phase, and the bytes that all of them buffer."""

    @abstractmethod
    def connections_shed(self, reason: str, connections: int) -> None:
        """So many connections were closed for this reason."""


class Totals:
    """Keeps the connections of one worker within its limits."""

    def __init__(
        self,
        connections: Collection[Client],
        *,
        max_connections: int,
        max_buffered_bytes: int,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """Limit these connections, a collection that others change.

        Args:
            connections: The open connections of the worker.
            max_connections: The most of them.
            max_buffered_bytes: The most bytes that all of them buffer.
            clock: The clock of the connections' times, by default that of the running event loop.
        """
        self._connections = connections
        self._max_connections = max_connections
        self._max_buffered_bytes = max_buffered_bytes
        self._fair_bytes = max_buffered_bytes // max_connections
        """A connection that buffers no more than this is not closed because of its bytes. If no connection
        buffers more, all of them together are within the limit."""
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._buffered_bytes = 0
        """At least what is buffered: it only grows between two measurements."""
        self._candidates: deque[tuple[Phase, Client]] = deque()
        self._search_after = 0.0
        self._moved: dict[Client, int] = {}
        self._stalled: set[Client] = set()
        self._shed = Counter[Reason]()
        self._unlogged = Counter[Reason]()
        self._log_after = 0.0

    def admit(self, newcomer: Client) -> bool:
        """Close others until a new connection is within the limit. False if it has to be refused."""
        while len(self._connections) > self._max_connections:
            found = self._take() or self._search(newcomer)
            if found is None:
                self._count(Reason.REFUSED)
                return False
            phase, client = found
            client.shed()
            self._count(Reason(phase))
        return True

    def buffered(self, size: int) -> None:
        """So many bytes more are buffered than before. If that exceeds the limit, connections are closed."""
        self._buffered_bytes += size
        if self._buffered_bytes > self._max_buffered_bytes:
            self._limit_bytes()

    def measure(self, observer: Observer | None) -> None:
        """Measure what is buffered, report it, and log what was closed. The heartbeat calls this."""
        sizes = self._limit_bytes()
        moved = {client: client.moved_bytes() for client, size in sizes.items() if size > self._fair_bytes}
        self._stalled = {client for client, count in moved.items() if self._moved.get(client) == count}
        self._moved = moved
        if observer is not None:
            self._report(observer)
        now = self._clock()
        if self._unlogged and now >= self._log_after:
            self._log_after = now + _LOG_SECONDS
            log.warning(
                "connections_shed",
                **{f"closed_{reason}": self._unlogged[reason] for reason in Reason if self._unlogged[reason]},
                connections=len(self._connections),
                max_connections=self._max_connections,
                buffered_bytes=self._buffered_bytes,
                max_buffered_bytes=self._max_buffered_bytes,
            )
            self._unlogged.clear()

    def _report(self, observer: Observer) -> None:
        phases = Counter(client.phase for client in self._connections)
        observer.set_client_connections({phase: phases[phase] for phase in Phase}, buffered_bytes=self._buffered_bytes)
        for reason in Reason:  # each series exists before it grows, so that an alert sees the first increase
            observer.connections_shed(reason, self._shed[reason])
        self._shed.clear()

    def _take(self) -> tuple[Phase, Client] | None:
        """The next connection of the last search that is still in its phase."""
        while self._candidates:
            phase, client = self._candidates.popleft()
            if client not in self._connections or client.phase is not phase:
                continue
            # Its request has arrived. It would be lost, and the client would see a reset.
            if phase is Phase.IDLE and client.has_input():
                continue
            return phase, client
        return None

    def _search(self, newcomer: Client) -> tuple[Phase, Client] | None:
        now = self._clock()
        if now < self._search_after:
            return None
        started = time.perf_counter()
        ranked: dict[int, list[Client]] = {}
        for client in self._connections:
            if client is not newcomer and (rank := _rank(client, now)) is not None:
                ranked.setdefault(rank, []).append(client)
        for rank in sorted(ranked):
            first = nsmallest(_AT_ONCE, ranked[rank], key=lambda client: client.since)
            self._candidates = deque((client.phase, client) for client in first)
            if found := self._take():
                return found
        self._search_after = now + _SEARCH_COST * (time.perf_counter() - started)
        return None

    def _limit_bytes(self) -> dict[Client, int]:
        """Close the largest until a tenth of the limit is free; those first that neither send nor read.

        Returns:
            The size of each connection that is left.
        """
        sizes = {client: client.buffered_bytes() for client in self._connections}
        total = sum(sizes.values())
        if total > self._max_buffered_bytes:
            large = [client for client, size in sizes.items() if size > self._fair_bytes]
            large.sort(key=lambda c: (c.phase is Phase.RUNNING, c not in self._stalled, -sizes[c], c.since))
            for client in large:
                if total <= self._max_buffered_bytes * 9 // 10:
                    break
                total -= sizes.pop(client)
                client.shed()
                self._count(Reason.BUFFERED_BYTES)
        self._buffered_bytes = total
        return sizes

    def _count(self, reason: Reason) -> None:
        self._shed[reason] += 1
        self._unlogged[reason] += 1


def _rank(client: Client, now: float) -> int | None:
    """The place of a connection in the order in which connections are closed; None if it must stay open.

    A client that was answered before is well-behaved, and keeps its connection for longer than one that was not.
    """
    phase = client.phase
    if phase is Phase.RUNNING:
        return None
    rank = _ORDER.index((phase, phase in _WAITING and client.has_answered))
    is_settled = phase not in _WAITING or client.since < now - _SETTLED_SECONDS
    return rank if is_settled else rank + len(_ORDER)
