"""Which items a search by name finds, at a bounded cost: parts of one SQL statement.

There are two plans for the first matches in the order of their ids. A scan by id is quick where many items
match. An index finds the items whose names have the parts of the searched text, and is quick where they are few.

Both are bounded, whatever the text is and however large the table is: the scan by a number of items, the index by
the estimated number of its entries and by a number of items. A search that neither bound allows is incomplete.
docs/decisions/0011 has the plans and their cost.
"""

from typing import Any, cast

from sqlalchemy import (
    CTE,
    BigInteger,
    Boolean,
    ColumnElement,
    FromClause,
    Select,
    Table,
    Text,
    and_,
    bindparam,
    case,
    column,
    false,
    func,
    literal,
    literal_column,
    not_,
    null,
    or_,
    select,
    union_all,
)
from sqlalchemy.dialects.postgresql import TSQUERY

from app.models.item import ItemRow

SCAN_LIMIT = 20_000
"""How many items the scan by id reads at most, if the index can be used as well."""

LONG_SCAN_LIMIT = 50_000
"""How many items the scan by id reads at most, if the index cannot be used."""

ENTRY_LIMIT = 50_000
"""How many entries the rarest part of the text may have in the index, by the planner's estimate."""

READ_LIMIT = 1_000_000
"""How many entries the parts that are looked up in the index may have together, by the planner's estimate."""

CANDIDATE_LIMIT = 15_000
"""How many items that the index finds are compared with the text."""

_items = cast(Table, ItemRow.__table__)
_columns = (_items.c.id, _items.c.name, _items.c.is_active)
_pattern = bindparam("pattern", type_=Text)
_limit = bindparam("limit", type_=BigInteger)


class Search:
    """The parts of a search statement. Its parameters are `pattern`, `q`, `limit`, and `offset` or `item_id`."""

    def __init__(self, is_active: bool | None, *, after_id: bool, count_up_to: int = 1) -> None:
        """Build the parts.

        Args:
            is_active: Which items are searched; None for all.
            after_id: Whether the page begins after the id in the parameter `item_id`; otherwise it
                begins after `offset` matches.
            count_up_to: How many matches `total` counts at most.
        """
        self._is_active = is_active
        self._after_id = after_id
        self._offset = None if after_id else bindparam("offset", type_=BigInteger)
        self._needed = _limit if self._offset is None else _limit + self._offset
        self._count_up_to = _constant(count_up_to)
        self._enough = func.greatest(self._needed, self._count_up_to)
        self._plan = _planned(is_active)
        self._choice = self._chosen()
        self._scan_matches = self._matches_by_scan()
        self._scan = self._scan_result()
        self._candidates = self._index_candidates()
        self._index_matches = self._matches_by_index()
        self._index_is_complete = _value(self._index_result().c.is_complete)

    @property
    def is_complete(self) -> ColumnElement[bool]:
        """Whether `ids` are all that belong on the page. If not, they are the first of them, maybe none."""
        return or_(self._scan_has(self._needed), self._index_is_complete)

    def ids(self) -> Select[Any]:
        """The ids on the page."""
        use_index = and_(not_(self._scan_has(self._needed)), self._index_is_complete)
        by_scan = self._page(self._scan_matches).where(not_(use_index)).subquery("page_by_scan")
        by_index = self._page(self._index_matches).where(use_index).subquery("page_by_index")
        return select(union_all(select(by_scan.c.id), select(by_index.c.id)).subquery("page").c.id)

    def total(self) -> Select[Any]:
        """`total`, which is null if the page is incomplete, and `total_is_exact`.

        The total is the number of matches, if that is less than `count_up_to` and can be counted within
        the bounds. Otherwise it is the planner's estimate, at least the number of matches found.
        """
        first = select(self._index_matches.c.id).limit(self._count_up_to).subquery("first")
        by_index = select(func.count()).select_from(first).scalar_subquery()
        by_scan = _value(self._scan.c.matches)
        # CASE, AND and OR evaluate only what is needed: the index is not read where the scan has counted enough,
        # and not to its end where that many matches come before it.
        scan_is_enough = self._scan_has(self._count_up_to)
        matches = case((scan_is_enough, by_scan), else_=func.greatest(by_scan, by_index)).label("matches")
        counted = select(matches).offset(0).subquery("counted")
        is_exact = and_(counted.c.matches < self._count_up_to, or_(scan_is_enough, self._index_is_complete))
        state = select(counted.c.matches, is_exact.label("total_is_exact")).offset(0).subquery("totals")
        estimate = func.greatest(_value(self._plan.c.matches), state.c.matches)
        total = case((not_(self.is_complete), null()), (state.c.total_is_exact, state.c.matches), else_=estimate)
        return select(total.label("total"), state.c.total_is_exact)

    def _chosen(self) -> CTE:
        """Whether the index can be used, and whether the scan is used.

        The scan is used if it is expected to find enough, if the index cannot be used, or if the index may find too
        many items and the scan may find enough. What a scan after an id finds is a short page, and so is always enough.
        """
        entries, all_rows = self._plan.c.entries, self._plan.c.all_rows
        found_by_scan = self._plan.c.matches * _constant(SCAN_LIMIT) // all_rows
        may_find_too_many = entries > _constant(CANDIDATE_LIMIT)
        if not self._after_id:
            # No more names match than have the rarest part. In the first items they can be several times as frequent.
            most = entries * _constant(4 * SCAN_LIMIT) // all_rows
            may_find_too_many = and_(may_find_too_many, most >= self._needed)
        use_index = entries <= _constant(ENTRY_LIMIT)
        return select(
            use_index.label("use_index"),
            or_(not_(use_index), may_find_too_many, found_by_scan > self._needed).label("use_scan"),
        ).cte("choice")

    def _matches_by_scan(self) -> CTE:
        """The matches among the first items by id; none if the scan is not used."""
        first = select(*_columns).where(*self._filters(_items)).order_by(_items.c.id).limit(_constant(LONG_SCAN_LIMIT))
        longest = first.subquery("longest_scan")
        scanned = select(longest).order_by(longest.c.id).limit(self._scan_limit).subquery("scanned")
        matches = select(scanned.c.id).where(_value(self._choice.c.use_scan), contains(scanned))
        return matches.order_by(scanned.c.id).limit(self._enough).cte("scan_matches").prefix_with("MATERIALIZED")

    def _scan_result(self) -> CTE:
        """How many matches the scan has found, and whether it has read all items."""
        found = select(func.count().label("matches")).select_from(self._scan_matches).cte("found_by_scan")
        in_order = select(_items.c.id).where(*self._filters(_items)).order_by(_items.c.id)
        beyond = in_order.offset(self._scan_limit).limit(1)
        stopped_early = found.c.matches >= self._enough
        was_used = _value(self._choice.c.use_scan)
        has_read_all = case((or_(stopped_early, not_(was_used)), false()), else_=not_(beyond.exists()))
        return select(found.c.matches, has_read_all.label("has_read_all")).cte("scan").prefix_with("MATERIALIZED")

    def _index_candidates(self) -> CTE:
        """The items that the index finds, up to one more than CANDIDATE_LIMIT; none if they are not needed.

        They are not filtered here: with a filter, PostgreSQL could read more items, or choose another index.
        """
        candidates = (
            select(*_columns)
            .where(_value(self._choice.c.use_index), not_(self._scan_has(self._enough)), _found_by_index(self._plan))
            .limit(_constant(CANDIDATE_LIMIT + 1))
        )
        return candidates.cte("candidates").prefix_with("MATERIALIZED")

    def _matches_by_index(self) -> CTE:
        """The matches among the candidates."""
        found = self._candidates
        matches = select(found.c.id).where(*self._filters(found), contains(found))
        return matches.cte("index_matches").prefix_with("MATERIALIZED")

    def _index_result(self) -> CTE:
        """Whether the candidates are all that the index has."""
        found = select(func.count()).select_from(self._candidates).scalar_subquery()
        is_complete = and_(_value(self._choice.c.use_index), found <= _constant(CANDIDATE_LIMIT))
        return select(is_complete.label("is_complete")).cte("index_result").prefix_with("MATERIALIZED")

    @property
    def _scan_limit(self) -> ColumnElement[int]:
        long, short = _constant(LONG_SCAN_LIMIT), _constant(SCAN_LIMIT)
        return select(case((_value(self._choice.c.use_index), short), else_=long)).scalar_subquery()

    def _scan_has(self, matches: ColumnElement[int]) -> ColumnElement[bool]:
        """Whether the scan has found this number of matches, or has read all items."""
        return or_(_value(self._scan.c.matches) >= matches, _value(self._scan.c.has_read_all))

    def _filters(self, items: FromClause) -> list[ColumnElement[bool]]:
        filters = _active_only(items, self._is_active)
        if self._after_id:
            filters.append(items.c.id > bindparam("item_id", type_=BigInteger))
        return filters

    def _page(self, matches: CTE) -> Select[Any]:
        return select(matches.c.id).order_by(matches.c.id).limit(_limit).offset(self._offset)


def like_pattern(q: str) -> str:
    """The LIKE pattern that finds this text, in which `%`, `_` and backslashes are ordinary characters."""
    escaped = q.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"


def contains(items: FromClause) -> ColumnElement[bool]:
    """Whether the name contains the text of the parameter `pattern`, whatever its case."""
    pattern = select(func.caseless(_pattern)).scalar_subquery()
    return func.caseless(items.c.name).like(pattern)


def all_matches(is_active: bool | None) -> CTE:
    """The ids of all matches, found by the index if the estimate allows that, otherwise by reading the whole table.

    The parameters are `pattern` and `q`. The cost grows with the table.
    """
    plan = _planned(is_active)
    use_index = select(plan.c.entries <= _constant(ENTRY_LIMIT)).scalar_subquery()
    matches = select(_items.c.id).where(*_active_only(_items, is_active), contains(_items))
    by_index, by_scan = matches.where(use_index, _found_by_index(plan)), matches.where(not_(use_index))
    return union_all(by_index, by_scan).cte("matches").prefix_with("MATERIALIZED")


def _planned(is_active: bool | None) -> CTE:
    """The index's query for the text, the entries of its rarest part, and how many matches and items there are.

    The numbers are the planner's estimates. The query has the rarest parts of the text, up to READ_LIMIT.
    """
    arguments = literal(is_active, Boolean), bindparam("q", type_=Text), _pattern, _constant(READ_LIMIT)
    plan = func.bounded_items_search(*arguments).table_valued(
        column("query", TSQUERY),
        column("entries", BigInteger),
        column("matches", BigInteger),
        column("all_rows", BigInteger),
    )
    return select(plan).cte("planned").prefix_with("MATERIALIZED")


def _found_by_index(plan: CTE) -> ColumnElement[bool]:
    """The condition that the index is for. In a subquery, the query is hidden from the planner: all have one plan."""
    return func.letter_triples(_items.c.name).op("@@")(_value(plan.c.query))


def _active_only(items: FromClause, is_active: bool | None) -> list[ColumnElement[bool]]:
    # A constant, not a parameter: the planner knows how many items are active.
    return [] if is_active is None else [items.c.is_active.is_(is_active)]


def _constant(number: int) -> ColumnElement[int]:
    """A constant in the statement: for a parameter the planner would assume any number."""
    return literal_column(str(number), BigInteger)


def _value(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """The column of the only row of a part of the statement."""
    return select(column).scalar_subquery()
