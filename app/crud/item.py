"""Create, get, replace, change, deactivate and delete items: one SQL statement each."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from datetime import datetime
from functools import cache, partial
from typing import Any, cast

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    DateTime,
    Delete,
    Float,
    Insert,
    Select,
    Table,
    Update,
    bindparam,
    case,
    delete,
    func,
    insert,
    literal_column,
    select,
    true,
    update,
)
from sqlalchemy import cast as sql_cast

from app.database import StatementRunner, named
from app.dataclasses.item import Item
from app.errors import InvalidFieldError, ItemNotFoundError, PreconditionFailedError, RequestError
from app.models.item import ItemRow

_items = cast(Table, ItemRow.__table__)


def _read(name: str) -> ColumnElement[Any]:
    """A column as `Item` has it: the server converts the exact price to a JSON number."""
    column = _items.c[name]
    return sql_cast(column, Float(53)).label(name) if name == "price" else column


columns = [_read(field.name) for field in fields(Item)]
"""The columns that are read of an item, in the order of its fields."""

CONSTRAINT_ERRORS: Mapping[str, Callable[[], RequestError]] = {
    "ck_items_name_length": partial(InvalidFieldError, "name", "must have 1 to 255 characters"),
    "ck_items_description_length": partial(InvalidFieldError, "description", "must have at most 10,000 characters"),
    "ck_items_price_range": partial(InvalidFieldError, "price", "must be from 0 to 9,999,999,999.99"),
}
"""What is raised when a constraint of the table is violated, by the constraint's name."""

_by_id = _items.c.id == bindparam("item_id")
_next_version = func.greatest(
    func.clock_timestamp(), _items.c.updated_at + literal_column("interval '1 microsecond'"), type_=DateTime(True)
)
"""The time of a write, and later than the version before, also when the clock has stood still or gone back."""

_get = named("get_item", select(*columns).where(_by_id))
_deactivate = named(
    "deactivate_item",
    update(_items).values(
        is_active=False,
        # An inactive item is not changed, so its version stays.
        updated_at=case((_items.c.is_active, _next_version), else_=_items.c.updated_at),
    ),
)
_delete = named("delete_item", delete(_items))


async def get(database: StatementRunner, item_id: int) -> Item:
    """The item with this id.

    Raises:
        ItemNotFoundError: There is no such item.
    """
    rows = await database.run(_get, {"item_id": item_id})
    if not rows:
        raise ItemNotFoundError(item_id)
    return Item(*rows[0])


async def create(database: StatementRunner, values: Mapping[str, Any]) -> Item:
    """Store a new item and return it.

    Args:
        values: Columns by name; an absent column gets the table's default.
    """
    rows = await database.run(_create(tuple(values)), values, constraint_errors=CONSTRAINT_ERRORS)
    return Item(*rows[0])


async def change(
    database: StatementRunner, item_id: int, changes: Mapping[str, Any], *, versions: Collection[datetime] | None = None
) -> Item:
    """Overwrite the named columns and return the item as it now is.

    Args:
        changes: Columns by name. A column that is absent stays as it is.
        versions: When given, `updated_at` must be one of these.

    Raises:
        ItemNotFoundError: There is no such item.
        PreconditionFailedError: The item has another version.
    """
    return await _write(database, _change(tuple(sorted(changes))), item_id, versions, changes)


async def deactivate(database: StatementRunner, item_id: int, *, versions: Collection[datetime] | None = None) -> Item:
    """Mark the item as inactive. It stays readable; if it is inactive already, it is not changed.

    Raises:
        ItemNotFoundError, PreconditionFailedError: As `change` does.
    """
    return await _write(database, _deactivate, item_id, versions)


async def delete_permanently(
    database: StatementRunner, item_id: int, *, versions: Collection[datetime] | None = None
) -> Item:
    """Delete the row and return the item as it was.

    Raises:
        ItemNotFoundError, PreconditionFailedError: As `change` does.
    """
    return await _write(database, _delete, item_id, versions)


async def _write(
    database: StatementRunner,
    write: Update | Delete,
    item_id: int,
    versions: Collection[datetime] | None,
    changes: Mapping[str, Any] | None = None,
) -> Item:
    parameters = {**(changes or {}), "item_id": item_id, "versions": versions}
    statement = _by_item_id(write) if versions is None else _guarded(write)
    rows = await database.run(statement, parameters, constraint_errors=CONSTRAINT_ERRORS)
    if not rows:
        raise ItemNotFoundError(item_id)
    if rows[0]["id"] is None:
        raise PreconditionFailedError("item", item_id)
    return Item(*rows[0])


# Each statement is built once for each set of columns: there are few, and building one takes longer than running it.


@cache
def _create(names: tuple[str, ...]) -> Insert:
    values: dict[str, Any] = {name: bindparam(name) for name in names}
    # Both times are those of the clock, not of the begin of the transaction: see `writes_complete_until`.
    clock = select(func.clock_timestamp(type_=DateTime(True)).label("time")).cte("clock")
    times = dict.fromkeys(("created_at", "updated_at"), select(clock.c.time).scalar_subquery())
    return named("create_item", insert(_items).values({**values, **times}).returning(*columns))


@cache
def _change(names: tuple[str, ...]) -> Update:
    values: dict[str, Any] = {name: bindparam(name) for name in names}
    return named("change_item", update(_items).values({**values, "updated_at": _next_version}))


@cache
def _by_item_id(write: Update | Delete) -> Update | Delete:
    return write.where(_by_id).returning(*columns)


@cache
def _guarded(write: Update | Delete) -> Select[Any]:
    """The write, for an item of one of the expected versions only.

    No row means that there is no such item, a row of nulls that it has another version.
    The row is locked first, so that the version that is compared is the one that is overwritten.
    """
    target = select(_items.c.id, _items.c.updated_at).where(_by_id).with_for_update().cte("target")
    expected = target.c.updated_at == func.any(bindparam("versions", type_=ARRAY(DateTime(True))))
    written = write.where(_items.c.id == target.c.id, expected).returning(*columns).cte("written")
    found = select(*(written.c[field.name] for field in fields(Item))).select_from(target.outerjoin(written, true()))
    return found.execution_options(**write.get_execution_options())
