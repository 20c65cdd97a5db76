"""The driver's errors, and the named errors that are raised in their place."""

import re
from collections.abc import Callable, Mapping
from typing import Final

import asyncpg

from app.database.connecting import NoWritableServerError
from app.database_url.redaction import without_value
from app.errors import (
    CheckViolatedError,
    ConstraintViolatedError,
    DatabasePermissionDeniedError,
    DatabaseReadOnlyError,
    DatabaseRefusedError,
    DatabaseSetupError,
    DatabaseUnavailableError,
    ExclusionViolatedError,
    NotNullViolatedError,
    ReferenceInUseError,
    ReferenceMissingError,
    RequestError,
    SchemaOutdatedError,
    StatementTimeoutError,
    UniqueViolatedError,
    UnstorableTextError,
)

ConstraintErrors = Mapping[str, Callable[[], RequestError]]
"""What to raise when the constraint of this name is violated."""

NONE_KNOWN: Final[ConstraintErrors] = {}

STATEMENTS_LOST: Final = (
    "The server does not know a statement that was prepared on this connection, as behind a pooler "
    "in transaction mode: write DATABASE_POOLER=pgbouncer."
)

DRIVER_ERRORS: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""Everything that asyncpg raises for a statement."""

_FOREIGN_KEY: Final = "23503"
_RAISED: Final = "P0001"
"""RAISE EXCEPTION, as in a trigger that enforces a rule."""

_RAISING_FUNCTION: Final = "exec_stmt_raise"
"""The function of PostgreSQL that reports what RAISE raises, with whatever SQLSTATE."""

_READ_ONLY: Final = "25006"
_TRANSACTION_TIMEOUT: Final = "25P04"
_UNKNOWN_STATEMENT: Final = "26000"

_BY_SQLSTATE: Final[Mapping[str, Callable[[], RequestError]]] = {
    "22021": UnstorableTextError,  # character not in repertoire
    "2200H": DatabaseUnavailableError,  # a sequence has no number left
    "22P05": UnstorableTextError,  # untranslatable character
    "25P03": DatabaseUnavailableError,  # the server has ended an idle transaction, and rolled it back
    _READ_ONLY: DatabaseReadOnlyError,
    _UNKNOWN_STATEMENT: lambda: DatabaseSetupError(STATEMENTS_LOST),
    "3F000": SchemaOutdatedError,  # invalid schema name
    "42501": DatabasePermissionDeniedError,
    "42703": SchemaOutdatedError,  # undefined column
    "42704": SchemaOutdatedError,  # undefined object
    "42883": SchemaOutdatedError,  # undefined function
    "42P01": SchemaOutdatedError,  # undefined table
    "57014": StatementTimeoutError,  # the server cancelled the statement
    _RAISED: lambda: ConstraintViolatedError(None),
}

_VALUE_TOO_LARGE: Final = {
    "22001",  # a text is longer than its column takes
    "22003",  # a number is out of the range of its column
    "22008",  # a time is out of range
    "22015",  # an interval is out of range
    "22026",  # a bit string has another length than its column
    "54000",  # a row is larger than an index, a page or a text search vector can be
}
"""What a statement that stores values fails with where its table takes less. In other statements it is a defect."""

_CONSTRAINTS: Final[Mapping[str, type[ConstraintViolatedError]]] = {
    "23001": ReferenceInUseError,  # restrict violation
    "23502": NotNullViolatedError,
    "23505": UniqueViolatedError,
    "23514": CheckViolatedError,
    "23P01": ExclusionViolatedError,
    "44000": CheckViolatedError,  # the check option of a view
}
_CONSTRAINT_CLASSES: Final = ("23", "44")

_NO_ANSWER: Final = "PostgreSQL has not answered the statement in time"

_BROKEN_CLASSES: Final = ("08", "57P")
"""The server closed the connection, or it was lost: what was sent may have been done."""

_UNAVAILABLE_CLASSES: Final = ("08", "28", "3D", "40", "53", "55", "57", "58", "72", "F0", "HV", "XX")
"""Connection, authorization, no such database, transaction rolled back, out of resources, not in its state,
operator intervention, system error, snapshot too old, configuration file, foreign server, internal error."""

_DEFECT_CLASSES: Final = (
    "03", "09", "0A", "0B", "0F", "0L", "0P", "0Z", "10", "20", "21", "22", "24", "25", "26", "27", "2B", "2D", "2F",
    "34", "38", "39", "3B", "3F", "42", "54", "P0",
)  # fmt: skip
"""The classes whose errors this code or its statements cause, where no SQLSTATE above says otherwise."""

_WRITTEN_TABLE: Final = re.compile(
    r"""\b(?:INSERT\s+INTO|MERGE\s+INTO|UPDATE)\s+(?:ONLY\s+)?(?:(?:\w+|"[^"]+")\.)?(?:"([^"]+)"|(\w+))""",
    re.IGNORECASE,
)


def connect_failure(error: Exception) -> RequestError:
    """What is raised when no connection could be opened."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return DatabasePermissionDeniedError()
    return DatabaseReadOnlyError() if isinstance(error, NoWritableServerError) else DatabaseUnavailableError()


def statement_failure(
    error: Exception, sql: str, *, write_in_doubt: bool, constraint_errors: ConstraintErrors
) -> Exception:
    """What is raised when a statement has failed: a named error, or the error itself if it is a defect of the code.

    Args:
        error: What the driver has raised.
        sql: The statement, and in a transaction those before it.
        write_in_doubt: Whether the statement writes and was sent. If the connection was lost, the
            server may have committed it; if the server reported an error, it has not.
        constraint_errors: What to raise for constraints that the caller knows.
    """
    if isinstance(error, asyncpg.PostgresError):
        return _server_failure(error, sql, write_in_doubt=write_in_doubt, constraint_errors=constraint_errors) or error
    if isinstance(error, TimeoutError):
        return StatementTimeoutError(write_in_doubt=write_in_doubt)
    if is_broken_connection(error):
        return DatabaseUnavailableError(write_in_doubt=write_in_doubt)
    return error


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
    """Whether the connection cannot be used again, or its state is unknown."""
    if isinstance(error, asyncpg.DataError):
        return False  # a value of the wrong type, which the driver has not sent
    if isinstance(error, asyncpg.PostgresError):
        return error.sqlstate == _UNKNOWN_STATEMENT
    return isinstance(error, OSError | asyncpg.InterfaceError | asyncpg.InternalClientError)


def loggable(error: Exception) -> Exception:
    """The error as the log may show it: without the values of a row, and never without a message.

    The DETAIL has them, and what the message of a data exception quotes. A trigger may write them into its message,
    so the place where it is raised is shown instead.

    asyncpg raises a `TimeoutError` without a message when the server does not answer a statement.
    """
    if isinstance(error, TimeoutError) and not str(error):
        error.args = (_NO_ANSWER,)
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, asyncpg.PostgresError):
            cause.detail = None
            _remove_values(cause)
        cause = cause.__cause__
    return error


def _remove_values(error: asyncpg.PostgresError) -> None:
    sqlstate = error.sqlstate or ""
    if sqlstate == _RAISED or error.server_source_function == _RAISING_FUNCTION:
        error.args = (f"raised in {(error.context or 'the database').partition(chr(10))[0]}",)
        error.hint = None
    elif sqlstate.startswith("22") and error.args:
        error.args = (without_value(str(error.args[0])),)


def _server_failure(
    error: asyncpg.PostgresError, sql: str, *, write_in_doubt: bool, constraint_errors: ConstraintErrors
) -> RequestError | None:
    sqlstate = error.sqlstate or ""
    if named := _BY_SQLSTATE.get(sqlstate):
        return named()
    if sqlstate.startswith(_CONSTRAINT_CLASSES):
        return _violation(error, sql, constraint_errors)
    if sqlstate == _TRANSACTION_TIMEOUT:
        return StatementTimeoutError(write_in_doubt=write_in_doubt)  # the server closes the connection
    if sqlstate in _VALUE_TOO_LARGE and _WRITTEN_TABLE.search(sql):
        return CheckViolatedError(None)
    if isinstance(error, asyncpg.InvalidCachedStatementError) or sqlstate.startswith(_UNAVAILABLE_CLASSES):
        return DatabaseUnavailableError(write_in_doubt=write_in_doubt and sqlstate.startswith(_BROKEN_CLASSES))
    return None if sqlstate.startswith(_DEFECT_CLASSES) else DatabaseRefusedError()


def _violation(error: asyncpg.PostgresError, sql: str, constraint_errors: ConstraintErrors) -> RequestError:
    constraint = error.constraint_name
    if constraint and constraint in constraint_errors:
        return constraint_errors[constraint]()
    if error.sqlstate == _FOREIGN_KEY:
        return _reference_violation(error, sql)(constraint)
    return _CONSTRAINTS.get(error.sqlstate or "", ConstraintViolatedError)(constraint)


def _reference_violation(error: asyncpg.PostgresError, sql: str) -> type[ConstraintViolatedError]:
    """Which side of a foreign key is wrong. Both have the same SQLSTATE and fields, and their messages are translated.

    The error names the table that refers. If the statement writes rows of it, they refer to
    nothing; if not, the statement deletes or changes rows that are referred to.
    """
    written = {quoted or plain for quoted, plain in _WRITTEN_TABLE.findall(sql)}
    return ReferenceMissingError if error.table_name in written else ReferenceInUseError
