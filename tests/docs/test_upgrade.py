"""The script of an upgrade, written as docs/operations/upgrade.md says."""

import pytest

from tests.docs.documents import COMMANDS, blocks
from tests.docs.shell import reader
from tests.migrations.alembic import HEAD, VERSION_TABLE, fetch
from tests.migrations.test_offline import run_script
from tests.paths import ROOT

FIRST = next(block for block in blocks(ROOT / "docs/operations/upgrade.md") if block.kind == COMMANDS)


def test_the_script_for_a_new_database_has_all_revisions(empty_database_url, tmp_path):
    """The commands of the page write it. psql runs it in the new database."""
    with reader({"DATABASE_URL": empty_database_url, "BACKUPS": str(tmp_path)}) as shell:
        shell.run(FIRST)
    done = run_script(empty_database_url, (tmp_path / "upgrade.sql").read_text())

    assert 0 == done.returncode, done.stderr
    assert [(HEAD,)] == fetch(empty_database_url, f"TABLE {VERSION_TABLE}")


def test_no_script_is_written_if_the_revision_cannot_be_read(tmp_path):
    """A database that cannot be reached is not taken for a new one."""
    with (
        reader({"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none", "BACKUPS": str(tmp_path)}) as shell,
        pytest.raises(AssertionError, match="PostgreSQL cannot be reached"),
    ):
        shell.execute(f"set +e\n{FIRST.text.strip()} || exit 7", name="upgrade")

    assert [] == list(tmp_path.iterdir())
