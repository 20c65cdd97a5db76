import pytest

from app.health.schema_state import VERSION_TABLE
from tests.migrations import versions
from tests.migrations.lint import Linter, complaints, split
from tests.migrations.versions import REVISIONS


def broken_rules(*revisions):
    """The rules that the last of these revisions breaks."""
    linter = Linter()
    return [{finding.rule for finding in linter.findings(sql)} for sql in revisions][-1]


@pytest.mark.parametrize(
    ("rule", "sql"),
    [
        ("index-not-concurrent", "CREATE INDEX i ON samples (amount)"),
        ("index-not-concurrent", "CREATE UNIQUE INDEX i ON public.samples USING btree (amount)"),
        ("index-not-concurrent", "DO $$ BEGIN IF true THEN CREATE INDEX i ON samples (amount); END IF; END $$"),
        ("index-not-concurrent", "create index i on samples (amount)"),
        ("index-not-concurrent", "DROP INDEX i"),
        ("index-not-concurrent", "REINDEX TABLE samples"),
        ("rewrite", "ALTER TABLE samples ALTER COLUMN amount TYPE float"),
        ("rewrite", "ALTER TABLE samples ALTER amount SET DATA TYPE float USING amount::float"),
        ("rewrite", "ALTER TABLE samples DROP COLUMN a, ALTER COLUMN amount TYPE float"),
        ("rewrite", "ALTER TABLE samples ADD COLUMN code uuid DEFAULT gen_random_uuid()"),
        ("rewrite", "ALTER TABLE samples ADD COLUMN size int GENERATED ALWAYS AS (length(name)) STORED"),
        ("rewrite", "ALTER TABLE samples ADD COLUMN number BIGSERIAL"),
        ("rewrite", "ALTER TABLE samples SET UNLOGGED"),
        ("not-null-unchecked", "ALTER TABLE samples ALTER COLUMN amount SET NOT NULL"),
        ("column-filled", "ALTER TABLE samples ADD COLUMN colour text NOT NULL"),
        ("constraint-validated", "ALTER TABLE samples ADD CONSTRAINT c CHECK (amount > 0)"),
        ("constraint-validated", "ALTER TABLE samples ADD CONSTRAINT c FOREIGN KEY (a) REFERENCES other (id)"),
        ("constraint-validated", "ALTER TABLE samples ADD COLUMN a int REFERENCES other (id)"),
        ("constraint-unique", "ALTER TABLE samples ADD CONSTRAINT c UNIQUE (name)"),
        ("constraint-unique", "ALTER TABLE samples ADD COLUMN a int UNIQUE"),
        ("exclusive", "LOCK TABLE samples"),
        ("exclusive", "VACUUM FULL samples"),
        ("exclusive", "TRUNCATE samples"),
        ("rows-changed", "UPDATE samples SET amount = 0"),
        ("rows-changed", "DELETE FROM samples WHERE amount IS NULL"),
        ("rows-changed", "DO $$ BEGIN UPDATE samples SET amount = 0; END $$"),
        ("half-committed", "ALTER TABLE samples ADD COLUMN a int; CREATE INDEX CONCURRENTLY i ON samples (a)"),
        ("dynamic-sql", "DO $$ BEGIN EXECUTE 'ALTER TABLE ' || 'samples SET UNLOGGED'; END $$"),
    ],
)  # fmt: skip
def test_a_statement_that_blocks_or_rewrites_is_found(rule, sql):
    """Each of these statements blocks readers or writers of a big table, or can leave a revision half applied."""
    assert {rule} == broken_rules(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE INDEX CONCURRENTLY i ON samples (amount)",
        "SELECT set_config('a', '1s', false); DROP INDEX CONCURRENTLY i; CREATE INDEX CONCURRENTLY i ON samples (a)",
        "CREATE TABLE new (id int); CREATE INDEX i ON new (id); ALTER TABLE new ADD UNIQUE (id)",
        "CREATE TABLE new (id int); INSERT INTO new VALUES (1)",
        "ALTER TABLE samples ADD COLUMN colour text",
        "ALTER TABLE samples ADD COLUMN colour text DEFAULT 'it''s; UPDATE samples' NOT NULL",
        "ALTER TABLE samples ADD COLUMN seen timestamptz DEFAULT now()",
        "ALTER TABLE samples DROP COLUMN colour",
        "ALTER TABLE samples ALTER COLUMN amount DROP NOT NULL",
        "ALTER TABLE samples ADD CONSTRAINT c CHECK (amount > 0) NOT VALID",
        "ALTER TABLE samples VALIDATE CONSTRAINT c",
        "ALTER TABLE samples ADD CONSTRAINT c UNIQUE USING INDEX i",
        "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'UPDATE a'; UPDATE samples; END $$",
        "-- UPDATE samples\n/* LOCK samples; */ SELECT 1",
        f"BEGIN; UPDATE {VERSION_TABLE} SET version_num = '2'; COMMIT",
    ],
)  # fmt: skip
def test_a_statement_with_a_short_lock_passes(sql):
    """The linter accepts statements that take a strong lock only for a moment, or none."""
    assert set() == broken_rules(sql)


def test_set_not_null_needs_three_revisions():
    """SET NOT NULL is accepted after one revision has added a NOT VALID check and another has validated it."""
    add = "ALTER TABLE samples ADD CONSTRAINT c CHECK (amount IS NOT NULL) NOT VALID"
    validate = "ALTER TABLE samples VALIDATE CONSTRAINT c"
    set_not_null = "ALTER TABLE samples ALTER COLUMN amount SET NOT NULL"

    assert set() == broken_rules(add, validate, set_not_null)
    assert {"not-null-unchecked"} == broken_rules(add, set_not_null)
    assert {"not-null-unchecked"} == broken_rules(add, validate, "ALTER TABLE samples ALTER COLUMN name SET NOT NULL")
    assert {"constraint-validated"} <= broken_rules(f"{add}; {validate}")


def test_a_script_is_split_into_statements():
    """Semicolons in string literals, comments and function bodies do not end a statement."""
    assert ["SELECT ';'", "DO $a$ x; y $a$", "END"] == split("select  ';'; -- a;b\ndo $a$ x; y $a$;\n/* ; */ end")


def test_a_rule_can_be_waived_with_a_reason():
    """A waiver without a reason, or for a rule that is not broken, is a complaint."""
    found = Linter().findings("ALTER TABLE settings ALTER COLUMN value TYPE jsonb")
    reason = "This table has one row for each setting, and never more."

    assert [] == complaints(found, {"rewrite": reason})
    assert ["rewrite: ALTER TABLE SETTINGS"] == [text[:29] for text in complaints(found, {})]
    assert ["rewrite is waived without"] == [text[:25] for text in complaints(found, {"rewrite": "small"})]
    assert ["exclusive is waived but not broken."] == complaints(found, {"rewrite": reason, "exclusive": reason})


@pytest.mark.parametrize("revision", REVISIONS)
def test_no_revision_breaks_a_lint_rule(revision):
    """Each revision of the project keeps the rules that it does not waive."""
    linter = Linter()
    for earlier in REVISIONS[: REVISIONS.index(revision)]:
        linter.findings(versions.sql(earlier))

    assert [] == complaints(linter.findings(versions.sql(revision)), versions.waivers(revision))
