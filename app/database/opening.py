"""How each connection of a worker is opened, and with which limits."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from app import NAME
from app.database.failures import named

CONNECT_SECONDS = 1.5
"""How long opening one connection may take. A server that is alive answers within milliseconds."""

ANSWER_SECONDS = 0.5
"""How much longer than the statement's time the client waits before it gives the connection up:
the server cancels first, and only a server that is frozen or cut off does not."""

_UNNAMED = {"prepared_statement_cache_size": 0, "prepared_statement_name_func": str}
"""Every statement has the empty name, which the next one takes over."""


def make_engine(
    dsn: str, *, connections: int, statement_seconds: float, through_pgbouncer: bool, prepared_statements: bool
) -> AsyncEngine:
    """The engine whose pool opens the connections; the arguments are those of `connect`."""
    options = _options(statement_seconds, through_pgbouncer=through_pgbouncer)
    if not prepared_statements:
        # asyncpg then parses each statement in the round trip that runs it: PgBouncer sends that as a
        # whole to one server connection, and keeps this client on the one that described it before.
        options["statement_cache_size"] = 0
    return create_async_engine(
        "postgresql+asyncpg://",
        # For `transaction`: SQLAlchemy prepares by itself, besides asyncpg.
        connect_args={"async_creator_fn": partial(_open, dsn, options)} | ({} if prepared_statements else _UNNAMED),
        isolation_level="AUTOCOMMIT",
        pool_size=connections,
        max_overflow=0,
        pool_use_lifo=True,
        pool_reset_on_return=None,
        hide_parameters=True,
    )


async def _open(dsn: str, options: Mapping[str, Any]) -> asyncpg.Connection:
    try:
        return await asyncpg.connect(dsn, **options)
    except Exception as error:
        raise named(error) or error from error


def _options(statement_seconds: float, *, through_pgbouncer: bool) -> dict[str, Any]:
    options: dict[str, Any] = {
        "timeout": CONNECT_SECONDS,
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
