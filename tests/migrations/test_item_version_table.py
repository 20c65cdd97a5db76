"""Old installations, and databases where `alembic_version` belongs to another service."""

from unittest.mock import create_autospec

import pytest
from sqlalchemy import Connection

from app.models import Base
from migrations import version_table
from migrations.version_table import OLD_TABLE
from tests.cluster import ROLES, as_role, create_database, execute
from tests.migrations.alembic import (
    HEAD,
    VERSION_TABLE,
    add_revision,
    alembic,
    event_names,
    fetch,
    finish,
    start,
    succeed,
)
from tests.migrations.item_old_installation import install_old_release
from tests.migrations.schema import dump
from tests.migrations.test_offline import run_script
from tests.migrations.versions import REVISIONS

ITEM = "INSERT INTO items (name) VALUES ('Kettle')"
PRIVILEGES = "SELECT relacl::text, relowner::regrole::text FROM pg_class WHERE relname = $1"


def slow(value):
    """One more value, for the long run only."""
    return pytest.param(value, marks=pytest.mark.slow)


def revisions(url):
    """The revisions in the service's version table and in the old one."""
    return fetch(url, f"TABLE {VERSION_TABLE}"), fetch(url, f"TABLE {OLD_TABLE}")


def without_old_table(url):
    """The schema but for the old version table."""
    execute(url, f"DROP TABLE {OLD_TABLE}")
    return dump(url)


@pytest.fixture(scope="module")
def newest_schema(cluster):
    """The schema that a new installation has."""
    url = create_database(cluster, "new_installation")
    succeed(url, "upgrade", "head")
    return dump(url)


@pytest.mark.parametrize("revision", ["0001", slow("0003"), "0005"])
def test_an_old_installation_is_upgraded(empty_database_url, newest_schema, revision):
    """Its revision is taken over, the later revisions are applied, and its rows stay. A second run changes nothing."""
    url = empty_database_url
    install_old_release(url, revision)
    execute(url, ITEM)

    done = succeed(url, "upgrade", "head")

    assert "version_table_taken_over" == event_names(done.stderr)[0]
    assert event_names(done.stderr).count("revision_started") == len(REVISIONS) - int(revision)
    assert ["database_current"] == event_names(succeed(url, "upgrade", "head").stderr)
    assert [("Kettle",)] == fetch(url, "SELECT name FROM items")
    assert newest_schema == without_old_table(url)
    assert [(HEAD,)] == fetch(url, f"TABLE {VERSION_TABLE}")


def test_the_old_table_stays_for_the_release_before(empty_database_url, revisions_copy):
    """Its instances find a revision that they know or take for a newer one. So they stay ready during the rollout."""
    url = empty_database_url
    install_old_release(url, "0003")
    succeed(url, "upgrade", "items_0004")
    assert ([("items_0004",)], [("0004",)]) == revisions(url)

    add_revision(revisions_copy, "items_9999", revises=HEAD, upgrade="pass")
    succeed(url, "upgrade", "head", folder=revisions_copy)
    assert ([("items_9999",)], [("items_9999",)]) == revisions(url)


def test_a_downgrade_gives_the_database_back_to_the_old_release(empty_database_url):
    """The old table follows each step down. A downgrade to base and an upgrade work, too."""
    url = empty_database_url
    install_old_release(url, "0005")
    succeed(url, "downgrade", "items_0002")
    assert ([("items_0002",)], [("0002",)]) == revisions(url)

    succeed(url, "downgrade", "base")
    assert ([], []) == revisions(url)
    succeed(url, "upgrade", "head")
    assert ([(HEAD,)], [(HEAD,)]) == revisions(url)


def test_a_change_by_the_old_release_is_taken_over_again(empty_database_url):
    """After a rollback, the old release may migrate by its own table. The next upgrade goes on from there."""
    url = empty_database_url
    install_old_release(url, "0005")
    succeed(url, "downgrade", "items_0004")
    execute(url, f"UPDATE {OLD_TABLE} SET version_num = '0005'")

    done = succeed(url, "upgrade", "head")

    assert "version_table_taken_over" == event_names(done.stderr)[0]
    assert event_names(done.stderr).count("revision_started") == len(REVISIONS) - 5
    assert ([(HEAD,)], [(HEAD,)]) == revisions(url)


def test_the_old_table_may_be_dropped(empty_database_url):
    """After that, nothing writes it again."""
    url = empty_database_url
    install_old_release(url, "0005")
    succeed(url, "upgrade", "head")
    execute(url, f"DROP TABLE {OLD_TABLE}")

    succeed(url, "downgrade", "items_0003")
    succeed(url, "upgrade", "head")

    assert [] == fetch(url, f"SELECT FROM pg_tables WHERE tablename = '{OLD_TABLE}'")


def test_five_migrations_take_an_old_installation_over_once(empty_database_url):
    """The advisory lock covers the takeover. All five succeed."""
    install_old_release(empty_database_url, "0002")
    started = [start(empty_database_url, "upgrade", "head") for _ in range(5)]
    done = [finish(process) for process in started]

    assert [0] * 5 == [process.returncode for process in done], [process.stderr for process in done]
    assert 1 == sum(event_names(process.stderr).count("version_table_taken_over") for process in done)
    assert ([(HEAD,)], [(HEAD,)]) == revisions(empty_database_url)


def test_the_new_table_has_the_owner_and_the_privileges_of_the_old_one(empty_database_url):
    """A role that could read the old table can read the new one, and one that could not write the old one cannot."""
    execute(empty_database_url, ROLES.read_text())
    url = as_role(empty_database_url, "items_owner")
    install_old_release(url, "0005")
    execute(empty_database_url, ROLES.read_text())
    execute(empty_database_url, f"GRANT SELECT ON {OLD_TABLE} TO PUBLIC, items_metrics")

    succeed(empty_database_url, "upgrade", "head")

    assert fetch(url, PRIVILEGES, OLD_TABLE) == fetch(url, PRIVILEGES, VERSION_TABLE)


def test_a_takeover_that_fails_changes_nothing(empty_database_url):
    """Without the right to comment on the old table the command fails, and the new table does not exist."""
    execute(empty_database_url, ROLES.read_text())
    url = as_role(empty_database_url, "items_owner")
    install_old_release(url, "0005")
    execute(empty_database_url, f"ALTER TABLE {OLD_TABLE} OWNER TO postgres; GRANT SELECT ON {OLD_TABLE} TO PUBLIC")

    done = alembic(url, "upgrade", "head")

    assert 1 == done.returncode
    assert f"must be owner of table {OLD_TABLE}" in done.stderr.splitlines()[-1]
    assert [] == fetch(url, f"SELECT FROM pg_tables WHERE tablename = '{VERSION_TABLE}'")


def test_reading_commands_say_that_the_table_is_an_old_one(empty_database_url):
    """`alembic current` changes nothing, and its empty answer has an explanation."""
    install_old_release(empty_database_url, "0005")

    done = succeed(empty_database_url, "current")

    assert ["version_table_old"] == event_names(done.stderr)
    assert [] == fetch(empty_database_url, f"SELECT FROM pg_tables WHERE tablename = '{VERSION_TABLE}'")


@pytest.mark.parametrize("rows", [["0005"], ["a1b2c3d4e5f6"], slow(["0005", "0004"]), slow([])])
def test_the_table_of_another_service_is_left_alone(empty_database_url, newest_schema, rows):
    """Whatever revision it holds, the service's tables are made, and the other table is not touched."""
    url = empty_database_url
    execute(url, f"CREATE TABLE {OLD_TABLE} (version_num varchar(32) NOT NULL PRIMARY KEY)")
    for row in rows:
        execute(url, f"INSERT INTO {OLD_TABLE} VALUES ('{row}')")

    done = succeed(url, "upgrade", "head")
    succeed(url, "downgrade", "items_0004")
    succeed(url, "upgrade", "head")

    assert "version_table_taken_over" not in event_names(done.stderr)
    assert [(row,) for row in rows] == fetch(url, f"TABLE {OLD_TABLE}")
    assert newest_schema == without_old_table(url)


def test_the_table_of_another_service_need_not_be_readable(empty_database_url):
    """The owner of the service's tables has no right on it. Neither the command nor the script reads it."""
    execute(empty_database_url, ROLES.read_text())
    execute(empty_database_url, f"CREATE TABLE {OLD_TABLE} AS SELECT '0005'::varchar(32) AS version_num")
    url = as_role(empty_database_url, "items_owner")

    succeed(url, "upgrade", "items_0002")
    done = run_script(url, succeed(None, "upgrade", "items_0002:head", "--sql").stdout)

    assert 0 == done.returncode, done.stderr
    assert [(HEAD,)] == fetch(url, f"TABLE {VERSION_TABLE}")


def test_a_service_without_these_tables_takes_nothing_over(monkeypatch):
    """It was made from this one, and shares a schema with an old installation. It does not even read that."""
    monkeypatch.setattr(version_table, "APPLIES", False)

    connection = create_autospec(Connection, instance=True)

    assert not version_table.must_take_over(connection)
    assert [] == connection.mock_calls


@pytest.mark.parametrize("row", ["a1b2c3d4e5f6", slow("0006")])
def test_tables_without_a_known_revision_are_refused(empty_database_url, row):
    """The service's tables beside a revision of nobody: the command fails, and says how to write the revision."""
    url = empty_database_url
    install_old_release(url, "0005")
    execute(url, f"UPDATE {OLD_TABLE} SET version_num = '{row}'")

    done = alembic(url, "upgrade", "head")

    assert 1 == done.returncode
    assert f"{VERSION_TABLE} has no revision" in done.stderr
    assert "alembic stamp REVISION" in done.stderr
    succeed(url, "stamp", "items_0005")
    succeed(url, "upgrade", "head")
    assert [(HEAD,)] == fetch(url, f"TABLE {VERSION_TABLE}")
    assert [(row,)] == fetch(url, f"TABLE {OLD_TABLE}")


@pytest.mark.parametrize(("revision", "target"), [(HEAD, "heads"), ("items_9999", "head")])
def test_a_revision_without_tables_is_refused(empty_database_url, revision, target):
    """`alembic upgrade head` never exits 0 in a database that has a revision and no table."""
    url = empty_database_url
    execute(url, f"CREATE TABLE {VERSION_TABLE} (version_num varchar(32) NOT NULL PRIMARY KEY)")
    execute(url, f"INSERT INTO {VERSION_TABLE} VALUES ('{revision}')")

    done = alembic(url, "upgrade", target)

    assert 1 == done.returncode
    tables = ", ".join(sorted(Base.metadata.tables))
    assert f"has the revision {revision}, but these tables do not exist: {tables}." in done.stderr
    assert 1 == len(done.stderr.splitlines())


def test_the_script_takes_an_old_installation_over(empty_database_url, newest_schema):
    """The SQL of `upgrade items_0003:head --sql` takes the revision over before its steps."""
    url = empty_database_url
    install_old_release(url, "0003")
    script = succeed(None, "upgrade", "items_0003:head", "--sql").stdout

    done = run_script(url, script)

    assert 0 == done.returncode, done.stderr
    assert ([(HEAD,)], [(HEAD,)]) == revisions(url)
    assert newest_schema == without_old_table(url)
