"""What the failures of the driver are called here."""

from collections.abc import Iterator

import asyncpg

from app.errors import DatabaseUnavailableError, RequestError, SchemaOutdatedError, StatementTimeoutError

_CANCELED = "57014"
_READ_ONLY = "25006"
_OUTDATED = {"42P01", "42703", "42883"}  # undefined table, column, function
_UNAVAILABLE_CLASSES = {"08", "28", "3D", "40", "53", "55", "57", "58"}
"""SQLSTATE classes: connection, authorization, no such database, rolled back, out of resources,
not in its state, intervention by the operator, system error."""


def named(error: BaseException) -> RequestError | None:
    """The name of a failure of the database, or None for a defect of this code."""
    for cause in _causes(error):
        if isinstance(cause, asyncpg.PostgresError):
            return _by_sqlstate(cause.sqlstate)
        if isinstance(cause, OSError | asyncpg.InterfaceError | asyncpg.InternalClientError):
            return DatabaseUnavailableError()
    return None


def is_stale_plan(error: asyncpg.PostgresError) -> bool:
    """Whether the schema changed since the statement was prepared, so that it has not run."""
    return isinstance(error, asyncpg.InvalidCachedStatementError | asyncpg.OutdatedSchemaCacheError)


def is_read_only(error: BaseException) -> bool:
    """Whether this server only reads: the primary has become a replica."""
    return getattr(error, "sqlstate", None) == _READ_ONLY


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The failure and what is beneath it: SQLAlchemy wraps the driver's errors."""
    while error is not None:
        yield error
        error = error.__cause__


def _by_sqlstate(sqlstate: str | None) -> RequestError | None:
    if sqlstate == _CANCELED:
        return StatementTimeoutError()
    if sqlstate in _OUTDATED:
        return SchemaOutdatedError()
    if sqlstate is None or sqlstate == _READ_ONLY or sqlstate[:2] in _UNAVAILABLE_CLASSES:
        return DatabaseUnavailableError()
    return None
