"""Leaves a server that no longer answers, once another host of the URL takes writes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import structlog

from app.database.connection import Connector
from app.database.logins import answers
from app.database.pool import Pool
from app.database_url import DatabaseHost

log = structlog.get_logger(__name__)

INTERVAL_SECONDS: Final = 0.5
"""The time between two checks of the connections. A statement that still runs at the second check is long."""

SUSPECT_SECONDS: Final = 0.1
"""The time between two checks while a server does not answer."""

ANSWER_SECONDS: Final = 0.5
"""How long a server may take to answer a probe."""


@asynccontextmanager
async def leaving_frozen_hosts(pool: Pool, connector: Connector) -> AsyncIterator[None]:
    """Check the connections in the background while the block runs, if the URL has another host.

    A frozen server, or one that is cut off, closes no connection. The statements on it would fail only at the end of
    their time, and would keep the pool's connections from the new primary until then.
    """
    if not connector.can_fail_over:
        yield
        return
    task = asyncio.create_task(_Watch(pool, connector).run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class _Watch:
    def __init__(self, pool: Pool, connector: Connector) -> None:
        self._pool = pool
        self._connector = connector
        self._executions: dict[int, int] = {}
        """What each connection in use had executed at the last check, by the connection's identity."""
        self._suspects: set[DatabaseHost] = set()
        """The hosts that did not answer at the last check."""

    async def run(self) -> None:
        """Check the connections until the task is cancelled."""
        while True:
            await asyncio.sleep(SUSPECT_SECONDS if self._suspects else INTERVAL_SECONDS)
            silent = self._silent_hosts()
            unanswered = {host for host in silent if not await answers(host, ANSWER_SECONDS)}
            # Twice: a server that is only busy may be late once.
            for host in unanswered & self._suspects:
                if await self._connector.another_takes_writes(host):
                    self._leave(host)
                    unanswered.discard(host)
            self._suspects = unanswered

    def _silent_hosts(self) -> set[DatabaseHost]:
        """The hosts of connections that run the same statement as at the last check."""
        in_use = self._pool.in_use()
        before = self._executions
        self._executions = {id(connection): connection.executions for connection in in_use}
        return {c.host for c in in_use if before.get(id(c)) == c.executions}

    def _leave(self, host: DatabaseHost) -> None:
        """Close every connection to this host. Their statements fail, and the next ones go to the other host."""
        connections = [connection for connection in self._pool.connections if connection.host == host]
        log.warning(
            "database_host_left",
            host=self._connector.number(host),
            connections=len(connections),
            cause="The host does not answer, and another one takes writes.",
        )
        for connection in connections:
            connection.terminate()
