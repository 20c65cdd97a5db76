import re

import pytest

from app.models import Base
from tests.cluster import as_role, execute
from tests.migrations.alembic import HEAD, add_revision, alembic, fetch, succeed
from tests.migrations.schema import dump
from tests.migrations.versions import HEADS, REVISIONS, before, script

FILL = """
INSERT INTO items (name, description, price, is_active)
SELECT 'Item ' || n, CASE WHEN n % 3 = 0 THEN 'About ' || n END, n / 100.0, n % 7 > 0 FROM generate_series(1, 500) AS n;
INSERT INTO idempotency_keys (key, fingerprint, answer, created_at)
SELECT 'key ' || id, sha256(name::bytea), to_jsonb(items), created_at FROM items LIMIT 50
"""

NAMED = {"p": "pk_{table}", "u": "uq_{table}_", "f": "fk_{table}_", "c": "ck_{table}_", "x": "ex_{table}_"}


def rows(url):
    """The rows of the tables."""
    items = fetch(url, "SELECT id, name, description, price, is_active, created_at, updated_at FROM items ORDER BY id")
    return items, fetch(url, "SELECT key, fingerprint, answer, created_at FROM idempotency_keys ORDER BY key")


def test_there_is_one_head():
    """No two revisions build on the same one."""
    assert [HEAD] == HEADS


def test_the_models_match_the_revisions(owner_url):
    """`alembic check` finds no difference."""
    assert "No new upgrade operations detected." in succeed(owner_url, "check").stdout


@pytest.mark.parametrize(
    ("statement", "difference"),
    [
        ("ALTER TABLE items ADD COLUMN colour text", "remove_column"),
        ("CREATE INDEX ix_items_price ON items (price)", "remove_index"),
        ("ALTER TABLE items ADD CONSTRAINT uq_items_name UNIQUE (name)", "remove_constraint"),
        ("DROP INDEX ix_items_letter_pairs", "add_index"),
        ("DROP TABLE idempotency_keys", "add_table"),
    ],
)
def test_alembic_check_finds_a_difference(owner_url, statement, difference):
    """The check fails for a column, or an index or constraint of the naming convention, that the models lack.

    It fails for a table or an index that the database lacks, too.
    """
    execute(owner_url, statement)

    done = alembic(owner_url, "check")

    assert 0 != done.returncode
    assert difference in done.stderr + done.stdout


def test_objects_of_others_are_left_alone(owner_url, revisions_copy):
    """Tables, indexes and constraints of others are no difference, and autogenerate drops none of them."""
    for statement in (
        "CREATE TABLE others (id bigint PRIMARY KEY, item_id bigint REFERENCES items (id))",
        "CREATE INDEX others_by_item ON others (item_id)",
        "CREATE INDEX dba_price ON items (price)",
        "CREATE UNIQUE INDEX dba_name ON items (name, id)",
        "CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)",
        "CREATE VIEW cheap AS SELECT id FROM items WHERE price < 1",
    ):
        execute(owner_url, statement)

    assert "No new upgrade operations detected." in succeed(owner_url, "check").stdout
    succeed(owner_url, "revision", "--autogenerate", "--rev-id", "items_9999", "-m", "none", folder=revisions_copy)
    written = (revisions_copy / "migrations" / "versions" / "items_9999_none.py").read_text()
    assert "op." not in written


@pytest.mark.needs("hstore")
def test_the_extension_of_another_service_is_left_alone(owner_url):
    """Its functions and views are no difference."""
    execute(as_role(owner_url, "postgres"), "CREATE EXTENSION hstore; CREATE EXTENSION pg_stat_statements")

    assert "No new upgrade operations detected." in succeed(owner_url, "check").stdout


def test_alembic_check_passes_without_pg_trgm(empty_database_url):
    """The index that needs the extension is not reported as missing."""
    succeed(empty_database_url, "upgrade", "head")
    execute(empty_database_url, "DROP EXTENSION IF EXISTS pg_trgm CASCADE")

    succeed(empty_database_url, "check")


@pytest.mark.parametrize("revision", REVISIONS)
def test_each_revision_can_be_downgraded(empty_database_url, revision):
    """After upgrade, downgrade and upgrade on filled tables the schema is the same and no row is lost."""
    url = empty_database_url
    if before(revision) != "base":
        succeed(url, "upgrade", before(revision))
        execute(url, FILL)
        stored = rows(url)
    without_revision = dump(url)
    succeed(url, "upgrade", revision)
    with_revision = dump(url)
    execute(url, FILL.replace("'key ' ||", "'again ' ||"))

    succeed(url, "downgrade", before(revision))
    # The version table and the extension stay.
    if before(revision) != "base":
        assert without_revision == dump(url)
        assert all(set(then) <= set(now) for then, now in zip(stored, rows(url), strict=True))
    succeed(url, "upgrade", revision)
    assert with_revision == dump(url)


def test_names_follow_the_convention(database_url):
    """Every constraint and index has the name that the models' naming convention gives it."""
    url = as_role(database_url, "postgres")
    constraints = fetch(
        url,
        "SELECT contype::text, conname, relname FROM pg_constraint JOIN pg_class ON conrelid = pg_class.oid "
        "WHERE connamespace = 'public'::regnamespace AND relname NOT LIKE '%alembic_version' AND contype <> 'n'",
    )
    indexes = fetch(
        url,
        "SELECT i.relname, t.relname, indisprimary OR indisexclusion FROM pg_index "
        "JOIN pg_class i ON indexrelid = i.oid JOIN pg_class t ON indrelid = t.oid "
        "WHERE i.relnamespace = 'public'::regnamespace AND t.relname NOT LIKE '%alembic_version'",
    )

    assert len(constraints) >= 5
    for kind, name, table in constraints:
        assert name.startswith(NAMED[kind].format(table=table)), name
        assert name.count(table) == 1, name
    declared = {
        str(constraint.name)
        for table in Base.metadata.tables.values()
        for constraint in table.constraints
        if constraint.name
    }
    assert declared == {name for _, name, _ in constraints}
    for name, table, is_constraint in indexes:
        assert is_constraint or re.match(f"(ix|uq)_{table}_", name), name


@pytest.mark.parametrize("revision", REVISIONS)
def test_each_revision_declares_whether_the_previous_release_can_run_beside_it(revision):
    """`runs_beside_previous_release` is true or false."""
    assert script(revision).module.runs_beside_previous_release in (True, False)


def test_a_new_revision_has_the_declarations(revisions_copy):
    """The template of `alembic revision` contains `runs_beside_previous_release` and `lint_waivers`."""
    succeed(None, "revision", "--rev-id", "items_9999", "--message", "paint", folder=revisions_copy)

    text = (revisions_copy / "migrations" / "versions" / "items_9999_paint.py").read_text()
    assert "runs_beside_previous_release = True\n" in text
    assert "lint_waivers: dict[str, str] = {}\n" in text
    add_revision(revisions_copy, "items_99999", revises="items_9999", upgrade="pass")
    assert "items_99999 (head)" in succeed(None, "heads", folder=revisions_copy).stdout
