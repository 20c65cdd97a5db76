"""Which items a search finds, at a cost that does not grow with the table: parts of one SQL statement.

There are two ways to the first matches in the order of their ids. To walk along the
ids is quick where many items match, and reads the whole table where few do. To ask an
index for all matches, and sort them, is quick where they are few, and slow where they
are many.

PostgreSQL would choose by its estimate, and where that is wrong, or the matches stand
together at the far end, one search reads the whole table. So here the walk is bounded:
it is tried where it is expected to suffice, and where it did not, the index answers.
docs/decisions/0011 has the plans and what they cost.
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

WALKED = 20_000
"""Items that the walk looks at, at most."""

_TRIGRAM = re.compile(r"[^\W_]{3}")

_items = cast(Table, ItemRow.__table__)
# A constant in the statement: the planner must not think of it as of any number.
_most = literal_column(str(WALKED), BigInteger)
_pattern = bindparam("pattern", type_=Text)
_limit = bindparam("limit", type_=BigInteger)


def has_trigram(q: str) -> bool:
    """Whether the index of trigrams can find this text: three letters or digits stand together in it."""
    return _TRIGRAM.search(q) is not None


class Search:
    """The items that match, in parts of a statement with the parameters `pattern`, `q`, `limit`, and so on."""

    def __init__(self, is_active: bool | None, *, by_pairs: bool, after: bool, counted: int) -> None:
        """Describe what is searched.

        Args:
            is_active: Only items that are so, None for all.
            by_pairs: Whether the text is too short for trigrams.
            after: Whether the parameter `item_id` is the id to begin after, else `offset` ones are skipped.
            counted: So many matches are to be counted.
        """
        self._is_active = is_active
        self._filters: list[ColumnElement[bool]] = []
        if is_active is not None:
            # A constant, not a parameter: the planner knows how many items are active.
            self._filters.append(_items.c.is_active.is_(is_active))
        if after:
            self._filters.append(_items.c.id > bindparam("item_id", type_=BigInteger))
        self._offset = None if after else bindparam("offset", type_=BigInteger)
        self._needed = _limit if self._offset is None else _limit + self._offset
        self._counted = counted
        self._expected = self._expect()
        self._near = self._walk()
        self._walked = self._look_back()
        self._found = self._ask_index(by_pairs=by_pairs)

    def ids(self) -> Select[Any]:
        """The ids on the page."""
        suffices = or_(_value(self._walked.c.matches) >= self._needed, _value(self._walked.c.saw_all))
        near = self._page(self._near).where(suffices).subquery("by_walk")
        found = self._page(self._found).where(not_(suffices)).subquery("by_index")
        return select(union_all(select(near.c.id), select(found.c.id)).subquery("page").c.id)

    def total(self) -> Select[Any]:
        """The number of matches where that is less than `counted`, or else what the planner expects, but no less."""
        some = select(self._found.c.id).limit(self._counted).subquery("some")
        by_index = select(func.count()).select_from(some).scalar_subquery()
        walked = _value(self._walked.c.matches)
        # Only what is needed is found out: the index is not asked where the walk has told enough.
        known = or_(walked >= self._counted, _value(self._walked.c.saw_all))
        matches = select(case((known, walked), else_=by_index).label("matches")).subquery("counted")
        estimate = func.greatest(_value(self._expected.c.matches), self._counted)
        return select(case((matches.c.matches >= self._counted, estimate), else_=matches.c.matches).label("total"))

    def exact_total(self) -> Select[Any]:
        """The number of all matches."""
        return select(func.count().label("total")).select_from(self._found)

    def _expect(self) -> CTE:
        """How many matches the planner expects in all, and how many of them the walk should meet."""
        active = literal(self._is_active, Boolean)
        matches = func.estimated_items(active, _pattern, type_=BigInteger).label("matches")
        items = func.estimated_items(active, null(), type_=BigInteger).label("items")
        expected = select(matches, items).cte("estimates").prefix_with("MATERIALIZED")
        near = expected.c.matches * _most // expected.c["items"]
        return select(expected.c.matches, (near > self._needed).label("worth_walking")).cte("expected")

    def _walk(self) -> CTE:
        """Matches among the first items by id, if enough of them can be expected there."""
        first = select(_items.c.id, _items.c.name).where(*self._filters).order_by(_items.c.id).limit(_most)
        window = first.subquery("window")
        near = select(window.c.id).where(_value(self._expected.c.worth_walking), window.c.name.ilike(_pattern))
        enough = func.greatest(self._needed, self._counted)
        return near.order_by(window.c.id).limit(enough).cte("near").prefix_with("MATERIALIZED")

    def _look_back(self) -> CTE:
        """How many matches the walk has met, and whether there was nothing more to look at."""
        met = select(func.count().label("matches")).select_from(self._near).cte("met")
        beyond = select(_items.c.id).where(*self._filters).order_by(_items.c.id).offset(_most).limit(1)
        stopped = met.c.matches >= func.greatest(self._needed, self._counted)
        began = _value(self._expected.c.worth_walking)
        saw_all = case((or_(stopped, not_(began)), false()), else_=not_(beyond.exists()))
        return select(met.c.matches, saw_all.label("saw_all")).cte("walked").prefix_with("MATERIALIZED")

    def _ask_index(self, *, by_pairs: bool) -> CTE:
        """All matches.

        What is searched for is hidden in queries of their own, so that no estimate speaks against the index.
        """
        pattern = select(_pattern).scalar_subquery()
        if by_pairs:
            pair = select(func.letter_pair_of(bindparam("q", type_=Text))).scalar_subquery()
            # The index of trigrams would be read whole: it does not serve what is put together.
            matches = [func.letter_pairs(_items.c.name).op("@@")(pair), (_items.c.name + "").ilike(pattern)]
        else:
            matches = [_items.c.name.ilike(pattern)]
        return select(_items.c.id).where(*self._filters, *matches).cte("found").prefix_with("MATERIALIZED")

    def _page(self, matches: CTE) -> Select[Any]:
        return select(matches.c.id).order_by(matches.c.id).limit(_limit).offset(self._offset)


def _value(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """The column of the only row of a part of the statement."""
    return select(column).scalar_subquery()
