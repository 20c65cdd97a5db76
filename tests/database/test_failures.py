import socket

import asyncpg
import pytest
from sqlalchemy import text

from app.database import slow
from app.database.failures import connect_failure, is_stale_plan, loggable, statement_failure
from app.errors import DatabaseSetupError, DatabaseUnavailableError, RequestError, StatementTimeoutError, root_cause
from tests.databases import ONE, connected
from tests.proxy import proxied

CODES = {
    "database_unavailable": [
        "08006", "25006", "28P01", "28000", "3D000", "40001", "40P01", "53300", "53200", "55P03", "57P01", "57P03",
        "57P05", "58030", "72000", "F0000", "HV000", "XX000", "2200H", "25P03",
    ],
    "statement_timeout": ["57014", "25P04"],
    "schema_outdated": ["3F000", "42P01", "42703", "42704", "42883"],
    "database_permission_denied": ["42501"],
    "database_misconfigured": ["26000"],
    "unstorable_text": ["22021", "22P05"],
    "constraint_violated": ["23000", "23999", "P0001"],
    "reference_in_use": ["23001", "23503"],
    "not_null_violated": ["23502"],
    "unique_violated": ["23505"],
    "check_violated": ["23514", "44000"],
    "exclusion_violated": ["23P01"],
    "database_refused": ["K0001", "99999"],
    None: ["0A000", "21000", "22001", "22003", "22P02", "25P02", "42601", "42804", "54000", "54001", "P0002"],
}  # fmt: skip

TOO_LARGE = ["22001", "22003", "22008", "22015", "22026", "54000"]


async def reported(sql, sqlstate):
    """The error that the server reports with this SQLSTATE."""
    with pytest.raises(asyncpg.PostgresError) as raised:
        await sql.execute(f"DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{sqlstate}'; END $$")
    return raised.value


def failure(error, *, sql="DELETE FROM samples", write_in_doubt=False):
    """What is raised in the place of this error."""
    return statement_failure(error, sql, write_in_doubt=write_in_doubt, constraint_errors={})


def code_of(error, **statement):
    """The code of what is raised in the place of this error; None where the error itself is raised."""
    raised = failure(error, **statement)
    return raised.code if isinstance(raised, RequestError) else None


@pytest.mark.parametrize("code", CODES)
async def test_an_error_of_the_server_has_a_code(sql, code):
    """It tells the client what to do. Only an error that this code has caused is raised as it is."""
    assert dict.fromkeys(CODES[code], code) == {state: code_of(await reported(sql, state)) for state in CODES[code]}


@pytest.mark.parametrize(
    ("sql_text", "code"),
    [
        ("INSERT INTO samples VALUES ($1)", "check_violated"),
        ("WITH made AS (INSERT INTO samples VALUES ($1) RETURNING *) SELECT * FROM made", "check_violated"),
        ("UPDATE samples SET name = $1", "check_violated"),
        ("MERGE INTO samples USING others ON id = $1 WHEN MATCHED THEN DO NOTHING", "check_violated"),
        ("SELECT $1 + 1", None),
        ("DELETE FROM samples WHERE id = $1 + 1", None),
    ],
)
async def test_a_value_that_the_table_does_not_take_is_unprocessable(sql, sql_text, code):
    """Where the statement stores values. Elsewhere the same SQLSTATE is a defect of the statement."""
    found = {state: code_of(await reported(sql, state), sql=sql_text) for state in TOO_LARGE}

    assert dict.fromkeys(TOO_LARGE, code) == found
    assert [None, None] == [code_of(await reported(sql, state), sql=sql_text) for state in ("22P02", "54001")]


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
    assert isinstance(connect_failure(TimeoutError()), DatabaseUnavailableError)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (asyncpg.InvalidPasswordError(), "database_unavailable"),
        (asyncpg.InsufficientPrivilegeError(), "database_permission_denied"),
        (asyncpg.UndefinedObjectError(), "database_unavailable"),
        (socket.gaierror(), "database_unavailable"),
        (asyncpg.ClientConfigurationError("no"), "database_unavailable"),
        (ValueError(), "database_unavailable"),
        (DatabaseSetupError("Write another."), "database_misconfigured"),
    ],
)
def test_every_failure_to_connect_has_a_code(error, code):
    """No request is answered with an internal error because the database cannot be reached."""
    assert code == connect_failure(error).code


@pytest.mark.parametrize("error", [ValueError(), KeyError(), asyncpg.DataError("not a number")])
def test_other_errors_are_raised_as_they_are(error):
    """An error that does not come from the database, or a value of the wrong type, is a defect."""
    assert error is failure(error)


@pytest.mark.parametrize(
    ("error", "in_doubt"),
    [
        (TimeoutError(), True),
        (ConnectionResetError(), True),
        (asyncpg.ConnectionDoesNotExistError(), True),
        (asyncpg.AdminShutdownError(), True),
        (asyncpg.TransactionTimeoutError(), True),
        (asyncpg.QueryCanceledError(), False),
        (asyncpg.DeadlockDetectedError(), False),
        (asyncpg.ReadOnlySQLTransactionError(), False),
        (asyncpg.UndefinedTableError(), False),
    ],
)
def test_a_write_is_in_doubt_only_when_the_server_reported_no_error(error, in_doubt):
    """A statement that the server reports as failed has changed nothing; after a lost connection nobody knows."""
    said = "The write may or may not have been applied; a POST that had an Idempotency-Key can be repeated with it."

    assert in_doubt == (said in str(failure(error, write_in_doubt=True)))
    assert said not in str(failure(error, write_in_doubt=False))


@pytest.mark.parametrize("may_write", [True, False])
def test_a_write_is_not_repeated_when_it_may_have_run(may_write):
    """The server refuses a stale plan before it runs; the driver finds an outdated type when the statement has run."""
    assert is_stale_plan(asyncpg.InvalidCachedStatementError(), may_write=may_write)
    assert is_stale_plan(asyncpg.OutdatedSchemaCacheError("no"), may_write=may_write) != may_write
    assert not is_stale_plan(asyncpg.UndefinedTableError(), may_write=may_write)


async def test_the_values_of_a_row_are_removed_from_an_error(sql):
    """PostgreSQL shows them in the DETAIL, which is neither answered nor logged."""
    await sql.execute("CREATE TABLE users (email text UNIQUE)")
    await sql.execute("INSERT INTO users VALUES ('hunter2@example.com')")
    with pytest.raises(asyncpg.UniqueViolationError) as raised:
        await sql.execute("INSERT INTO users VALUES ('hunter2@example.com')")
    assert "hunter2" in str(raised.value)

    named = RequestError()
    named.__cause__ = loggable(raised.value)

    assert "hunter2" not in f"{raised.value} {root_cause(named)}"
    assert "users_email_key" in str(root_cause(named))


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 'hunter2'::int",
        "SELECT make_date(2024, 1, 1) + 'hunter2'::interval",
        "SELECT '99999999999'::int, 'hunter2'",
        "DO $$ BEGIN RAISE EXCEPTION 'hunter2 is taken' USING HINT = 'Ask hunter2.', DETAIL = 'hunter2'; END $$",
        "DO $$ BEGIN RAISE EXCEPTION 'hunter2 is taken' USING ERRCODE = 'unique_violation'; END $$",
        "DO $$ BEGIN RAISE EXCEPTION 'hunter2 is taken' USING ERRCODE = 'K0001'; END $$",
    ],
)
async def test_a_message_with_a_value_is_not_logged(sql, statement):
    """A data exception quotes the value, and an exception that is raised may have one anywhere."""
    with pytest.raises(asyncpg.PostgresError) as raised:
        await sql.execute(statement)

    shown = str(loggable(loggable(raised.value)))

    assert "hunter2" not in shown
    assert "99999999999" not in shown
    assert "RAISE" not in statement or "raised in PL/pgSQL function inline_code_block line 1 at RAISE" == shown


async def test_the_log_says_what_timed_out(database_url):
    """The driver's own `TimeoutError` has no message. A frozen server is named, for each kind of statement."""
    async with proxied(database_url) as proxy, connected(proxy.url, statement_seconds=0.1, connections=3) as database:
        await database.run(ONE, {})
        proxy.freeze()
        for statement in (ONE, slow(text("SELECT 2"))):
            with pytest.raises(StatementTimeoutError) as raised:
                await database.run(statement, {})
            assert "TimeoutError: PostgreSQL has not answered the statement in time" == root_cause(raised.value)
            proxy.thaw()
            await database.run(ONE, {})
            proxy.freeze()
