"""The tables of the result: all searches by size, the known texts, and the most expensive ones that were found."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

from benchmarks.harness.reports import Report, Table
from benchmarks.searches.texts import KNOWN

_METHOD = """
Each statement is the one that the service runs, prepared as asyncpg prepares it, with all data in the memory of the
server or of the system. The time is CPU time of the server's process, so that other work on the machine changes it
little; it includes EXPLAIN (ANALYZE, BUFFERS). Each text is searched as several pages. The names have two to sixteen
words in the frequencies of a natural text; ten million names are ten copies of a million. A random text is a part of
a name, parts of words, permuted words, or a change of one of the most expensive texts before it.
"""

_MOST_EXPENSIVE = 15


@dataclass(frozen=True, slots=True)
class Search:
    """One page of a search."""

    position: str
    milliseconds: float
    buffers: int
    is_refused: bool


Searches = dict[int, dict[str, list[Search]]]
"""By the size of the table, and by text."""


def report(searches: Searches) -> Report:
    """Build the report."""
    return Report(
        title="Searches for any text",
        method=_METHOD,
        tables=[_summary(searches), _known(searches), *(_most_expensive(rows, searches[rows]) for rows in searches)],
        facts={
            str(rows): {
                text: [round(worst.milliseconds, 2), worst.buffers] for text, worst in _by_text(by_text).items()
            }
            for rows, by_text in searches.items()
        },
    )


def _summary(searches: Searches) -> Table:
    rows = []
    for size, by_text in searches.items():
        by_position: dict[str, list[Search]] = {}
        for found in by_text.values():
            for search in found:
                by_position.setdefault(search.position, []).append(search)
        for position, found in by_position.items():
            times = [search.milliseconds for search in found]
            refused = sum(search.is_refused for search in found)
            rows.append(
                [
                    f"{size:,} items, {position}",
                    str(len(found)),
                    f"{median(times):.1f}",
                    f"{max(times):.1f}",
                    f"{max(search.buffers for search in found):,}",
                    str(refused),
                ]
            )
    return Table(
        title="All searches",
        columns=["", "searches", "median, ms", "worst, ms", "most buffers", "refused"],
        rows=rows,
    )


def _known(searches: Searches) -> Table:
    columns = ["", *(f"{size:,} items, {what}" for size in searches for what in ("ms", "buffers"))]
    rows = []
    for kind, texts in KNOWN.items():
        for text in texts:
            worst = [_worst(by_text[text]) for by_text in searches.values()]
            cells = [cell for search in worst for cell in (f"{search.milliseconds:.1f}", f"{search.buffers:,}")]
            rows.append([f"{kind}: {_shown(text)}", *cells])
    return Table(title="Known texts, by their most expensive page", columns=columns, rows=rows)


def _most_expensive(size: int, by_text: Mapping[str, list[Search]]) -> Table:
    worst = sorted(((_worst(found), text) for text, found in by_text.items()), key=lambda pair: -pair[0].milliseconds)
    return Table(
        title=f"The most expensive of {size:,} items",
        columns=["", "page", "ms", "buffers", "refused"],
        rows=[
            [
                _shown(text),
                search.position,
                f"{search.milliseconds:.1f}",
                f"{search.buffers:,}",
                "yes" if search.is_refused else "",
            ]
            for search, text in worst[:_MOST_EXPENSIVE]
        ],
    )


def _by_text(by_text: Mapping[str, list[Search]]) -> dict[str, Search]:
    """The most expensive search for each text."""
    return {text: _worst(found) for text, found in by_text.items()}


def _worst(found: list[Search]) -> Search:
    return max(found, key=lambda search: search.milliseconds)


def _shown(text: str) -> str:
    """The text as code, without the characters that end a cell."""
    shown = text if len(text) <= 40 else f"{text[:40]}…"
    return f"<code>{shown.replace('&', '&amp;').replace('|', '&#124;').replace(' ', '&nbsp;')}</code>"
