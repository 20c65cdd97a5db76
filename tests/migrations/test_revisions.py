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


def test_alembic_check_finds_a_difference(owner_url):
    """The check fails for a column, an index or a table that the models do not have."""
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
        "WHERE connamespace = 'public'::regnamespace AND relname <> 'alembic_version' AND contype <> 'n'",
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
def test_each_revision_declares_whether_the_previous_release_can_run_beside_it(revision):
    """`runs_beside_previous_release` is true or false."""
    assert script(revision).module.runs_beside_previous_release in (True, False)


def test_a_new_revision_has_the_declarations(revisions):
    """The template of `alembic revision` contains `runs_beside_previous_release` and `lint_waivers`."""
    succeed(None, "revision", "--rev-id", "9999", "--message", "paint", folder=revisions)

    text = (revisions / "migrations" / "versions" / "9999_paint.py").read_text()
    assert "runs_beside_previous_release = True\n" in text
    assert "lint_waivers: dict[str, str] = {}\n" in text
    add_revision(revisions, "99999", revises="9999", upgrade="pass")
    assert "99999 (head)" in succeed(None, "heads", folder=revisions).stdout
