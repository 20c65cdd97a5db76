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
    """What the tables hold."""
    items = fetch(url, "SELECT id, name, description, price, is_active, created_at, updated_at FROM items ORDER BY id")
    return items, fetch(url, "SELECT key, fingerprint, answer, created_at FROM idempotency_keys ORDER BY key")


def test_there_is_one_head():
    """Two revisions that build on the same one would have to be merged first."""
    assert [HEAD] == HEADS


def test_the_models_are_what_the_revisions_make(owner_url):
    """`alembic check` finds no difference."""
    assert "No new upgrade operations detected." in succeed(owner_url, "check").stdout


def test_a_difference_is_found(owner_url):
    """The check above would fail for a column, an index or a table that the models do not have."""
    for statement in (
        "ALTER TABLE items ADD COLUMN colour text",
        "CREATE INDEX stray ON items (price)",
        "CREATE TABLE strays ()",
    ):
        execute(owner_url, statement)

    done = alembic(owner_url, "check")

    assert 0 != done.returncode
    for found in ("remove_column", "remove_index", "remove_table"):
        assert found in done.stderr + done.stdout


def test_a_server_without_trigrams_has_no_difference(empty_database_url):
    """There the index that needs them is not missed."""
    succeed(empty_database_url, "upgrade", "head")
    execute(empty_database_url, "DROP EXTENSION pg_trgm CASCADE")

    succeed(empty_database_url, "check")


@pytest.mark.parametrize("revision", REVISIONS)
def test_each_step_can_be_taken_back(empty_database_url, revision):
    """Up, down and up again on filled tables: the schema is the same, and what was stored before is still there."""
    url = empty_database_url
    if before(revision) != "base":
        succeed(url, "upgrade", before(revision))
        execute(url, FILL)
        stored = rows(url)
    without = dump(url)
    succeed(url, "upgrade", revision)
    with_it = dump(url)
    execute(url, FILL.replace("'key ' ||", "'again ' ||"))

    succeed(url, "downgrade", before(revision))
    # Alembic's own table stays, and so does the extension, which others may use.
    if before(revision) != "base":
        assert without == dump(url)
        assert all(set(then) <= set(now) for then, now in zip(stored, rows(url), strict=True))
    succeed(url, "upgrade", revision)
    assert with_it == dump(url)


def test_names_follow_the_convention(database_url):
    """Every constraint and index is called as the models' convention would call it."""
    url = as_role(database_url, "postgres")
    constraints = fetch(
        url,
        "SELECT contype::text, conname, relname FROM pg_constraint JOIN pg_class ON conrelid = pg_class.oid "
        "WHERE connamespace = 'public'::regnamespace AND relname <> 'alembic_version'",
    )
    indexes = fetch(
        url,
        "SELECT i.relname, t.relname, indisprimary OR indisexclusion FROM pg_index "
        "JOIN pg_class i ON indexrelid = i.oid JOIN pg_class t ON indrelid = t.oid "
        "WHERE i.relnamespace = 'public'::regnamespace AND t.relname <> 'alembic_version'",
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
def test_a_revision_declares_whether_the_release_before_runs_beside_it(revision):
    """It is said in each file, as true or false, by whoever wrote it."""
    assert script(revision).module.runs_beside_previous_release in (True, False)


def test_a_new_revision_asks_for_the_declaration(revisions):
    """What `alembic revision` makes has it, and what else a revision says of itself."""
    succeed(None, "revision", "--rev-id", "9999", "--message", "paint", folder=revisions)

    text = (revisions / "migrations" / "versions" / "9999_paint.py").read_text()
    assert "runs_beside_previous_release = True\n" in text
    assert "lint_waivers: dict[str, str] = {}\n" in text
    add_revision(revisions, "99999", revises="9999", upgrade="pass")
    assert "99999 (head)" in succeed(None, "heads", folder=revisions).stdout
