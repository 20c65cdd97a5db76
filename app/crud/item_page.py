"""Pages of items, at a cost that does not grow with the table: one SQL statement each."""

from functools import cache
from typing import Any, cast

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Select,
    Table,
    bindparam,
    case,
    func,
    literal,
    null,
    select,
    true,
)

from app.crud.item import columns
from app.crud.item_search import Search, has_trigram
from app.database import StatementRunner, slow
from app.dataclasses.item import Item, ItemPage
from app.models.item import ItemRow

COUNT_LIMIT = 1000
"""Up to here `total` is exact; beyond, it is the planner's estimate."""

_items = cast(Table, ItemRow.__table__)


async def page(
    database: StatementRunner, *, limit: int, offset: int, is_active: bool | None, q: str | None, count_exactly: bool
) -> ItemPage:
    """One page of the matching items in the order of their ids, and how many match.

    Args:
        limit: How many items the page has at most.
        offset: How many matches come before the page. Its cost grows with this number.
        is_active: Which items match; None for all.
        q: A substring of the name, whatever its case; None for all items.
        count_exactly: Count all matches, however long that takes, instead of estimating beyond COUNT_LIMIT.
    """
    statement = (
        _page(is_active, count_exactly) if q is None else _searched(is_active, not has_trigram(q), count_exactly)
    )
    rows = await database.run(statement, {**_parameters(q), "limit": limit + 1, "offset": offset})
    # The total is in every row; when the page is empty, one row has the total and nulls.
    items = [Item(*row[1:]) for row in rows[:limit] if row["id"] is not None]
    total = rows[0]["total"]
    return ItemPage(
        items=items, has_more=len(rows) > limit, total=total, total_is_exact=count_exactly or total <= COUNT_LIMIT
    )


async def page_after(
    database: StatementRunner, item_id: int, *, limit: int, is_active: bool | None, q: str | None
) -> ItemPage:
    """The matching items whose ids are greater than `item_id`. The other arguments are those of `page`."""
    statement = _page_after(is_active) if q is None else _searched_after(is_active, not has_trigram(q))
    rows = await database.run(statement, {**_parameters(q), "item_id": item_id, "limit": limit + 1})
    items = [Item(*row) for row in rows[:limit]]
    return ItemPage(items=items, has_more=len(rows) > limit, total=None, total_is_exact=None)


def _parameters(q: str | None) -> dict[str, Any]:
    """The searched text, and its LIKE pattern, in which `%`, `_` and backslashes are ordinary characters."""
    if q is None:
        return {}
    escaped = q.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return {"q": q, "pattern": f"%{escaped}%"}


# Each statement is built once for each combination of arguments.


@cache
def _page(is_active: bool | None, count_exactly: bool) -> Select[Any]:
    total = (_exact_total if count_exactly else _capped_total)(is_active).subquery("total")
    found = (
        select(*columns)
        .where(*_filters(is_active))
        .order_by(_items.c.id)
        .limit(bindparam("limit", type_=BigInteger))
        .offset(bindparam("offset", type_=BigInteger))
        .subquery("found")
    )
    page = select(total.c.total, *found.c).select_from(total.outerjoin(found, true())).order_by(found.c.id)
    return slow(page) if count_exactly else page


@cache
def _page_after(is_active: bool | None) -> Select[Any]:
    return (
        select(*columns)
        .where(_items.c.id > bindparam("item_id"), *_filters(is_active))
        .order_by(_items.c.id)
        .limit(bindparam("limit", type_=BigInteger))
    )


@cache
def _searched(is_active: bool | None, by_letter_pairs: bool, count_exactly: bool) -> Select[Any]:
    search = Search(
        is_active, by_letter_pairs=by_letter_pairs, after_id=False, count_up_to=1 if count_exactly else COUNT_LIMIT + 1
    )
    total = (search.exact_total() if count_exactly else search.total()).subquery("total")
    found = select(*columns).where(_items.c.id.in_(search.ids())).subquery("items")
    return slow(select(total.c.total, *found.c).select_from(total.outerjoin(found, true())).order_by(found.c.id))


@cache
def _searched_after(is_active: bool | None, by_letter_pairs: bool) -> Select[Any]:
    search = Search(is_active, by_letter_pairs=by_letter_pairs, after_id=True, count_up_to=1)
    return slow(select(*columns).where(_items.c.id.in_(search.ids())).order_by(_items.c.id))


def _filters(is_active: bool | None) -> list[ColumnElement[bool]]:
    # A constant, not a parameter: the planner knows how many items are active.
    return [] if is_active is None else [_items.c.is_active.is_(is_active)]


def _exact_total(is_active: bool | None) -> Select[Any]:
    return select(func.count().label("total")).select_from(_items).where(*_filters(is_active))


def _capped_total(is_active: bool | None) -> Select[Any]:
    """The number of items up to COUNT_LIMIT; beyond, the planner's estimate, at least COUNT_LIMIT + 1."""
    first = select(literal(1)).select_from(_items).where(*_filters(is_active)).limit(COUNT_LIMIT + 1)
    counted = select(func.count().label("items")).select_from(first.subquery("first")).subquery("counted")
    estimate = func.estimated_items(literal(is_active, Boolean), null(), type_=BigInteger)
    estimated = func.greatest(estimate, COUNT_LIMIT + 1)
    return select(case((counted.c["items"] > COUNT_LIMIT, estimated), else_=counted.c["items"]).label("total"))
