"""The two kinds of statements, each with the connections that it uses and the requests that wait for one."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from sqlalchemy import Executable

WAITING_PER_CONNECTION: Final = 20
"""How many requests of one client may wait for each connection of a lane. With statements of 20 ms the last of
them waits for 0.4 s. See docs/decisions/0040-load-shedding.md."""

ALL_WAITING_PER_CONNECTION: Final = 30
"""How many requests of all clients may wait for each connection of a lane."""

SLOW_OPTION: Final = "slow_lane"

Client = str | None
S = TypeVar("S", bound=Executable)


def slow(statement: S) -> S:
    """This statement, to be run in the slow lane: with fewer connections and a shorter time.

    For statements that read more than they return, such as searches and exact counts. Other statements
    do not wait for them.
    """
    return statement.execution_options(**{SLOW_OPTION: True})


@dataclass(slots=True, eq=False)
class Waiter:
    """A request that waits for a connection."""

    client: Client
    lane: "Lane"
    started: float
    slot: asyncio.Future[bool]
    """True: it may use a connection. False: it is refused, because its client has more waiters than others."""
    by_own_share: bool = False
    """Whether a refusal counts as one because of its client's own share."""


class Lane:
    """The statements of one kind. Its clients take turns, first those that use the fewest connections."""

    def __init__(self, size: int) -> None:
        """Begin with no connection in use.

        Args:
            size: How many connections these statements may use at the same time. It may be 0 for a while.
        """
        self.size = size
        self.in_use = 0
        self.waiting = 0
        self._held: dict[Client, int] = {}
        """How many connections each client uses."""
        self._queues: OrderedDict[Client, deque[Waiter]] = OrderedDict()
        """The waiters of each client. The client whose turn is next comes first."""

    def held_by(self, client: Client) -> int:
        """How many connections this client uses."""
        return self._held.get(client, 0)

    def take(self, client: Client) -> None:
        """Count one more connection that this client uses."""
        self.in_use += 1
        self._held[client] = self._held.get(client, 0) + 1

    def give_back(self, client: Client) -> None:
        """Count one connection less that this client uses."""
        self.in_use -= 1
        held = self._held[client] - 1
        if held:
            self._held[client] = held
        else:
            del self._held[client]

    def add(self, waiter: Waiter) -> None:
        """Put a waiter behind the others of its client."""
        self.waiting += 1
        queue = self._queues.get(waiter.client)
        if queue is None:
            queue = self._queues[waiter.client] = deque()
        queue.append(waiter)

    def remove(self, waiter: Waiter) -> None:
        """Take a waiter out of the queue."""
        self.waiting -= 1
        queue = self._queues[waiter.client]
        queue.remove(waiter)
        if not queue:
            del self._queues[waiter.client]

    def next(self, may_take: Callable[[Client, "Lane"], bool]) -> Waiter | None:
        """Whose turn it is: the first waiter of the client that uses the fewest connections. Its next turn comes last.

        At most `size` clients use a connection, so no more than that are passed over.
        """
        chosen, fewest = None, self.size
        for client, queue in self._queues.items():
            held = self._held.get(client, 0)
            if held < fewest and may_take(client, self):
                chosen, fewest = queue[0], held
                if not held:
                    break
        if chosen is not None:
            self._queues.move_to_end(chosen.client)
        return chosen

    def is_full_for(self, client: Client) -> bool:
        """Whether as many requests of this client wait as may."""
        queue = self._queues.get(client)
        return queue is not None and len(queue) >= max(1, self.size) * WAITING_PER_CONNECTION

    @property
    def is_full(self) -> bool:
        """Whether as many requests of all clients wait as may."""
        return self.waiting >= max(1, self.size) * ALL_WAITING_PER_CONNECTION

    def waiting_of(self, client: Client) -> int:
        """How many requests of this client wait."""
        return len(self._queues.get(client, ()))

    def is_crowded_by(self, client: Client) -> bool:
        """Whether this client has more than half of the waiting requests."""
        return client is not None and 2 * self.waiting_of(client) > self.waiting

    def is_mostly_used_by(self, client: Client) -> bool:
        """Whether this client uses more than half of the connections in use."""
        return client is not None and 2 * self.held_by(client) > self.in_use

    def to_refuse_for(self, client: Client) -> Waiter | None:
        """The waiter that makes room for one of this client: the newest one of the client that has the most.

        None where this client would have as many itself. The service's own requests are not refused.
        """
        own = len(self._queues.get(client, ()))
        longest = max((queue for of, queue in self._queues.items() if of is not None), key=len, default=None)
        return longest[-1] if longest and len(longest) > own + 1 else None
