"""Runs statements on the pool's connections, and names their failures."""

from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any, NoReturn, Protocol

import asyncpg

from app.database.connection import ANSWER_SECONDS, Connection
from app.database.failures import (
    DRIVER_ERRORS,
    NONE_KNOWN,
    ConstraintErrors,
    is_broken_connection,
    is_read_only,
    is_stale_plan,
    loggable,
    statement_failure,
)
from app.database.pool import Pool
from app.database.statement_timer import StatementTimer
from app.database.statements import CompiledStatement
from app.errors import SlowStatementTimeoutError, StatementTimeoutError


class StatementObserver(Protocol):
    """Receives how long statements run, for the metrics."""

    def statement_ran(self, name: str, seconds: float) -> None:
        """A statement with this name ran for so long, whether it succeeded or failed."""


class Executor:
    """Runs what it is given on a connection. A connection whose state is unknown afterwards is closed."""

    def __init__(
        self, pool: Pool, *, statement_seconds: float, slow_seconds: float, observer: StatementObserver
    ) -> None:
        """Run statements.

        Args:
            pool: The pool of the connections.
            statement_seconds: How long a statement may run in the server.
            slow_seconds: How long a statement of the slow lane may run.
            observer: Receives the durations.
        """
        self._pool = pool
        self._observer = observer
        self._timer = StatementTimer(statement_seconds + ANSWER_SECONDS)
        self._slow_timer = StatementTimer(slow_seconds)

    async def fetch(
        self,
        connection: Connection,
        statement: CompiledStatement,
        parameters: Mapping[str, Any],
        constraint_errors: ConstraintErrors,
        *,
        in_transaction: bool = False,
        seconds: float | None = None,
    ) -> Sequence[asyncpg.Record]:
        """Run one statement and fetch all its rows.

        A statement with a time of its own (`seconds`, or that of the slow lane) is cancelled in the server by a request
        on a connection of its own, as a statement of a client that is gone: behind a pooler the server cannot be told
        another time.

        A statement whose plan is stale, because the schema has changed, is retried once outside a transaction.
        """
        values = statement.values(parameters)
        timer = self._timer
        if statement.is_slow:
            timer, seconds = self._slow_timer, self._slow_timer.seconds
        elif seconds is not None:
            timer = StatementTimer(seconds)
        may_retry = not in_transaction
        while True:
            executions = connection.executions
            started = perf_counter()
            try:
                return await connection.run(statement.sql, values, timer)
            except DRIVER_ERRORS as error:
                if seconds is not None and isinstance(error, TimeoutError):
                    if statement.is_slow and not statement.may_write:
                        raise SlowStatementTimeoutError(seconds) from loggable(error)
                    write_in_doubt = statement.may_write and not in_transaction
                    raise StatementTimeoutError(write_in_doubt=write_in_doubt) from loggable(error)
                if may_retry and is_stale_plan(error, may_write=statement.may_write):
                    may_retry = False
                    continue
                was_sent = connection.executions != executions
                write_in_doubt = was_sent and statement.may_write and not in_transaction
                self._fail(connection, error, statement.sql, constraint_errors, write_in_doubt=write_in_doubt)
            finally:
                self._observer.statement_ran(statement.name, perf_counter() - started)

    async def command(
        self,
        connection: Connection,
        command: str,
        *,
        after: str = "",
        constraint_errors: ConstraintErrors = NONE_KNOWN,
        write_in_doubt: bool = False,
    ) -> str:
        """Run BEGIN, COMMIT or ROLLBACK, and return what the server says that it did.

        Args:
            after: The statements of the transaction, whose deferred constraints are checked at COMMIT.
            constraint_errors: What to raise for those that the statements' callers know.
            write_in_doubt: Whether the server may have done it without an answer.
        """
        try:
            return await connection.execute(command)
        except DRIVER_ERRORS as error:
            self._fail(connection, error, after, constraint_errors, write_in_doubt=write_in_doubt)

    def _fail(
        self,
        connection: Connection,
        error: Exception,
        sql: str,
        constraint_errors: ConstraintErrors,
        *,
        write_in_doubt: bool,
    ) -> NoReturn:
        """Raise the error's name, and close or replace the connections that the error makes unusable."""
        if is_broken_connection(error) and not connection.is_cancelling():
            # The pool waits for the end of a statement that is being cancelled: a commit that waits for a
            # synchronous standby goes on in the server after its client has closed the connection.
            connection.terminate()
        if is_read_only(error) or isinstance(error, TimeoutError):
            # The primary has become a replica, or the network has lost this connection and may have
            # lost the others: a new one may lead to another server, or has another way to it.
            self._pool.replace_all()
        failure = statement_failure(
            loggable(error), sql, write_in_doubt=write_in_doubt, constraint_errors=constraint_errors
        )
        if failure is error:
            raise error
        raise failure from error
