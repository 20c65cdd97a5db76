"""Several statements on one connection that are committed together or not at all."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg
from sqlalchemy.sql.elements import ClauseElement

from app.database.connection import Connection
from app.database.executor import Executor
from app.database.failures import NONE_KNOWN, ConstraintErrors
from app.database.pool import CANCEL_SECONDS
from app.database.statements import StatementCompiler
from app.errors import RequestError


class Transaction:
    """Runs statements in an open transaction. Its statements run one after the other, never at the same time."""

    def __init__(self, executor: Executor, compiler: StatementCompiler, connection: Connection) -> None:
        self._executor = executor
        self._compiler = compiler
        self._connection = connection
        self.writes: list[str] = []
        """The statements that may have changed the database, in SQL."""
        self.constraint_errors: dict[str, Callable[[], RequestError]] = {}
        """What to raise for a constraint that is checked at COMMIT, by its name: what the last statement said."""

    async def run(
        self,
        statement: ClauseElement,
        parameters: Mapping[str, Any],
        *,
        constraint_errors: ConstraintErrors = NONE_KNOWN,
    ) -> Sequence[asyncpg.Record]:
        """Run one statement and fetch all its rows. It raises what `Database.run` raises for a statement.

        After an error the transaction can only be rolled back.
        """
        compiled = self._compiler.compile(statement)
        if compiled.may_write:
            self.writes.append(compiled.sql)
            self.constraint_errors.update(constraint_errors)
        return await self._executor.fetch(
            self._connection, compiled, parameters, constraint_errors, in_transaction=True
        )


@asynccontextmanager
async def transaction_on(
    connection: Connection, executor: Executor, compiler: StatementCompiler
) -> AsyncIterator[Transaction]:
    """A transaction on this connection: committed at the end of the block, rolled back if the block raises."""
    await executor.command(connection, "BEGIN ISOLATION LEVEL READ COMMITTED")
    transaction = Transaction(executor, compiler, connection)
    try:
        yield transaction
    except BaseException:
        # A connection that cannot roll back is closed, which rolls back.
        if await connection.cancelled(CANCEL_SECONDS):
            with suppress(RequestError):
                await executor.command(connection, "ROLLBACK")
        raise
    done = await executor.command(
        connection,
        "COMMIT",
        after="; ".join(transaction.writes),
        constraint_errors=transaction.constraint_errors,
        write_in_doubt=bool(transaction.writes),
    )
    if done != "COMMIT":
        raise RuntimeError(
            "The transaction was rolled back: a statement failed in it, and its error was caught inside."
        )
