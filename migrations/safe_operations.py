"""The operations that `alembic revision --autogenerate` writes, in steps that are safe beside the running service.

Alembic compares the models with a database and finds, for example, a new column with a foreign key. Written as they
are, such operations read or rewrite a table while its readers wait. Here each one becomes one or more changes, and the
changes of one step and one table become a revision of their own.
"""

import re
from collections.abc import Iterable, Iterator
from copy import copy
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from alembic.operations import ops
from sqlalchemy import Column, DefaultClause
from sqlalchemy.dialects import postgresql

_CONSTANT = re.compile(
    r"(?:'(?:[^']|'')*'|[-+]?[\d.]+|true|false|null|now\(\)|current_(?:timestamp|date))(?:::[\w\s\[\](),]+)?",
    re.IGNORECASE,
)
_REMOVE = {
    ops.DropColumnOp: "ban-drop-column",
    ops.DropConstraintOp: "ban-drop-constraint",
    ops.DropTableOp: "ban-drop-table",
}
"""Operations that remove something, and the rule that finds them."""

_WHY_REMOVED = "the release before does not need what is removed or changed here, and how long the table is locked"
_WHY_REWRITTEN = "the table may be locked while PostgreSQL writes all its rows"

_quote = postgresql.dialect().identifier_preparer.quote  # type: ignore[no-untyped-call]


class Step(IntEnum):
    """The steps, in the order of their revisions."""

    CREATE = 0
    EXPAND = 1
    FOREIGN_KEY = 2
    VALIDATE = 3
    NOT_NULL = 4
    INDEX = 5
    UNIQUE = 6
    DROP_CONSTRAINT = 7
    CONTRACT = 8


TITLES = {
    Step.CREATE: "create {table}",
    Step.EXPAND: "change {table}",
    Step.FOREIGN_KEY: "reference from {table}",
    Step.VALIDATE: "validate {table}",
    Step.NOT_NULL: "not null in {table}",
    Step.INDEX: "index {table}",
    Step.UNIQUE: "make {table} unique",
    Step.DROP_CONSTRAINT: "constraints of {table}",
    Step.CONTRACT: "remove from {table}",
}
"""What is added to the message of a revision that is not the only one."""


class NoteOp(ops.MigrateOperation):
    """A comment in the revision."""

    def __init__(self, text: str) -> None:
        self.text = text


class CreateIndexConcurrentlyOp(ops.MigrateOperation):
    """Calls `migrations.indexes.create_index_concurrently`."""

    def __init__(self, index: ops.CreateIndexOp) -> None:
        self.index = index


class DropIndexConcurrentlyOp(ops.MigrateOperation):
    """Calls `migrations.indexes.drop_index_concurrently`."""

    def __init__(self, name: str, table: str) -> None:
        self.name = name
        self.table = table


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Operations that belong in one transaction, and those that undo them."""

    step: Step
    table: str
    upgrade: tuple[ops.MigrateOperation, ...]
    downgrade: tuple[ops.MigrateOperation, ...] = ()
    name: str = ""
    """What it needs a revision of its own for, besides the table."""


def safe_changes(found: Iterable[ops.MigrateOperation]) -> list[list[Change]]:
    """The changes of each revision, for the operations that Alembic has found."""
    operations = list(_flat(found))
    new = {operation.table_name for operation in operations if isinstance(operation, ops.CreateTableOp)}
    revisions: dict[tuple[Step, str, str], list[Change]] = {}
    for operation in operations:
        for change in _safe(operation, new):
            revisions.setdefault((change.step, change.table, change.name), []).append(change)
    return [revisions[key] for key in sorted(revisions, key=lambda key: key[0])]


def _flat(operations: Iterable[ops.MigrateOperation]) -> Iterator[ops.MigrateOperation]:
    for operation in operations:
        if isinstance(operation, ops.OpContainer):
            yield from _flat(operation.ops)
        else:
            yield operation


def _safe(operation: Any, new: set[str]) -> Iterator[Change]:
    table = str(getattr(operation, "source_table", None) or getattr(operation, "table_name", ""))
    if table in new:
        yield Change(step=Step.CREATE, table=table, upgrade=(operation,), downgrade=(operation.reverse(),))
    elif isinstance(operation, ops.AddColumnOp):
        yield from _add_column(operation)
    elif isinstance(operation, ops.AlterColumnOp):
        yield from _alter_column(operation)
    elif isinstance(operation, ops.CreateForeignKeyOp):
        yield from _create_foreign_key(operation)
    elif isinstance(operation, ops.CreateUniqueConstraintOp):
        yield from _create_unique_constraint(operation)
    elif isinstance(operation, ops.CreateIndexOp):
        yield Change(step=Step.INDEX, table=table, upgrade=(_create(operation),), downgrade=(_drop(operation),))
    elif isinstance(operation, ops.DropIndexOp):
        created = operation.reverse()
        yield Change(step=Step.INDEX, table=table, upgrade=(_drop(created),), downgrade=(_create(created),))
    elif rule := _REMOVE.get(type(operation)):
        yield _contract(operation, rule)
    else:
        yield Change(step=Step.EXPAND, table=table, upgrade=(operation,), downgrade=(operation.reverse(),))


def _add_column(operation: ops.AddColumnOp) -> Iterator[Change]:
    table, column = operation.table_name, operation.column
    upgrade: list[ops.MigrateOperation] = []
    if column.computed is not None or column.identity is not None:
        upgrade = [_needs_waiver("adding-field-with-default", _WHY_REWRITTEN), operation]
    else:
        default = column.server_default
        is_constant = default is None or _is_constant(default)
        is_nullable = column.nullable or default is None or not is_constant
        if not is_nullable or (is_constant and column.nullable):
            upgrade = [operation]
        else:
            upgrade = [_with_column(operation, nullable=is_nullable, default=default if is_constant else None)]
        if not is_constant:
            upgrade.append(ops.AlterColumnOp(table, column.name, modify_server_default=default))
        if (is_nullable and not column.nullable) or not is_constant:
            upgrade.insert(0, NoteOp(_fill(column, is_constant=is_constant)))
    yield Change(step=Step.EXPAND, table=table, upgrade=tuple(upgrade), downgrade=(operation.reverse(),))


def _fill(column: Column[Any], *, is_constant: bool) -> str:
    default = (
        "" if is_constant else " Its default is set apart, because PostgreSQL would compute it for all rows at once."
    )
    then = "" if column.nullable else " Then run autogenerate again, which sets it NOT NULL."
    null = "" if column.nullable else " It may be null, because the rows and the release before have no value for it."
    return f"The column {column.name} is new.{null}{default} Fill the rows in batches, outside of migrations.{then}"


def _with_column(operation: ops.AddColumnOp, *, nullable: bool, default: Any) -> ops.AddColumnOp:
    column = operation.column
    kept = Column(column.name, column.type, nullable=nullable, server_default=default, comment=column.comment)
    return ops.AddColumnOp(operation.table_name, kept, schema=operation.schema)


def _is_constant(default: Any) -> bool:
    """Whether PostgreSQL computes the default once, and so need not rewrite the table."""
    if not isinstance(default, DefaultClause):
        return False
    if isinstance(default.arg, str):
        return True
    compiled = default.arg.compile(dialect=postgresql.dialect(), compile_kwargs={"literal_binds": True})  # type: ignore[no-untyped-call]
    return bool(_CONSTANT.fullmatch(str(compiled).strip()))


def _alter_column(operation: ops.AlterColumnOp) -> Iterator[Change]:
    table, column = operation.table_name, operation.column_name
    if operation.modify_comment is not False:
        yield _expand(_only(operation, "modify_comment"))
    if operation.modify_server_default is None:
        yield _contract(_only(operation, "modify_server_default"), "ban-drop-default")
    elif operation.modify_server_default is not False:
        yield _expand(_only(operation, "modify_server_default"))
    if operation.modify_type is not None:
        yield _contract(_only(operation, "modify_type"), "rewrite")
    if operation.modify_nullable:
        yield _contract(_only(operation, "modify_nullable"), "ban-drop-not-null")
    elif operation.modify_nullable is False:
        check = f"ck_{table}_{column}_not_null"
        add = f"ADD CONSTRAINT {_quote(check)} CHECK ({_quote(column)} IS NOT NULL)"
        drop = _sql(table, f"DROP CONSTRAINT {_quote(check)}")
        not_valid = _sql(table, f"{add} NOT VALID")
        only = _only(operation, "modify_nullable")
        yield Change(step=Step.EXPAND, table=table, upgrade=(not_valid,), downgrade=(drop,))
        yield _validate(table, check, undo=(drop, not_valid))
        yield Change(
            step=Step.NOT_NULL,
            table=table,
            upgrade=(only, drop),
            downgrade=(_sql(table, add), only.reverse()),
        )


def _only(operation: ops.AlterColumnOp, attribute: str) -> ops.AlterColumnOp:
    """The operation with one of its changes."""
    only = copy(operation)
    for name, unchanged in {
        "modify_comment": False, "modify_server_default": False, "modify_type": None, "modify_nullable": None,
    }.items():  # fmt: skip
        if name != attribute:
            setattr(only, name, unchanged)
    return only


def _create_foreign_key(operation: ops.CreateForeignKeyOp) -> Iterator[Change]:
    name = str(operation.constraint_name)
    not_valid = copy(operation)
    not_valid.kw = operation.kw | {"postgresql_not_valid": True}
    drop = operation.reverse()
    yield Change(
        step=Step.FOREIGN_KEY, table=operation.source_table, upgrade=(not_valid,), downgrade=(drop,), name=name
    )
    yield _validate(operation.source_table, name, undo=(drop, not_valid))


def _create_unique_constraint(operation: ops.CreateUniqueConstraintOp) -> Iterator[Change]:
    name, table = str(operation.constraint_name), operation.table_name
    index = ops.CreateIndexOp(name, table, list(operation.columns), unique=True)
    yield Change(step=Step.INDEX, table=table, upgrade=(_create(index),), downgrade=(_drop(index),))
    yield Change(
        step=Step.UNIQUE,
        table=table,
        upgrade=(_sql(table, f"ADD CONSTRAINT {_quote(name)} UNIQUE USING INDEX {_quote(name)}"),),
        # The index goes with the constraint, and the revision before created it. The constraint is already dropped
        # when this runs again after the build has failed.
        downgrade=(_sql(table, f"DROP CONSTRAINT IF EXISTS {_quote(name)}"), _create(index)),
    )


def _create(index: ops.CreateIndexOp) -> CreateIndexConcurrentlyOp:
    return CreateIndexConcurrentlyOp(index)


def _drop(index: ops.CreateIndexOp) -> DropIndexConcurrentlyOp:
    return DropIndexConcurrentlyOp(str(index.index_name), index.table_name)


def _expand(operation: ops.AlterColumnOp) -> Change:
    return Change(step=Step.EXPAND, table=operation.table_name, upgrade=(operation,), downgrade=(operation.reverse(),))


def _contract(operation: Any, rule: str) -> Change:
    return Change(
        # A column of another type, for example, may not fit its old constraint.
        step=Step.DROP_CONSTRAINT if isinstance(operation, ops.DropConstraintOp) else Step.CONTRACT,
        table=operation.table_name,
        upgrade=(_needs_waiver(rule), operation),
        downgrade=(operation.reverse(),),
    )


def _validate(table: str, constraint: str, *, undo: tuple[ops.MigrateOperation, ...]) -> Change:
    return Change(
        step=Step.VALIDATE,
        table=table,
        upgrade=(_sql(table, f"VALIDATE CONSTRAINT {_quote(constraint)}"),),
        downgrade=undo,
    )


def _needs_waiver(rule: str, reason: str = _WHY_REMOVED) -> NoteOp:
    return NoteOp(f"The tests refuse this until lint_waivers has the rule {rule}, with the reason why {reason}.")


def _sql(table: str, action: str) -> ops.ExecuteSQLOp:
    return ops.ExecuteSQLOp(f"ALTER TABLE {_quote(table)} {action}")
