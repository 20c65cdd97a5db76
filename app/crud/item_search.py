"""Which items a search by name finds, at a cost that does not grow with the table: parts of one SQL statement.

There are two plans for the first matches in the order of their ids. A scan by id is quick
where many items match, and reads the whole table where few do. An index finds all matches,
which are then sorted: that is quick where they are few, and slow where they are many.

PostgreSQL would choose by its estimate. Where the estimate is wrong, or where the matches are
all at the far end of the table, one search would read the whole table. So the scan is bounded here:
it runs where it is expected to find enough, and where it did not, the index is used.
docs/decisions/0011 has the plans and their cost.
"""

import re
from typing import Any, cast

from sqlalchemy import (
    CTE,
    BigInteger,
    Boolean,
    ColumnElement,
    Select,
    Table,
    Text,
    bindparam,
    case,
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

from app.models.item import ItemRow

SCAN_LIMIT = 20_000
"""How many items the scan by id reads at most."""

_TRIGRAM = re.compile(r"[^\W_]{3}")

_items = cast(Table, ItemRow.__table__)
# A constant in the statement: for a parameter the planner would assume any number.
_scan_limit = literal_column(str(SCAN_LIMIT), BigInteger)
_pattern = bindparam("pattern", type_=Text)
_limit = bindparam("limit", type_=BigInteger)


def has_trigram(q: str) -> bool:
    """Whether the trigram index can find this text: it has three letters or digits in a row."""
    return _TRIGRAM.search(q) is not None


class Search:
    """The parts of a search statement. Its parameters are `pattern`, `q`, `limit`, and `offset` or `item_id`."""

    def __init__(self, is_active: bool | None, *, by_letter_pairs: bool, after_id: bool, count_up_to: int) -> None:
        """Build the parts.

        Args:
            is_active: Which items are searched; None for all.
            by_letter_pairs: Whether to use the index of letter pairs, because the text has no trigram.
            after_id: Whether the page begins after the id in the parameter `item_id`; otherwise it
                begins after `offset` matches.
            count_up_to: How many matches `total` counts at most.
        """
        self._is_active = is_active
        self._filters: list[ColumnElement[bool]] = []
        if is_active is not None:
            # A constant, not a parameter: the planner knows how many items are active.
            self._filters.append(_items.c.is_active.is_(is_active))
        if after_id:
            self._filters.append(_items.c.id > bindparam("item_id", type_=BigInteger))
        self._offset = None if after_id else bindparam("offset", type_=BigInteger)
        self._needed = _limit if self._offset is None else _limit + self._offset
        self._count_up_to = count_up_to
        self._estimate = self._estimated()
        self._scan_matches = self._matches_by_scan()
        self._scan = self._scan_result()
        self._index_matches = self._matches_by_index(by_letter_pairs=by_letter_pairs)

    def ids(self) -> Select[Any]:
        """The ids on the page."""
        scan_is_enough = or_(_value(self._scan.c.matches) >= self._needed, _value(self._scan.c.is_complete))
        by_scan = self._page(self._scan_matches).where(scan_is_enough).subquery("page_by_scan")
        by_index = self._page(self._index_matches).where(not_(scan_is_enough)).subquery("page_by_index")
        return select(union_all(select(by_scan.c.id), select(by_index.c.id)).subquery("page").c.id)

    def total(self) -> Select[Any]:
        """The number of matches if it is less than `count_up_to`; else the planner's estimate, at least that number."""
        first = select(self._index_matches.c.id).limit(self._count_up_to).subquery("first")
        by_index = select(func.count()).select_from(first).scalar_subquery()
        by_scan = _value(self._scan.c.matches)
        # CASE evaluates only what is needed: the index is not used where the scan has counted enough.
        scan_is_enough = or_(by_scan >= self._count_up_to, _value(self._scan.c.is_complete))
        counted = select(case((scan_is_enough, by_scan), else_=by_index).label("matches")).subquery("counted")
        estimate = func.greatest(_value(self._estimate.c.matches), self._count_up_to)
        return select(case((counted.c.matches >= self._count_up_to, estimate), else_=counted.c.matches).label("total"))

    def exact_total(self) -> Select[Any]:
        """The number of all matches."""
        return select(func.count().label("total")).select_from(self._index_matches)

    def _estimated(self) -> CTE:
        """How many matches the planner expects in all, and whether the scan is expected to find enough of them."""
        active = literal(self._is_active, Boolean)
        matches = func.estimated_items(active, _pattern, type_=BigInteger).label("matches")
        items = func.estimated_items(active, null(), type_=BigInteger).label("items")
        planned = select(matches, items).cte("planned").prefix_with("MATERIALIZED")
        found_by_scan = planned.c.matches * _scan_limit // planned.c["items"]
        return select(planned.c.matches, (found_by_scan > self._needed).label("use_scan")).cte("estimate")

    def _matches_by_scan(self) -> CTE:
        """The matches among the first SCAN_LIMIT items by id; none if the scan is not expected to find enough."""
        first = select(_items.c.id, _items.c.name).where(*self._filters).order_by(_items.c.id).limit(_scan_limit)
        scanned = first.subquery("scanned")
        matches = select(scanned.c.id).where(_value(self._estimate.c.use_scan), scanned.c.name.ilike(_pattern))
        enough = func.greatest(self._needed, self._count_up_to)
        return matches.order_by(scanned.c.id).limit(enough).cte("scan_matches").prefix_with("MATERIALIZED")

    def _scan_result(self) -> CTE:
        """How many matches the scan has found, and whether it has read all items."""
        found = select(func.count().label("matches")).select_from(self._scan_matches).cte("found_by_scan")
        beyond = select(_items.c.id).where(*self._filters).order_by(_items.c.id).offset(_scan_limit).limit(1)
        stopped_early = found.c.matches >= func.greatest(self._needed, self._count_up_to)
        was_used = _value(self._estimate.c.use_scan)
        is_complete = case((or_(stopped_early, not_(was_used)), false()), else_=not_(beyond.exists()))
        return select(found.c.matches, is_complete.label("is_complete")).cte("scan").prefix_with("MATERIALIZED")

    def _matches_by_index(self, *, by_letter_pairs: bool) -> CTE:
        """All matches.

        The searched text is hidden from the planner in subqueries, so that no estimate keeps it from using the index.
        """
        pattern = select(_pattern).scalar_subquery()
        if by_letter_pairs:
            pair = select(func.letter_pair_of(bindparam("q", type_=Text))).scalar_subquery()
            # On an expression the trigram index is not used: for this text it would be read whole.
            matches = [func.letter_pairs(_items.c.name).op("@@")(pair), (_items.c.name + "").ilike(pattern)]
        else:
            matches = [_items.c.name.ilike(pattern)]
        return select(_items.c.id).where(*self._filters, *matches).cte("index_matches").prefix_with("MATERIALIZED")

    def _page(self, matches: CTE) -> Select[Any]:
        return select(matches.c.id).order_by(matches.c.id).limit(_limit).offset(self._offset)


def _value(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """The column of the only row of a part of the statement."""
    return select(column).scalar_subquery()
