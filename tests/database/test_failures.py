import asyncio

import asyncpg
import pytest

from app.database.failures import named

UNAVAILABLE = ["08006", "25006", "28P01", "28000", "3D000", "40001", "40P01", "53300", "53200", "55P03", "57P01",
"57P03", "57P05", "58030"]  # fmt: skip
DEFECTS = ["22003", "22021", "22P02", "23505", "23514", "42601", "42804", "P0001"]


async def raised(sql, sqlstate):
    """The error that the server reports under this state."""
    with pytest.raises(asyncpg.PostgresError) as raised:
        await sql.execute(f"DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{sqlstate}'; END $$")
    return raised.value


@pytest.mark.parametrize(
    ("sqlstates", "code"),
    [
        (["57014"], "statement_timeout"),
        (["42P01", "42703", "42883"], "schema_outdated"),
        (UNAVAILABLE, "database_unavailable"),
    ],
)
async def test_what_the_server_reports_has_a_name(sql, sqlstates, code):
    """Each state that is no defect of this code is called by what a client can do about it."""
    assert dict.fromkeys(sqlstates, code) == {s: getattr(named(await raised(sql, s)), "code", None) for s in sqlstates}


@pytest.mark.parametrize("sqlstate", DEFECTS)
async def test_a_defect_of_this_code_has_no_name(sql, sqlstate):
    """A statement or a value that the server refuses should have been refused before."""
    assert named(await raised(sql, sqlstate)) is None


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
    """What the driver and the system say of a connection is one thing to a client, also beneath another error."""
    wrapped = RuntimeError()
    wrapped.__cause__ = error

    assert ["database_unavailable"] * 2 == [getattr(named(e), "code", None) for e in (error, wrapped)]


@pytest.mark.parametrize("error", [ValueError(), KeyError(), asyncio.CancelledError()])
def test_other_errors_have_no_name(error):
    """What does not come from the database is not blamed on it."""
    assert named(error) is None
