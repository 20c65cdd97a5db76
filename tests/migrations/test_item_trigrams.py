"""The extension pg_trgm can be in a schema that the role does not search."""

import pytest

from tests.cluster import ROLES, as_role, execute
from tests.migrations.alembic import alembic, events, fetch, succeed
from tests.migrations.test_offline import run_script

pytestmark = pytest.mark.needs("pg_trgm")

INDEX = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('ix_items_name_trgm')"


@pytest.fixture
def owner_url(empty_database_url):
    """A database without tables, where the extension is in a schema of its own. The role may not use it yet."""
    execute(empty_database_url, ROLES.read_text())
    execute(empty_database_url, 'CREATE SCHEMA "My extensions"; CREATE EXTENSION pg_trgm SCHEMA "My extensions"')
    return as_role(empty_database_url, "items_owner")


def test_the_extension_may_be_in_another_schema(empty_database_url, owner_url):
    """The first revision finds the operator class, and `alembic check` finds no difference."""
    execute(empty_database_url, 'GRANT USAGE ON SCHEMA "My extensions" TO items_owner')

    done = succeed(owner_url, "upgrade", "head")

    assert "postgresql_warning" not in done.stderr
    assert [(True,)] == fetch(owner_url, INDEX)
    succeed(owner_url, "check")
    succeed(owner_url, "downgrade", "base")


def test_the_script_finds_the_extension_in_another_schema(empty_database_url, owner_url):
    """The SQL that `--sql` writes finds it, too."""
    execute(empty_database_url, 'GRANT USAGE ON SCHEMA "My extensions" TO items_owner')

    done = run_script(owner_url, succeed(None, "upgrade", "head", "--sql").stdout)

    assert 0 == done.returncode, done.stderr
    assert [(True,)] == fetch(owner_url, INDEX)


def test_a_role_that_may_not_use_the_extension_is_told_what_to_grant(owner_url):
    """The migration succeeds without the index, as it does without the extension, and `alembic check` as well."""
    warnings = [event for event in events(succeed(owner_url, "upgrade", "head").stderr) if event["level"] == "warning"]

    assert ["postgresql_warning"] == [event["event"] for event in warnings]
    assert 'GRANT USAGE ON SCHEMA "My extensions" TO items_owner' in warnings[0]["message"]
    assert [] == fetch(owner_url, INDEX)
    assert 0 == alembic(owner_url, "check").returncode
