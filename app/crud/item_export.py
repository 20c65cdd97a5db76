"""All items that match, one chunk after another: one SQL statement for each."""

import functools
import operator
from functools import cache
from typing import Any, Final, cast

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    Subquery,
    Table,
    Text,
    and_,
    bindparam,
    case,
    func,
    literal_column,
    or_,
    select,
    true,
)

from app.crud.item import columns
from app.crud.item_search import contains, like_pattern
from app.database import StatementRunner, named, slow
from app.dataclasses.item import Item, ItemChunk
from app.models.item import ItemRow

CHUNK_ROWS: Final = 1_000
"""How many items a chunk has at most."""

CHUNK_BYTES: Final = 1024 * 1024
"""How many bytes the texts of a chunk have at most, if it has more than one item."""

SCAN_ROWS: Final = 10_000
"""How many items a statement reads at most, if not all of them match."""

_items = cast(Table, ItemRow.__table__)


async def chunk_after(database: StatementRunner, item_id: int, *, is_active: bool | None, q: str | None) -> ItemChunk:
    """The matching items after this id, among those that one statement reads.

    A chunk can be empty although more items match: its position is where to go on.

    Args:
        item_id: Where the chunk begins.
        is_active: Which items match; None for all.
        q: A substring of the name, whatever its case; None for all items.
    """
    statement = _chunk(is_active, has_q=q is not None)
    parameters = {"item_id": item_id} if q is None else {"item_id": item_id, "pattern": like_pattern(q)}
    rows = await database.run(statement, parameters)
    # The last row may be one that does not match, which only says how far the statement has read.
    return ItemChunk(
        rows=[Item(*row[:-1]) for row in rows if row[-1]],
        position=rows[-1]["id"] if rows else None,
    )


@cache
def _chunk(is_active: bool | None, *, has_q: bool) -> Select[Any]:
    """The matches among the next items by id, and the last of these items.

    PostgreSQL reads the items in this order, and stops when it has the rows of the chunk.
    """
    filters = _filters(is_active, has_q=has_q)
    read_rows = SCAN_ROWS if filters else CHUNK_ROWS
    following = select(*columns, and_(true(), *filters).label("matches")).order_by(_items.c.id)
    after = following.where(_items.c.id > bindparam("item_id", type_=BigInteger))
    read = after.limit(_constant(read_rows)).subquery("read")
    number = func.row_number().over(order_by=read.c.id, rows=(None, 0)).label("number")
    bytes_before = func.sum(_text_bytes(read)).over(order_by=read.c.id, rows=(None, -1)).label("bytes_before")
    found = select(*read.c, number, bytes_before).subquery("found")
    chunk = (
        select(*(found.c[column.name] for column in read.c))
        .where(
            or_(found.c.matches, found.c.number == _constant(read_rows)),
            func.coalesce(found.c.bytes_before, _constant(0)) < _constant(CHUNK_BYTES),
        )
        .order_by(found.c.id)
        .limit(_constant(CHUNK_ROWS))
    )
    return slow(named("export_items", chunk))


def _filters(is_active: bool | None, *, has_q: bool) -> list[ColumnElement[bool]]:
    filters: list[ColumnElement[bool]] = [] if is_active is None else [_items.c.is_active.is_(is_active)]
    return [*filters, contains(_items)] if has_q else filters


def _text_bytes(read: Subquery) -> ColumnElement[int]:
    """How large the texts of a match are; 0 for another item. PostgreSQL does not load a long text for that."""
    texts = [read.c[column.name] for column in _items.c if isinstance(column.type, Text)]
    sizes = [func.coalesce(func.octet_length(text), _constant(0)) for text in texts]
    return case((read.c.matches, functools.reduce(operator.add, sizes)), else_=_constant(0))


def _constant(number: int) -> ColumnElement[int]:
    """A constant in the statement: for a parameter the planner would assume any number."""
    return literal_column(str(number), BigInteger)
