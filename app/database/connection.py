"""How each connection of a worker is opened, and with which limits."""

from collections.abc import Awaitable, Callable
from functools import partial
from time import perf_counter
from typing import Any, cast

import asyncpg

from app import NAME
from app.database.connecting import connect
from app.database.failures import failure_to_connect
from app.database_url import DatabaseUrl

CONNECT_SECONDS = 1.5
"""How long opening one connection may take. A server that is alive answers within milliseconds."""

ANSWER_SECONDS = 0.5
"""How much longer than the statement's time the client waits before it closes the connection:
the server cancels the statement first, unless it is frozen or cut off."""


class Connection(asyncpg.Connection):
    """A connection that knows its age."""

    __slots__ = ("opened_at",)

    _protocol: Any
    opened_at: float
    """By `perf_counter`, before the connection was opened."""

    def is_in_transaction(self) -> bool:
        """Whether a transaction is open. A closed connection has none."""
        return not self.is_closed() and super().is_in_transaction()

    @property
    def executions(self) -> int:
        """How many statements were sent to be executed; preparing one does not count. -1 after `terminate`."""
        return -1 if self._protocol is None else self._protocol.queries_count


def connector(
    url: DatabaseUrl, *, statement_seconds: float, through_pgbouncer: bool, prepared_statements: bool
) -> Callable[[], Awaitable[Connection]]:
    """A function that opens a connection; the arguments are those of `database.connect`."""
    options = _options(statement_seconds, through_pgbouncer=through_pgbouncer)
    if not prepared_statements:
        # asyncpg then parses each statement in the round trip that runs it: PgBouncer sends that as a
        # whole to one server connection, and keeps this client on the one that described it before.
        options["statement_cache_size"] = 0
    return partial(_open, url, options)


async def _open(url: DatabaseUrl, options: dict[str, Any]) -> Connection:
    started = perf_counter()
    try:
        opened = await connect(url, host_seconds=CONNECT_SECONDS, connection_class=Connection, **options)
    except Exception as error:
        raise failure_to_connect(error) from error
    connection = cast(Connection, opened)
    connection.opened_at = started
    return connection


def _options(statement_seconds: float, *, through_pgbouncer: bool) -> dict[str, Any]:
    options: dict[str, Any] = {
        "command_timeout": statement_seconds + ANSWER_SECONDS,
        "server_settings": {"application_name": NAME},
    }
    if through_pgbouncer:
        # PgBouncer refuses the parameters below: the role carries the limits instead.
        return options
    options["server_settings"] |= {
        "statement_timeout": str(int(statement_seconds * 1000)),
        "idle_in_transaction_session_timeout": str(int((statement_seconds + 1) * 1000)),
        "jit": "off",
    }
    return options
