"""The operations that Alembic would write, and the changes that are written in their place."""

import pytest
from alembic.operations import ops
from sqlalchemy import BigInteger, Column, Computed, Identity

from migrations.safe_operations import CreateIndexConcurrentlyOp, NoteOp, safe_changes


@pytest.mark.parametrize("value", [Identity(), Computed("1 + 1")], ids=["identity", "computed"])
def test_a_column_that_rewrites_its_table_says_so(value):
    """The note asks why the table may be locked. Nothing is removed."""
    column: Column[int] = Column("number", BigInteger, value)

    [[change]] = safe_changes([ops.AddColumnOp("samples", column)])

    note = change.upgrade[0]
    assert isinstance(note, NoteOp)
    assert "the rule adding-field-with-default, with the reason why the table may be locked" in note.text
    assert "removed" not in note.text


def test_the_downgrade_of_a_unique_constraint_can_run_again():
    """The constraint is already dropped if the build of its index has failed."""
    constraint = ops.CreateUniqueConstraintOp("uq_samples_name", "samples", ["name"])

    _, [change] = safe_changes([constraint])

    drop, create = change.downgrade
    assert isinstance(drop, ops.ExecuteSQLOp)
    assert "ALTER TABLE samples DROP CONSTRAINT IF EXISTS uq_samples_name" == str(drop.sqltext)
    assert isinstance(create, CreateIndexConcurrentlyOp)
