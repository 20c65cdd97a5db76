"""Runs statements on the pool's connections, and names their failures."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg

from app.database.connection import Connection
from app.database.failures import is_broken_connection, is_read_only, is_stale_plan, statement_failure
from app.database.pool import Pool
from app.database.statements import CompiledStatement


class Executor:
    """Runs what it is given on a connection. A connection whose state is unknown afterwards is closed."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def fetch(
        self,
        connection: Connection,
        statement: CompiledStatement,
        parameters: Mapping[str, Any],
        *,
        in_transaction: bool = False,
    ) -> Sequence[asyncpg.Record]:
        """Run one statement and fetch all its rows.

        A statement whose plan is stale, because the schema has changed, is retried once outside a transaction.
        """
        values = statement.values(parameters)
        may_retry = not in_transaction
        while True:
            executions = connection.executions
            try:
                return await connection.fetch(statement.sql, *values)
            except Exception as error:
                if may_retry and is_stale_plan(error, may_write=statement.may_write):
                    may_retry = False
                    continue
                was_sent = connection.executions != executions
                write_in_doubt = was_sent and statement.may_write and not in_transaction
                raise self._failure(connection, error, write_in_doubt=write_in_doubt) from error

    async def command(self, connection: Connection, command: str, *, write_in_doubt: bool = False) -> str:
        """Run BEGIN, COMMIT or ROLLBACK, and return what the server says that it did."""
        try:
            return await connection.execute(command)
        except asyncio.CancelledError:
            # Whether the server has run it is unknown, so whether a transaction is open is unknown, too.
            connection.terminate()
            raise
        except Exception as error:
            raise self._failure(connection, error, write_in_doubt=write_in_doubt) from error

    def _failure(self, connection: Connection, error: Exception, *, write_in_doubt: bool) -> Exception:
        """What is raised in the place of the driver's error."""
        if is_broken_connection(error):
            connection.terminate()
        if is_read_only(error):
            # The primary has become a replica: a new connection may lead to another server.
            self._pool.replace_all()
        return statement_failure(error, write_in_doubt=write_in_doubt)
