"""Compares Pydantic models, dataclasses and slotted dataclasses: creation, memory and conversion to a dictionary."""

import gc
import tracemalloc
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from statistics import median
from typing import Any

from pydantic import BaseModel, ConfigDict

from app.dataclasses.item import Item, ItemData
from benchmarks.harness.numbers import format_number, paired
from benchmarks.harness.plots import Plot
from benchmarks.harness.progress import Progress
from benchmarks.harness.reports import Claim, Report, Table
from benchmarks.harness.timing import Times, in_turns

OBJECTS = 10_000
ROUNDS = 15

_NOW = datetime.now(UTC)
_VALUES: dict[str, Any] = {
    "id": 1,
    "name": "Kettle",
    "description": "Boils a litre in two minutes.",
    "price": 34.5,
    "is_active": True,
    "created_at": _NOW,
    "updated_at": _NOW,
}
_METHOD = f"""
{OBJECTS:,} objects with seven fields (an item) are created with keyword arguments and kept. Memory is measured by
tracemalloc. Times are CPU time per object, the median of {ROUNDS} rounds taken in turns; ratios are paired within a
round.
"""


@dataclass
class Plain:
    """An item, without slots."""

    id: int
    name: str
    description: str | None
    price: float | None
    is_active: bool
    created_at: datetime
    updated_at: datetime


class Validated(BaseModel):
    """An item that Pydantic validates."""

    id: int
    name: str
    description: str | None = None
    price: float | None = None
    is_active: bool = True
    created_at: datetime
    updated_at: datetime


class Assigning(Validated):
    """The same, validated at each assignment."""

    model_config = ConfigDict(validate_assignment=True)


class Defaulting(Validated):
    """The same, with its defaults validated."""

    model_config = ConfigDict(validate_default=True)


_SHORT = {name: _VALUES[name] for name in ("id", "name", "created_at", "updated_at")}
_VALIDATED, _ASSIGNING = Validated(**_VALUES), Assigning(**_VALUES)
_DATA = ItemData(name="Kettle", description="Boils a litre in two minutes.", price=34.5)

_MAKING: dict[str, Callable[[], object]] = {
    "Pydantic": lambda: Validated(**_VALUES),
    "Pydantic, `model_construct`": lambda: Validated.model_construct(**_VALUES),
    "dataclass": lambda: Plain(**_VALUES),
    "slotted dataclass": lambda: Item(**_VALUES),
}
_RENDERING: dict[str, Callable[[], object]] = {
    "`asdict` of a slotted dataclass": lambda: asdict(_DATA),
    "`model_dump` of Pydantic": _VALIDATED.model_dump,
    "a hand-written `to_dict`": _DATA.to_dict,
}
_SETTINGS: dict[str, Callable[[], object]] = {
    "assignment, `validate_assignment=True`": lambda: setattr(_ASSIGNING, "name", "Pot"),
    "assignment, `validate_assignment=False`": lambda: setattr(_VALIDATED, "name", "Pot"),
    "three defaults, `validate_default=True`": lambda: Defaulting(**_SHORT),
    "three defaults, `validate_default=False`": lambda: Validated(**_SHORT),
}


def run() -> Report:
    """Run the benchmark."""
    progress = Progress("objects", 4)
    progress.step("creation")
    making = in_turns({name: _many(make) for name, make in _MAKING.items()}, calls=1, rounds=ROUNDS)
    making = {name: [value / OBJECTS for value in values] for name, values in making.items()}
    progress.step("memory")
    sizes = {name: _bytes_of(make) for name, make in _MAKING.items()}
    progress.step("dictionaries")
    rendering = in_turns(_RENDERING, calls=OBJECTS, rounds=ROUNDS)
    progress.step("settings of Pydantic")
    settings = in_turns(_SETTINGS, calls=OBJECTS, rounds=ROUNDS)
    progress.end()
    return Report(
        title="Objects between the layers",
        method=_METHOD,
        tables=[
            _table("Creating an object", making, sizes),
            _table("Converting it to a dictionary", rendering),
            _table("Two settings of Pydantic", settings),
        ],
        plot=Plot(
            title=f"CPU time to create {OBJECTS:,} objects",
            unit="ms",
            groups={name: {"": median(values) * OBJECTS / 1000} for name, values in making.items()},
        ),
        claims=_claims(making, sizes, rendering, settings),
        facts={
            "cpu_us": {name: round(median(values), 4) for name, values in (making | rendering | settings).items()},
            "bytes": sizes,
        },
    )


def _many(make: Callable[[], object]) -> Callable[[], object]:
    return lambda: [make() for _ in range(OBJECTS)]


def _bytes_of(make: Callable[[], object]) -> int:
    gc.collect()
    tracemalloc.start()
    kept = [make() for _ in range(OBJECTS)]
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    # Without the list's pointer to each object.
    return size // len(kept) - 8


def _table(title: str, times: Times, sizes: dict[str, int] | None = None) -> Table:
    last = list(times.values())[-1]
    rows = [[name, format_number(median(values)), str(paired(values, last))] for name, values in times.items()]
    columns = ["", "µs", "relative to the last row"]
    if sizes:
        columns.append("bytes")
        rows = [[*row, str(sizes[row[0]])] for row in rows]
    return Table(title=title, columns=columns, rows=rows)


def _claims(making: Times, sizes: dict[str, int], rendering: Times, settings: Times) -> list[Claim]:
    slow = paired(making["Pydantic"], making["slotted dataclass"]).median
    slots = paired(making["dataclass"], making["slotted dataclass"]).median
    written = paired(rendering["`asdict` of a slotted dataclass"], rendering["a hand-written `to_dict`"]).median
    assigning, unchecked_assigning, checked, unchecked = settings.values()
    heavier, lighter = sizes["Pydantic"] / sizes["slotted dataclass"], sizes["dataclass"] / sizes["slotted dataclass"]
    return [
        Claim(
            claimed="A dataclass is several times cheaper to create than a Pydantic model",
            measured=f"a slotted one {slow:.1f} times cheaper, in {heavier:.1f} times less memory",
            why="Pydantic validates input once, at the boundary; inside, values are slotted dataclasses",
        ),
        Claim(
            claimed="Slots make a dataclass faster and smaller",
            measured=f"{slots:.2f} times as fast to create, {lighter:.1f} times less memory",
            why="Mainly smaller. Used throughout, also because an attribute with a wrong name is an error",
        ),
        Claim(
            claimed="A hand-written `to_dict` is faster than `asdict`",
            measured=f"{written:.0f} times",
            why="`asdict` makes deep copies of all values. `to_dict` is written where a dictionary is needed",
        ),
        Claim(
            claimed="`validate_assignment=False` saves time",
            measured=f"an assignment is {paired(assigning, unchecked_assigning).median:.1f} times cheaper",
            why="True, and Pydantic's default. Bodies are never assigned to here, so it saves nothing in a request",
        ),
        Claim(
            claimed="`validate_default=False` saves time",
            measured=f"creating a model with three defaults is {paired(checked, unchecked).median:.2f} times cheaper",
            why="True by a little, and Pydantic's default. The type checker checks the defaults",
        ),
    ]
