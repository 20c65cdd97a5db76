"""The tables of the result: cost by size, and the ratio of the largest to the smallest."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median

from benchmarks.harness.numbers import format_number, paired
from benchmarks.harness.plots import Plot
from benchmarks.harness.reports import Report, Table
from benchmarks.scale.questions import ALLOWED, ALSO, QUESTIONS

_METHOD = """
Each statement is the one that the service runs, prepared as asyncpg prepares it. EXPLAIN (ANALYZE, BUFFERS) gives the
server's time to plan and execute it, and the buffers it reads. The figures are medians of warm runs. The sizes take
turns, and ratios of time are paired within a turn. Words of all frequencies are distributed evenly over the table; a
rare word is in five items, whatever the size. If the machine does other work, rely on the buffers. A search for a
rare text has one of two costs: at ten million items, the estimate for a text without statistics exceeds 15,000 items,
so up to 20,000 items are scanned by id first. A chunk of a filtered export reads 10,000 items, and in the smallest
table only 5,000 come after the middle.
"""

_NAMES = {10_000: "10 k", 1_000_000: "1 M", 10_000_000: "10 M"}


@dataclass(slots=True)
class Cost:
    """The cost of one statement, by run."""

    milliseconds: list[float] = field(default_factory=list)
    buffers: list[float] = field(default_factory=list)


Costs = dict[str, dict[int, Cost]]
"""By question and size."""


def report(
    costs: Costs,
    writes: Mapping[str, Mapping[int, tuple[float, float]]],
    sizes: Mapping[int, Mapping[str, int]],
    load_seconds: Mapping[int, Mapping[str, float]],
) -> Report:
    """Build the report."""
    smallest, largest = min(sizes), max(sizes)
    ratios = {name: _ratios(by_size[smallest], by_size[largest]) for name, by_size in costs.items()}
    return Report(
        title="Ten million items, and ten thousand",
        method=_METHOD,
        tables=[
            _table("Cost that must not grow with the table", {name: costs[name] for name in QUESTIONS}, ratios),
            _table("Cost that grows with the table", {name: costs[name] for name in ALSO}, ratios),
            _write_table(writes),
            _size_table(sizes, load_seconds),
        ],
        plot=Plot(
            title=f"Cost at {_name(largest)}, as a multiple of {_name(smallest)}",
            unit="times",
            groups={name: {"buffers": ratios[name][1], "time": ratios[name][0]} for name in QUESTIONS},
        ),
        facts={
            "costs": {
                name: {
                    str(rows): {"milliseconds": round(median(cost.milliseconds), 4), "buffers": median(cost.buffers)}
                    for rows, cost in by_size.items()
                }
                for name, by_size in costs.items()
            },
            "ratios": {
                name: {"time": round(time, 2), "buffers": round(buffers, 2)} for name, (time, buffers) in ratios.items()
            },
            "past_the_bar": [name for name in QUESTIONS if max(ratios[name]) > ALLOWED.get(name, 2.0)],
            "writes": {name: {str(rows): taken for rows, taken in by_size.items()} for name, by_size in writes.items()},
            "bytes": {str(rows): dict(by_name) for rows, by_name in sizes.items()},
            "load_seconds": {str(rows): dict(taken) for rows, taken in load_seconds.items()},
        },
    )


def _ratios(small: Cost, large: Cost) -> tuple[float, float]:
    return paired(large.milliseconds, small.milliseconds).median, median(large.buffers) / median(small.buffers)


def _table(title: str, costs: Costs, ratios: Mapping[str, tuple[float, float]]) -> Table:
    sizes = list(next(iter(costs.values())))
    columns = [
        "",
        *(f"{_name(rows)}, ms" for rows in sizes),
        "ratio",
        *(f"{_name(rows)}, buffers" for rows in sizes),
        "ratio",
    ]
    return Table(
        title=title,
        columns=columns,
        rows=[
            [
                name.strip(),
                *(f"{median(cost.milliseconds):.2f}" for cost in by_size.values()),
                f"{ratios[name][0]:.2f}",
                *(f"{median(cost.buffers):,.0f}" for cost in by_size.values()),
                f"{ratios[name][1]:.2f}",
            ]
            for name, by_size in costs.items()
        ],
    )


def _write_table(writes: Mapping[str, Mapping[int, tuple[float, float]]]) -> Table:
    sizes = list(next(iter(writes.values())))
    return Table(
        title="Cost of the indexes for one insert",
        columns=["", *(f"{_name(rows)}, µs" for rows in sizes), *(f"{_name(rows)}, bytes of WAL" for rows in sizes)],
        rows=[
            [
                name,
                *(format_number(taken[0]) for taken in by_size.values()),
                *(format_number(taken[1]) for taken in by_size.values()),
            ]
            for name, by_size in writes.items()
        ],
    )


def _size_table(sizes: Mapping[int, Mapping[str, int]], load_seconds: Mapping[int, Mapping[str, float]]) -> Table:
    largest = max(sizes)
    taken = load_seconds.get(largest, {})
    return Table(
        title="Size of the tables",
        columns=["", *(f"{_name(rows)}, MB" for rows in sizes), f"{_name(largest)}, seconds to load"],
        rows=[
            [
                name,
                *(format_number(by_name[name] / 1e6) for by_name in sizes.values()),
                format_number(taken["rows" if name == "items" else name])
                if ("rows" if name == "items" else name) in taken
                else "",
            ]
            for name in sizes[largest]
        ],
    )


def _name(rows: int) -> str:
    return _NAMES.get(rows, f"{rows:,}")
