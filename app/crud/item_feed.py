"""The feed of changes: the items in the order of their last changes, none of which is missed."""

from dataclasses import fields
from datetime import UTC, datetime

from sqlalchemy import BigInteger, DateTime, Integer, bindparam, text

from app.database import StatementRunner, named
from app.dataclasses.item import Item, ItemPage

_FIRST = datetime.min.replace(tzinfo=UTC)
_GREATEST_ID = 2**63 - 1

_COLUMNS = ", ".join(f"CAST({field.name} AS float)" if field.name == "price" else field.name for field in fields(Item))

_changed = named(
    "list_changed_items",
    text(f"""
SELECT {_COLUMNS} FROM changed_items(:updated_at, :item_id, :limit) ORDER BY updated_at, id
""")  # nosec  # noqa: S608  # of constants
    .bindparams(
        bindparam("updated_at", type_=DateTime(True)),
        bindparam("item_id", type_=BigInteger),
        bindparam("limit", type_=Integer),
    )
    .columns(),  # a SELECT: a text alone may write
)


def position_after(time: datetime | None) -> tuple[datetime, int]:
    """The position after all changes of this time, or before all changes."""
    return (_FIRST, 0) if time is None else (time, _GREATEST_ID)


async def changed_after(database: StatementRunner, position: tuple[datetime, int], *, limit: int) -> ItemPage:
    """The items whose `updated_at` and id come after the position, in this order.

    A transaction that has written an item and is still open ends the page: what was written after its beginning
    comes when it has ended. So no change appears later at a position that was passed (docs/decisions/0046).
    """
    updated_at, item_id = position
    rows = await database.run(_changed, {"updated_at": updated_at, "item_id": item_id, "limit": limit + 1})
    items = [Item(*row) for row in rows[:limit]]
    return ItemPage(items=items, has_more=len(rows) > limit, total=None, total_is_exact=None)
