"""The driver's errors, and the named errors that are raised in their place."""

import asyncpg

from app.errors import (
    DatabasePermissionDeniedError,
    DatabaseUnavailableError,
    RequestError,
    SchemaOutdatedError,
    StatementTimeoutError,
)

_CANCELED = "57014"
_READ_ONLY = "25006"
_PERMISSION_DENIED = "42501"
_OUTDATED = {"42P01", "42703", "42883"}  # undefined table, column, function
_UNAVAILABLE_CLASSES = {"08", "28", "3D", "40", "53", "55", "57", "58"}
"""SQLSTATE classes: connection, authorization, no such database, rolled back, out of resources,
not in its state, intervention by the operator, system error."""
_BROKEN_CLASSES = ("08", "57P")
"""The server closed the connection, or it was lost: what was sent may have been done."""


def failure_to_connect(error: Exception) -> Exception:
    """What is raised when no connection could be opened."""
    if isinstance(error, TimeoutError):
        return DatabaseUnavailableError()
    return _named(error, write_in_doubt=False) or error


def statement_failure(error: Exception, *, write_in_doubt: bool) -> Exception:
    """What is raised when a statement has failed: a named error, or the error itself if it is a defect of the code.

    Args:
        write_in_doubt: Whether the statement writes and was sent. If the connection was lost, the
            server may have committed it; if the server reported an error, it has not.
    """
    return _named(error, write_in_doubt=write_in_doubt) or error


def is_stale_plan(error: Exception, *, may_write: bool) -> bool:
    """Whether the schema has changed since the statement was prepared, so that running it again is right.

    The server refuses a stale plan before it runs. The driver finds an outdated type when
    the statement has run, so a write must not be repeated then.
    """
    if isinstance(error, asyncpg.OutdatedSchemaCacheError):
        return not may_write
    return isinstance(error, asyncpg.InvalidCachedStatementError)


def is_read_only(error: Exception) -> bool:
    """Whether this server only reads: the primary has become a replica."""
    return isinstance(error, asyncpg.PostgresError) and error.sqlstate == _READ_ONLY


def is_broken_connection(error: Exception) -> bool:
    """Whether the state of the connection is unknown: nothing that the server itself has reported."""
    return isinstance(error, OSError | asyncpg.InterfaceError | asyncpg.InternalClientError)


def _named(error: Exception, *, write_in_doubt: bool) -> RequestError | None:
    if isinstance(error, asyncpg.PostgresError):
        return _by_sqlstate(error.sqlstate or "", write_in_doubt=write_in_doubt)
    if isinstance(error, TimeoutError):
        return StatementTimeoutError(write_in_doubt=write_in_doubt)
    if is_broken_connection(error):
        return DatabaseUnavailableError(write_in_doubt=write_in_doubt)
    return None


def _by_sqlstate(sqlstate: str, *, write_in_doubt: bool) -> RequestError | None:
    if sqlstate == _CANCELED:
        return StatementTimeoutError()
    if sqlstate in _OUTDATED:
        return SchemaOutdatedError()
    if sqlstate == _PERMISSION_DENIED:
        return DatabasePermissionDeniedError()
    if sqlstate.startswith(_BROKEN_CLASSES):
        return DatabaseUnavailableError(write_in_doubt=write_in_doubt)
    if sqlstate == _READ_ONLY or sqlstate[:2] in _UNAVAILABLE_CLASSES:
        return DatabaseUnavailableError()
    return None
