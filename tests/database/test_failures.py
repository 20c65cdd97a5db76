import asyncpg
import pytest

from app.database.failures import failure_to_connect, statement_failure
from app.errors import DatabaseUnavailableError, RequestError

UNAVAILABLE = ["08006", "25006", "28P01", "28000", "3D000", "40001", "40P01", "53300", "53200", "55P03", "57P01",
"57P03", "57P05", "58030"]  # fmt: skip
DEFECTS = ["22003", "22021", "22P02", "23505", "23514", "42601", "42804", "P0001"]


async def reported(sql, sqlstate):
    """The error that the server reports with this SQLSTATE."""
    with pytest.raises(asyncpg.PostgresError) as raised:
        await sql.execute(f"DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{sqlstate}'; END $$")
    return raised.value


def code_of(error, *, write_in_doubt=False):
    """The code of the error that is raised in the place of this one; None where it is raised itself."""
    failure = statement_failure(error, write_in_doubt=write_in_doubt)
    return failure.code if isinstance(failure, RequestError) else None


@pytest.mark.parametrize(
    ("sqlstates", "code"),
    [
        (["57014"], "statement_timeout"),
        (["42P01", "42703", "42883"], "schema_outdated"),
        (UNAVAILABLE, "database_unavailable"),
    ],
)
async def test_an_error_of_the_server_has_a_code(sql, sqlstates, code):
    """Every SQLSTATE that is not a defect of this code is answered with the code that tells the client what to do."""
    assert dict.fromkeys(sqlstates, code) == {s: code_of(await reported(sql, s)) for s in sqlstates}


@pytest.mark.parametrize("sqlstate", DEFECTS)
async def test_a_defect_is_raised_as_it_is(sql, sqlstate):
    """The service should have refused such a statement or value itself."""
    assert code_of(await reported(sql, sqlstate)) is None


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(),
        ConnectionResetError(),
        OSError("no route"),
        asyncpg.InterfaceError("closed"),
        asyncpg.InternalClientError("busy"),
    ],
)
def test_a_broken_connection_is_an_unavailable_database(error):
    """All errors of the driver and of the system about a connection have one code."""
    assert "database_unavailable" == code_of(error)


def test_a_timeout_is_named_by_what_timed_out():
    """A statement that gets no answer is 504; a connection that cannot be opened in time is 503."""
    assert "statement_timeout" == code_of(TimeoutError())
    assert isinstance(failure_to_connect(TimeoutError()), DatabaseUnavailableError)


@pytest.mark.parametrize("error", [ValueError(), KeyError()])
def test_other_errors_are_raised_as_they_are(error):
    """An error that does not come from the database is not renamed."""
    assert error is statement_failure(error, write_in_doubt=False)


@pytest.mark.parametrize(
    ("error", "in_doubt"),
    [
        (TimeoutError(), True),
        (ConnectionResetError(), True),
        (asyncpg.ConnectionDoesNotExistError(), True),
        (asyncpg.AdminShutdownError(), True),
        (asyncpg.QueryCanceledError(), False),
        (asyncpg.DeadlockDetectedError(), False),
        (asyncpg.ReadOnlySQLTransactionError(), False),
        (asyncpg.UndefinedTableError(), False),
    ],
)
def test_a_write_is_in_doubt_only_when_the_server_reported_no_error(error, in_doubt):
    """A statement that the server reports as failed has changed nothing; after a lost connection nobody knows."""
    said = "The write may or may not have been applied; retry POST with an Idempotency-Key."

    assert in_doubt == (said in str(statement_failure(error, write_in_doubt=True)))
    assert said not in str(statement_failure(error, write_in_doubt=False))
