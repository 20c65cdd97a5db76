"""Compares ways to render a page of 20 items as JSON."""

import json
from dataclasses import asdict, fields
from datetime import UTC, datetime
from statistics import median
from typing import Any

import orjson
from fastapi.encoders import jsonable_encoder
from pydantic import TypeAdapter

from app.dataclasses.item import Item
from app.schemas.item import ItemRead
from benchmarks.harness.numbers import format_number, paired
from benchmarks.harness.plots import Plot
from benchmarks.harness.progress import Progress
from benchmarks.harness.reports import Claim, Report, Table
from benchmarks.harness.timing import Times, in_turns

ITEMS = 20
CALLS = 200
ROUNDS = 25

_NOW = datetime.now(UTC)
_ITEMS = [Item(n, f"Kettle {n}", "Boils a litre in two minutes.", 34.5, True, _NOW, _NOW) for n in range(1, ITEMS + 1)]
_NAMES = [field.name for field in fields(Item)]
_DICTS = [{name: getattr(item, name) for name in _NAMES} for item in _ITEMS]
_MODELS = [ItemRead(**values) for values in _DICTS]
_PAGE = TypeAdapter(list[ItemRead])

_JSON = "json of the standard library, from dictionaries"
_ORJSON_ASDICT = "orjson, from `asdict`"
_ORJSON_DICTS = "orjson, from dictionaries"
_FASTAPI_BEFORE = "FastAPI without its fast path: validate, `jsonable_encoder`, json"
_FASTAPI = "FastAPI today: validate, Pydantic to bytes"
_SLOTTED = "orjson, from slotted dataclasses"
_HERE = "here: orjson, from a hand-written `to_dict`"


def run() -> Report:
    """Run the benchmark."""
    progress = Progress("json_rendering", 1)
    progress.step("all ways")
    times = in_turns(
        {
            _FASTAPI_BEFORE: lambda: json.dumps(jsonable_encoder(_PAGE.validate_python(_asdicts()))).encode(),
            _FASTAPI: lambda: _PAGE.dump_json(_PAGE.validate_python(_asdicts())),
            _JSON: lambda: json.dumps(_DICTS, default=_in_text, separators=(",", ":")).encode(),
            "Pydantic to bytes, from models": lambda: _PAGE.dump_json(_MODELS),
            _ORJSON_ASDICT: lambda: orjson.dumps(_asdicts()),
            _ORJSON_DICTS: lambda: orjson.dumps(_DICTS),
            _SLOTTED: lambda: orjson.dumps(_ITEMS, option=orjson.OPT_UTC_Z),
            _HERE: lambda: orjson.dumps([item.to_dict() for item in _ITEMS], option=orjson.OPT_UTC_Z),
        },
        calls=CALLS,
        rounds=ROUNDS,
    )
    progress.end()
    middle = {name: median(values) for name, values in times.items()}
    rows = [[name, format_number(middle[name]), str(paired(values, times[_HERE]))] for name, values in times.items()]
    return Report(
        title="A page of 20 items as JSON",
        method=f"""CPU time per page, the median of {ROUNDS} rounds taken in turns. "From `asdict`" creates the
        dictionaries first, as the common pattern does.""",
        tables=[Table(title="Ways to render the page", columns=["", "µs", "relative to the last row"], rows=rows)],
        plot=Plot(
            title="CPU time per page of 20 items",
            unit="µs",
            groups={name: {"": value} for name, value in middle.items()},
        ),
        claims=_claims(times),
        facts={"cpu_us": {name: round(value, 2) for name, value in middle.items()}},
    )


def _asdicts() -> list[dict[str, Any]]:
    return [asdict(item) for item in _ITEMS]


def _in_text(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _claims(times: Times) -> list[Claim]:
    def cheaper(name: str) -> str:
        return f"{paired(times[name], times[_HERE]).median:.1f} times cheaper"

    return [
        Claim(
            claimed="orjson is faster than the standard library's json",
            measured=cheaper(_JSON),
            why="Kept: it also refuses values that are not JSON: NaN and lone surrogates",
        ),
        Claim(
            claimed="orjson renders slotted dataclasses as they are",
            measured=f"true, {paired(times[_ORJSON_ASDICT], times[_SLOTTED]).median:.0f} times cheaper than by "
            f"`asdict`; from ready dictionaries it is {paired(times[_SLOTTED], times[_ORJSON_DICTS]).median:.1f} times "
            "cheaper again",
            why="It reads the fields of a slotted class one by one. A single item is rendered directly; the items of a "
            f"page by a hand-written `to_dict`, {paired(times[_SLOTTED], times[_HERE]).median:.1f} times cheaper",
        ),
        Claim(
            claimed="FastAPI serializes a response model directly",
            measured=f"orjson here is {cheaper(_FASTAPI)}, and {cheaper(_FASTAPI_BEFORE)} than without that path",
            why="FastAPI validates its responses. Here responses consist of validated values and are rendered once, "
            "and the response model is for the documentation only. `ORJSONResponse` is deprecated",
        ),
    ]
