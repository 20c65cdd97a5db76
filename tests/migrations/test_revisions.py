import re
from importlib import import_module
from pathlib import Path

import pytest

from app.models import Base
from tests.cluster import as_role, execute
from tests.migrations.alembic import HEAD, add_revision, alembic, events, fetch, succeed
from tests.migrations.schema import dump
from tests.migrations.versions import HEADS, REVISIONS, before, script

FILL_KEYS = """
INSERT INTO idempotency_keys (key, fingerprint, answer, created_at)
SELECT '{key} ' || n, sha256(n::text::bytea), to_jsonb(n), now() FROM generate_series(1, 50) AS n
"""
KEYS = "SELECT key, fingerprint, answer, created_at FROM idempotency_keys ORDER BY key"

ROWS = [import_module(f"tests.migrations.{path.stem}") for path in Path(__file__).parent.glob("*_rows.py")]
"""For each of the service's own tables its name, a statement that fills it, and a query of its rows."""

NAMED = {"p": "pk_{table}", "u": "uq_{table}_", "f": "fk_{table}_", "c": "ck_{table}_", "x": "ex_{table}_"}


def existing(url):
    """What fills and reads the tables that exist at this revision."""
    return [rows for rows in ROWS if fetch(url, "SELECT to_regclass($1) IS NOT NULL", rows.TABLE) == [(True,)]]


def fill(url, key):
    """Store rows in each table."""
    execute(url, FILL_KEYS.format(key=key))
    for rows in existing(url):
        execute(url, rows.FILL)


def stored_rows(url):
    """The rows of each table."""
    return [fetch(url, KEYS), *(fetch(url, rows.ROWS) for rows in existing(url))]


def steps(stderr):
    """What the log lines say that was run."""
    return {event["step"] for event in events(stderr) if "step" in event}


def test_there_is_one_head():
    """No two revisions build on the same one."""
    assert [HEAD] == HEADS


def test_the_models_match_the_revisions(owner_url):
    """`alembic check` finds no difference."""
    assert "No new upgrade operations detected." in succeed(owner_url, "check").stdout


@pytest.mark.parametrize(
    ("statement", "difference"),
    [
        ("ALTER TABLE idempotency_keys ADD COLUMN colour text", "remove_column"),
        ("CREATE INDEX ix_idempotency_keys_answer ON idempotency_keys (answer)", "remove_index"),
        ("ALTER TABLE idempotency_keys ADD CONSTRAINT uq_idempotency_keys_answer UNIQUE (answer)", "remove_constraint"),
        ("DROP INDEX ix_idempotency_keys_created_at", "add_index"),
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
        "CREATE TABLE letters (id bigint PRIMARY KEY, key text REFERENCES idempotency_keys (key))",
        "CREATE INDEX letters_by_key ON letters (key)",
        "CREATE INDEX dba_answer ON idempotency_keys (answer)",
        "CREATE UNIQUE INDEX dba_key ON idempotency_keys (key, created_at)",
        "CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)",
        "CREATE VIEW recent AS SELECT key FROM idempotency_keys",
    ):
        execute(owner_url, statement)

    assert "No new upgrade operations detected." in succeed(owner_url, "check").stdout
    succeed(owner_url, "revision", "--autogenerate", "--rev-id", "9999", "-m", "none", folder=revisions_copy)
    written = (revisions_copy / "migrations" / "versions" / "9999_none.py").read_text()
    assert "op." not in written


@pytest.mark.needs("hstore")
def test_the_extension_of_another_service_is_left_alone(owner_url):
    """Its functions and views are no difference."""
    execute(as_role(owner_url, "postgres"), "CREATE EXTENSION hstore; CREATE EXTENSION pg_stat_statements")

    assert "No new upgrade operations detected." in succeed(owner_url, "check").stdout


@pytest.mark.parametrize("revision", REVISIONS)
def test_each_revision_can_be_downgraded(empty_database_url, revision):
    """After upgrade, downgrade and upgrade on filled tables the schema is the same and no row is lost."""
    url = empty_database_url
    if before(revision) != "base":
        succeed(url, "upgrade", before(revision))
        fill(url, "first")
        stored = stored_rows(url)
    without_revision = dump(url)
    upgraded = succeed(url, "upgrade", revision)
    with_revision = dump(url)
    fill(url, "second")

    downgraded = succeed(url, "downgrade", before(revision))
    assert {f"upgrade {before(revision)} -> {revision}"} == steps(upgraded.stderr)
    assert {f"downgrade {revision} -> {before(revision)}"} == steps(downgraded.stderr)
    # The version table and the extension stay.
    if before(revision) != "base":
        assert without_revision == dump(url)
        assert all(set(then) <= set(now) for then, now in zip(stored, stored_rows(url), strict=True))
    succeed(url, "upgrade", revision)
    assert with_revision == dump(url)


def test_names_follow_the_convention(database_url):
    """Every constraint and index has the name that the models' naming convention gives it."""
    url = as_role(database_url, "postgres")
    constraints = fetch(
        url,
        "SELECT contype::text, conname, relname FROM pg_constraint JOIN pg_class ON conrelid = pg_class.oid "
        "WHERE connamespace = 'public'::regnamespace AND relname <> 'samples' "
        "AND relname NOT LIKE '%alembic_version' AND contype <> 'n'",
    )
    indexes = fetch(
        url,
        "SELECT i.relname, t.relname, indisprimary OR indisexclusion FROM pg_index "
        "JOIN pg_class i ON indexrelid = i.oid JOIN pg_class t ON indrelid = t.oid "
        "WHERE i.relnamespace = 'public'::regnamespace AND t.relname NOT LIKE '%alembic_version' "
        "AND t.relname <> 'samples'",
    )

    assert constraints
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
    succeed(None, "revision", "--rev-id", "9999", "--message", "paint", folder=revisions_copy)

    text = (revisions_copy / "migrations" / "versions" / "9999_paint.py").read_text()
    assert "runs_beside_previous_release = True\n" in text
    assert "lint_waivers: dict[str, str] = {}\n" in text
    add_revision(revisions_copy, "99999", revises="9999", upgrade="pass")
    assert "99999 (head)" in succeed(None, "heads", folder=revisions_copy).stdout
