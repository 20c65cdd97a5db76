"""The statements of the benchmark: those that the service runs, with their parameters."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from sqlalchemy.dialects.postgresql import asyncpg
from sqlalchemy.sql.elements import ClauseElement

from app.crud import item, item_batch, item_export, item_feed, item_page
from app.database import Database
from benchmarks.scale.load import LOADED_EVERY, LOADED_FROM

PER_PAGE = 20

_NEW = {"name": "Green bread knife No. 31415926", "description": None, "price": 9.5, "is_active": True}


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement as PostgreSQL receives it."""

    sql: str
    arguments: tuple[Any, ...]

    @property
    def literals(self) -> str:
        """The arguments as SQL literals, for EXECUTE."""
        return ", ".join(map(_literal, self.arguments))


class _CapturedStatementError(Exception):
    """Carries a statement out of the operation that would run it."""


class _StatementCapture:
    """Replaces the database of an operation, and captures its statement."""

    async def run(self, statement: ClauseElement, parameters: Mapping[str, Any], **_: Any) -> None:
        compiled: Any = statement.compile(dialect=asyncpg.dialect())  # type: ignore[no-untyped-call]
        names = compiled.positiontup or ()
        values = tuple(parameters.get(name, compiled.params[name]) for name in names)
        raise _CapturedStatementError(Statement(compiled.string, values))


Question = Callable[[Database, int], Awaitable[Any]]


async def statement(question: Question, rows: int) -> Statement:
    """The statement that a question runs on a table with this many rows."""
    try:
        await question(cast(Database, _StatementCapture()), rows)
    except _CapturedStatementError as captured:
        (found,) = captured.args
        return cast(Statement, found)
    raise AssertionError("The question ran no statement.")


def _literal(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "NULL", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, range | list):
        return "ARRAY[" + ", ".join(map(_literal, value)) + "]"
    return "E'" + str(value).replace("\\", "\\\\").replace("'", "''") + "'"


def _page(*, page: int = 1, q: str | None = None, is_active: bool | None = None, exact: bool = False) -> Question:
    return lambda database, _: item_page.page(
        database, limit=PER_PAGE, offset=(page - 1) * PER_PAGE, is_active=is_active, q=q, count_exactly=exact
    )


def _after_the_middle(*, q: str | None = None, is_active: bool | None = None) -> Question:
    return lambda database, rows: item_page.page_after(database, rows // 2, limit=PER_PAGE, is_active=is_active, q=q)


def _chunk_after_the_middle(*, q: str | None = None, is_active: bool | None = None) -> Question:
    return lambda database, rows: item_export.chunk_after(database, rows // 2, is_active=is_active, q=q)


# Which rows each statement finds follows from the words in load.py.
QUESTIONS: dict[str, Question] = {
    "first page": _page(),
    "page 100": _page(page=100),
    "cursor in the middle": _after_the_middle(),
    "newest first": lambda database, _: item_page.page(
        database, limit=PER_PAGE, offset=0, is_active=None, q=None, count_exactly=False, newest_first=True
    ),
    "newest first, after the middle": lambda database, rows: item_page.page_after(
        database, rows // 2, limit=PER_PAGE, is_active=None, q=None, newest_first=True
    ),
    "100 chosen items": lambda database, rows: item_page.chosen(database, range(1, rows, rows // 100)),
    "feed of changes": lambda database, _: item_feed.changed_after(
        database, item_feed.position_after(None), limit=PER_PAGE
    ),
    "feed of changes, at its end": lambda database, _: item_feed.changed_after(
        database, item_feed.position_after(datetime.now(UTC)), limit=PER_PAGE
    ),
    "feed of changes, after the middle": lambda database, rows: item_feed.changed_after(
        database, item_feed.position_after(LOADED_FROM + rows // 2 * LOADED_EVERY), limit=PER_PAGE
    ),
    "read by id": lambda database, rows: item.get(database, rows // 2),
    "create": lambda database, _: item.create(database, _NEW),
    "create 100 at once": lambda database, _: item_batch.create_many(database, [_NEW] * 100),
    "is_active, nearly all": _page(is_active=True),
    "is_active, 50 items": _page(is_active=False),
    "the same, after the middle": _after_the_middle(is_active=False),
    "q of a rare word": _page(q="quokka"),
    "the same, after the middle ": _after_the_middle(q="quokka"),
    "q of a common word": _page(q="kettle"),
    "a common word, after the middle": _after_the_middle(q="kettle"),
    "a common word, inactive": _page(q="kettle", is_active=False),
    "q of one common letter": _page(q="e"),
    "q of one rare letter": _page(q="ж"),
    "q of two common letters": _page(q="le"),
    "q of two rare letters": _page(q="kk"),
    "q of two letters, none": _page(q="zz"),
    "q of two short words": _page(q="e z"),
    "q of repeated letters": _page(q="er er"),
    "chunk of an export": _chunk_after_the_middle(),
    "the same, active": _chunk_after_the_middle(is_active=True),
    "chunk of an export, a common word": _chunk_after_the_middle(q="kettle"),
    "chunk of an export, a rare word": _chunk_after_the_middle(q="quokka"),
}
"""Questions whose cost must not depend on the size of the table."""

ALSO: dict[str, Question] = {
    "q of digits only": _page(q="No. 00003"),
    "q of permuted words": _page(q="knife bread"),
    "q of permuted words, all equally common": _page(q="measuring jug bowl"),
    "q of the newest 0.5 %": _page(q="import"),
    "count=exact of all": _page(exact=True),
}
"""Questions whose cost grows with the table: that of a search up to its limits, that of an exact count without any."""

ALLOWED = {"q of a rare word": 5.0, "the same, after the middle ": 5.0}
"""The allowed ratio to the smallest table where it is not 2."""
