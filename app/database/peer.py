"""Checks that a new connection leads to what the settings say: to PostgreSQL itself, or to a pooler of that kind."""

from typing import Final

import asyncpg

from app.errors import DatabaseSetupError

POOLER_NOT_DECLARED: Final = (
    "DATABASE_URL or DATABASE_REPLICA_URL leads to a connection pooler, and DATABASE_POOLER does not say so: write "
    "DATABASE_POOLER=pgbouncer, or let the URL lead to PostgreSQL itself."
)

PARAMETERS_REFUSED: Final = (
    "DATABASE_URL or DATABASE_REPLICA_URL leads to a server that refuses this service's startup parameters, as "
    "PgBouncer does: write DATABASE_POOLER=pgbouncer, or let the URL lead to PostgreSQL itself."
)

PARAMETERS_REFUSED_BY_POOLER: Final = (
    "The pooler refuses application_name or client_encoding, the startup parameters that this service "
    "sends to a pooler: let it accept or ignore both, as PgBouncer does."
)

NO_PREPARED_STATEMENTS: Final = (
    "DATABASE_POOLER=pgbouncer-prepared needs PgBouncer 1.21 or newer in transaction mode with "
    "max_prepared_statements of 100 or more, and the pooler does not keep prepared statements: "
    "write DATABASE_POOLER=pgbouncer."
)

NOT_READ_COMMITTED: Final = (
    "The transactions of this role are not read committed, and behind a pooler the service cannot change that: run "
    "ALTER ROLE … SET default_transaction_isolation = 'read committed', with the role of DATABASE_URL."
)


async def check_peer(
    connection: asyncpg.Connection, *, statement_prefix: str, through_pgbouncer: bool, prepared_statements: bool
) -> None:
    """Refuse a connection on which statements could fail, or have other limits or another isolation level.

    Args:
        connection: A new one.
        statement_prefix: How the names of its prepared statements begin.
        through_pgbouncer: Whether DATABASE_POOLER names a pooler.
        prepared_statements: Whether statements are prepared.

    Raises:
        DatabaseSetupError: With a sentence that says what to write.
    """
    if not through_pgbouncer:
        if await is_pooled(connection):
            raise DatabaseSetupError(POOLER_NOT_DECLARED)
        return
    if not await _holds(connection, "current_setting('transaction_isolation') = 'read committed'"):
        raise DatabaseSetupError(NOT_READ_COMMITTED)
    if prepared_statements and await is_pooled(connection) and await _passes_names_on(connection, statement_prefix):
        raise DatabaseSetupError(NO_PREPARED_STATEMENTS)


async def is_pooled(connection: asyncpg.Connection) -> bool:
    """Whether a pooler answers: it invents the process id that it sends when a client connects.

    The pooling mode, session or transaction, cannot be detected this way.
    """
    return not await _holds(connection, f"pg_backend_pid() = {connection.get_server_pid()}")


async def _passes_names_on(connection: asyncpg.Connection, statement_prefix: str) -> bool:
    """Whether the server knows a prepared statement by this connection's own name.

    A pooler that keeps prepared statements renames them, so that each of its server connections
    can have them. One that does not passes the name on to one server connection only.
    """
    names: int = await connection.fetchval(
        "SELECT count(*) FROM pg_prepared_statements WHERE starts_with(name, $1)", statement_prefix
    )
    return names > 0


async def _holds(connection: asyncpg.Connection, condition: str) -> bool:
    """Whether this is true in the server. A statement without parameters is not prepared."""
    return await connection.execute(f"SELECT WHERE {condition}") == "SELECT 1"  # nosec  # constants
