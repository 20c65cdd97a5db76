import re
from dataclasses import replace

import pytest
from sqlalchemy import BigInteger, Column, MetaData, Table

from app import NAME
from app.health import schema_state
from app.health.schema_state import VERSION_TABLE, Revisions, Schema, SchemaState, read_schema
from app.models import Base
from tests.databases import INSERT, connected
from tests.paths import ROOT
from tests.proxy import proxied

SCHEMA = Schema(revision="three", role="items_app", is_read_only=False, missing=(), missing_privileges=())


@pytest.fixture
async def needing_a_function(sql, monkeypatch):
    """Compare the schema with another one that needs the table `samples` and a function."""
    await sql.execute("CREATE FUNCTION twice(n bigint) RETURNS bigint LANGUAGE sql RETURN 2 * n")
    need_samples(monkeypatch, functions=("twice(bigint)",))


def need_samples(monkeypatch, **info):
    """Compare the schema with another one that needs the table `samples`."""
    metadata = MetaData()
    Table("samples", metadata, Column("id", BigInteger), info=info)
    statement = schema_state._statement(revision=schema_state._REVISION, schemas=schema_state._NONE, metadata=metadata)
    monkeypatch.setattr(schema_state, "_with_revision", statement)


@pytest.mark.parametrize(
    ("revision", "state"),
    [
        (None, "behind"),
        ("one", "behind"),
        ("two", "behind"),
        ("three", "current"),
        ("four", "ahead"),
        ("", "ahead"),
        ("one, two", "behind"),
        ("four, two", "behind"),
        ("four, three", "ahead"),
        ("five, four", "ahead"),
    ],
)
def test_the_state_follows_from_the_revision(revisions, revision, state):
    """A known revision before the head is behind, whatever is beside it. Unknown revisions alone are ahead."""
    assert SchemaState(state) == revisions.state(replace(SCHEMA, revision=revision))


@pytest.mark.parametrize(
    ("revision", "state"),
    [("three", "behind"), ("branch", "behind"), ("branch, three", "current"), ("branch, four", "behind")],
)
@pytest.mark.usefixtures("revisions")
def test_with_two_heads_both_are_needed(tmp_path, revision, state):
    """Two developers have each added a revision, and nobody has merged them yet."""
    (tmp_path / "versions" / "branch.py").write_text('revision = "branch"\ndown_revision = "two"\n')
    branched = Revisions(tmp_path)

    assert "branch, three" == branched.head
    assert SchemaState(state) == branched.state(replace(SCHEMA, revision=revision))


@pytest.mark.parametrize("revision", ["three", "four"])
def test_a_database_without_a_needed_table_is_behind(revisions, revision):
    """Neither the newest revision nor an unknown one makes up for a missing table."""
    assert SchemaState.BEHIND == revisions.state(replace(SCHEMA, revision=revision, missing=("the table notes",)))


def test_the_version_table_is_named_after_the_service():
    """Another service that uses Alembic in the same database has another version table."""
    assert f"{NAME.replace('-', '_')}_alembic_version" == VERSION_TABLE


async def test_a_migrated_database_has_what_is_needed(database):
    """After `alembic upgrade head` as the owner, the service's role lacks nothing."""
    schema = await read_schema(database)

    assert replace(SCHEMA, revision=Revisions().head) == schema


async def test_the_schema_is_read_in_one_statement(database_url):
    """Revision, tables, functions and privileges take one round trip."""
    async with proxied(database_url) as proxy, connected(proxy.url) as database:
        await read_schema(database)
        before = proxy.round_trips
        await read_schema(database)

        assert 1 == proxy.round_trips - before


async def test_an_empty_database_has_no_revision(empty_database_url):
    """The revision is None, and the tables are missing, which is not an error."""
    async with connected(empty_database_url) as database:
        schema = await read_schema(database)

    assert schema.revision is None
    assert "the table idempotency_keys" in schema.missing
    assert () == schema.missing_privileges


async def test_a_downgraded_database_has_no_revision(database, sql):
    """A downgrade to base leaves the version table empty."""
    await sql.execute(f"DELETE FROM {VERSION_TABLE}")

    assert (await read_schema(database)).revision is None


@pytest.mark.parametrize("statement", ["DROP TABLE samples", "DROP FUNCTION twice(bigint)"])
@pytest.mark.usefixtures("needing_a_function")
async def test_a_missing_object_is_named(database, sql, statement):
    """A dropped table or function is missing, although the revision is the newest."""
    await sql.execute(statement)
    schema = await read_schema(database)

    assert [statement.removeprefix("DROP ").lower()] == [name.removeprefix("the ") for name in schema.missing]
    assert SchemaState.BEHIND == Revisions().state(schema)


@pytest.mark.parametrize(
    ("revoke", "missing"),
    [
        ("SELECT ON idempotency_keys", "SELECT on idempotency_keys"),
        ("INSERT ON idempotency_keys", "INSERT on idempotency_keys"),
        ("UPDATE ON idempotency_keys", "UPDATE on idempotency_keys"),
        ("DELETE ON idempotency_keys", "DELETE on idempotency_keys"),
        (f"SELECT ON {VERSION_TABLE}", f"SELECT on {VERSION_TABLE}"),
        ("USAGE ON SCHEMA public", "USAGE on schema public"),
    ],
)
async def test_a_missing_privilege_is_named(database, sql, revoke, missing):
    """The privileges on the schema and the tables are checked one by one."""
    await sql.execute(f"REVOKE {revoke} FROM items_app, PUBLIC")

    assert (missing,) == (await read_schema(database)).missing_privileges


@pytest.mark.usefixtures("needing_a_function")
async def test_a_missing_privilege_on_a_function_is_named(database, sql):
    """A function that the tables' statements call needs EXECUTE."""
    await sql.execute("REVOKE EXECUTE ON FUNCTION twice(bigint) FROM items_app, PUBLIC")

    assert ("EXECUTE on function twice(bigint)",) == (await read_schema(database)).missing_privileges


async def test_a_sequence_of_a_default_needs_a_privilege(database, sql):
    """A default that calls nextval needs USAGE on its sequence."""
    await sql.execute("CREATE SEQUENCE numbers")
    await sql.execute("ALTER TABLE idempotency_keys ADD number bigint DEFAULT nextval('numbers')")
    await sql.execute("REVOKE ALL ON SEQUENCE numbers FROM items_app")

    assert ("USAGE on sequence numbers",) == (await read_schema(database)).missing_privileges


async def test_a_sequence_that_statements_draw_from_needs_a_privilege(database, sql, monkeypatch):
    """PostgreSQL checks it where a statement calls nextval, as one that repeats a response does."""
    need_samples(monkeypatch, draws_ids=True)
    await sql.execute("REVOKE ALL ON SEQUENCE samples_id_seq FROM items_app")

    assert ("USAGE on sequence samples_id_seq",) == (await read_schema(database)).missing_privileges


@pytest.mark.usefixtures("needing_a_function")
async def test_the_sequence_of_an_identity_column_needs_no_privilege(database, sql):
    """PostgreSQL does not check it, so an insert works without it and readiness does not demand it."""
    await sql.execute("REVOKE ALL ON SEQUENCE samples_id_seq FROM items_app")

    assert 1 == len(await database.run(INSERT, {}))
    assert () == (await read_schema(database)).missing_privileges


@pytest.mark.parametrize("module", sorted((ROOT / "app" / "crud").glob("*.py")), ids=lambda path: path.stem)
def test_a_table_whose_ids_are_drawn_says_so(module):
    """Otherwise readiness would not know that the statements of this module need a privilege."""
    drawn = set(re.findall(r"pg_get_serial_sequence\('(\w+)'", module.read_text()))

    assert {name for name in drawn if not Base.metadata.tables[name].info.get("draws_ids")} == set()
