"""Pages of items, at a cost that does not grow with the table: one SQL statement each."""

from collections.abc import Sequence
from functools import cache
from typing import Any, cast

from sqlalchemy import (
    ARRAY,
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
from app.crud.item_search import Search, all_matches, like_pattern
from app.database import StatementRunner, named, slow
from app.dataclasses.item import Item, ItemPage
from app.errors import SearchTooBroadError
from app.models.item import ItemRow

COUNT_LIMIT = 1000
"""Up to here `total` is exact; beyond, it is the planner's estimate."""

_items = cast(Table, ItemRow.__table__)

_chosen = named(
    "list_chosen_items",
    select(*columns)
    .where(_items.c.id == func.any(bindparam("item_ids", type_=ARRAY(BigInteger))))
    .order_by(_items.c.id),
)


async def page(
    database: StatementRunner,
    *,
    limit: int,
    offset: int,
    is_active: bool | None,
    q: str | None,
    count_exactly: bool,
    newest_first: bool = False,
) -> ItemPage:
    """One page of the matching items in the order of their ids, and how many match.

    Args:
        limit: How many items the page has at most.
        offset: How many matches come before the page. Its cost grows with this number.
        is_active: Which items match; None for all.
        q: A substring of the name, whatever its case; None for all items.
        count_exactly: Count all matches, however long that takes, instead of estimating beyond COUNT_LIMIT.
        newest_first: In the descending order of the ids; not with `q`.

    Raises:
        SearchTooBroadError: The page cannot be found within the bounds of a search.
    """
    statement = _page(is_active, count_exactly, newest_first) if q is None else _searched(is_active, count_exactly)
    rows = await database.run(statement, {**_parameters(q), "limit": limit + 1, "offset": offset})
    total = rows[0]["total"]
    if total is None:
        raise SearchTooBroadError
    is_exact = count_exactly or (total <= COUNT_LIMIT if q is None else rows[0]["total_is_exact"])
    # The total is in every row; when the page is empty, one row has the total and nulls.
    first = len(rows[0]) - len(columns)
    items = [] if rows[0]["id"] is None else [Item(*row[first:]) for row in rows[:limit]]
    return ItemPage(items=items, has_more=len(rows) > limit, total=total, total_is_exact=is_exact)


async def page_after(
    database: StatementRunner,
    item_id: int,
    *,
    limit: int,
    is_active: bool | None,
    q: str | None,
    newest_first: bool = False,
) -> ItemPage:
    """The matching items that come after `item_id` in the order of the ids. The other arguments are those of `page`.

    With `q`, the page can have fewer than `limit` items although more match: those that the bounds of a search allow.

    Raises:
        SearchTooBroadError: Within the bounds of a search no match was found, and not all items were read.
    """
    if q is None:
        rows = await database.run(_page_after(is_active, newest_first), {"item_id": item_id, "limit": limit + 1})
        items = [Item(*row) for row in rows[:limit]]
        is_complete = True
    else:
        rows = await database.run(
            _searched_after(is_active), {**_parameters(q), "item_id": item_id, "limit": limit + 1}
        )
        items = [Item(*row[1:]) for row in rows[:limit] if row["id"] is not None]
        is_complete = rows[0]["is_complete"]
        if not is_complete and not items:
            raise SearchTooBroadError
    return ItemPage(items=items, has_more=len(rows) > limit or not is_complete, total=None, total_is_exact=None)


async def chosen(database: StatementRunner, item_ids: Sequence[int]) -> ItemPage:
    """Those of the items that exist, in the order of their ids."""
    items = [Item(*row) for row in await database.run(_chosen, {"item_ids": item_ids})]
    return ItemPage(items=items, has_more=False, total=len(items), total_is_exact=True)


def _parameters(q: str | None) -> dict[str, Any]:
    """The searched text, and its LIKE pattern."""
    return {} if q is None else {"q": q, "pattern": like_pattern(q)}


# Each statement is built once for each combination of arguments.


@cache
def _page(is_active: bool | None, count_exactly: bool, newest_first: bool) -> Select[Any]:
    page = _with_total(
        "count_items" if count_exactly else "list_items",
        _exact_total(is_active) if count_exactly else _capped_total(is_active),
        select(*columns)
        .where(*_filters(is_active))
        .order_by(_items.c.id.desc() if newest_first else _items.c.id)
        .limit(bindparam("limit", type_=BigInteger))
        .offset(bindparam("offset", type_=BigInteger)),
        newest_first=newest_first,
    )
    return slow(page) if count_exactly else page


@cache
def _page_after(is_active: bool | None, newest_first: bool) -> Select[Any]:
    item_id = bindparam("item_id", type_=BigInteger)
    is_after, by_id = (
        (_items.c.id < item_id, _items.c.id.desc()) if newest_first else (_items.c.id > item_id, _items.c.id.asc())
    )
    page = select(*columns).where(is_after, *_filters(is_active)).order_by(by_id)
    return named("list_items_after", page.limit(bindparam("limit", type_=BigInteger)))


@cache
def _searched(is_active: bool | None, count_exactly: bool) -> Select[Any]:
    if count_exactly:
        matches = all_matches(is_active)
        page = select(matches.c.id).order_by(matches.c.id)
        ids = page.limit(bindparam("limit", type_=BigInteger)).offset(bindparam("offset", type_=BigInteger))
        return slow(
            _with_total(
                "search_and_count_items", select(func.count().label("total")).select_from(matches), _with_ids(ids)
            )
        )
    search = Search(is_active, after_id=False, count_up_to=COUNT_LIMIT + 1)
    return slow(_with_total("search_items", search.total(), _with_ids(search.ids())))


@cache
def _searched_after(is_active: bool | None) -> Select[Any]:
    search = Search(is_active, after_id=True)
    state = select(search.is_complete.label("is_complete")).subquery("state")
    found = _with_ids(search.ids()).subquery("found")
    joined = state.outerjoin(found, true())
    page = select(state.c.is_complete, *found.c).select_from(joined).order_by(found.c.id)
    return slow(named("search_items_after", page))


def _with_total(name: str, total: Select[Any], page: Select[Any], *, newest_first: bool = False) -> Select[Any]:
    """A statement of this name: the total and the columns of each item on the page; a row of nulls if there is none."""
    counted, found = total.subquery("counted_items"), page.subquery("found")
    joined = counted.outerjoin(found, true())
    by_id = found.c.id.desc() if newest_first else found.c.id
    return named(name, select(*counted.c, *found.c).select_from(joined).order_by(by_id))


def _with_ids(ids: Select[Any]) -> Select[Any]:
    return select(*columns).where(_items.c.id.in_(ids))


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
