"""Items by the page, at a cost that does not grow with the table: one SQL statement."""

from functools import cache
from typing import Any, cast

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Select,
    Table,
    Text,
    bindparam,
    case,
    func,
    literal,
    null,
    select,
    true,
)

from app.crud.item import columns
from app.database import Database
from app.dataclasses.item import Item, ItemPage
from app.models.item import ItemRow

COUNTED = 1000
"""Matches are counted up to here; beyond, the planner's estimate must do."""

_items = cast(Table, ItemRow.__table__)


async def page(
    database: Database, *, limit: int, offset: int, is_active: bool | None, q: str | None, count_exactly: bool
) -> ItemPage:
    """The items after the first `offset` ones, and how many there are.

    Args:
        is_active: Only items that are so, None for all.
        q: A substring of the name, whatever its case; None for all.
        count_exactly: Count all matches, however long that takes, instead of estimating.
    """
    statement = _page(is_active, q is not None, count_exactly)
    rows = await database.run(statement, {"pattern": _pattern(q), "limit": limit + 1, "offset": offset})
    # The total is read even where the page is empty: one row of nulls follows it then.
    items = [Item(*row[1:]) for row in rows[:limit] if row["id"] is not None]
    total = rows[0]["total"]
    return ItemPage(
        items=items, has_more=len(rows) > limit, total=total, total_is_exact=count_exactly or total <= COUNTED
    )


async def page_after(
    database: Database, item_id: int, *, limit: int, is_active: bool | None, q: str | None
) -> ItemPage:
    """The items whose ids are greater than `item_id`. The arguments are those of `page`."""
    statement = _page_after(is_active, q is not None)
    rows = await database.run(statement, {"pattern": _pattern(q), "item_id": item_id, "limit": limit + 1})
    items = [Item(*row) for row in rows[:limit]]
    return ItemPage(items=items, has_more=len(rows) > limit, total=None, total_is_exact=None)


def _pattern(q: str | None) -> str | None:
    """A LIKE pattern for names that contain `q`, whose own `%`, `_` and backslashes stand for themselves."""
    if q is None:
        return None
    escaped = q.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"


# Statements are made once for each kind of question.


@cache
def _page(is_active: bool | None, searches: bool, count_exactly: bool) -> Select[Any]:
    total = (_exact_total if count_exactly else _capped_total)(is_active, searches).subquery("total")
    found = (
        select(*columns)
        .where(*_filters(is_active, searches))
        .order_by(_items.c.id)
        .limit(bindparam("limit", type_=BigInteger))
        .offset(bindparam("offset", type_=BigInteger))
        .subquery("found")
    )
    return select(total.c.total, *found.c).select_from(total.outerjoin(found, true())).order_by(found.c.id)


@cache
def _page_after(is_active: bool | None, searches: bool) -> Select[Any]:
    return (
        select(*columns)
        .where(_items.c.id > bindparam("item_id"), *_filters(is_active, searches))
        .order_by(_items.c.id)
        .limit(bindparam("limit", type_=BigInteger))
    )


def _filters(is_active: bool | None, searches: bool) -> list[ColumnElement[bool]]:
    filters: list[ColumnElement[bool]] = []
    if is_active is not None:
        # A constant, not a parameter: the planner knows how many items are active.
        filters.append(_items.c.is_active.is_(is_active))
    if searches:
        filters.append(_items.c.name.ilike(bindparam("pattern")))
    return filters


def _exact_total(is_active: bool | None, searches: bool) -> Select[Any]:
    return select(func.count().label("total")).select_from(_items).where(*_filters(is_active, searches))


def _capped_total(is_active: bool | None, searches: bool) -> Select[Any]:
    """The number of matches up to COUNTED, or else what the planner expects, which is then more."""
    first = select(literal(1)).select_from(_items).where(*_filters(is_active, searches)).limit(COUNTED + 1)
    counted = select(func.count().label("matches")).select_from(first.subquery("first")).subquery("counted")
    pattern = bindparam("pattern", type_=Text) if searches else null()
    estimate = func.estimated_items(literal(is_active, Boolean), pattern, type_=BigInteger)
    estimated = func.greatest(estimate, COUNTED + 1)
    return select(case((counted.c.matches > COUNTED, estimated), else_=counted.c.matches).label("total"))
