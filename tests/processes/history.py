"""Remembers what a service was asked and what it acknowledged, and compares that with what its database holds."""

import asyncio
import json
from collections import Counter
from typing import Any

import asyncpg

from tests.cluster import execute
from tests.processes.load import Exchange, Report, Request

_SEEDED = 10_000

_JSON = ("Content-Type", "application/json")

_UNTOUCHED = {"overloaded", "pool_exhausted"}
"""Codes of refusals that come before a request has a connection to the database."""


class History:
    """Writes of which each can be found again: no two requests write the same value, unless one is a retry."""

    def __init__(self, url: str) -> None:
        """Fill the database with items to replace."""
        self._url = url
        execute(url, f"INSERT INTO items (name) SELECT 'seeded' FROM generate_series(1, {_SEEDED})")

    @staticmethod
    def request(number: int) -> Request:
        """A read, a creation with a key or without one, the retry of an earlier creation, or a replacement."""
        kind = number % 6
        if kind == 0:
            return Request(target=f"/items/{number % _SEEDED + 1}")
        if kind == 1:
            return create(number)
        if kind == 2:
            return create(number, key=f"key-{number}")
        if kind == 3:
            # Some requests after the one that it repeats, which mostly has an answer by then.
            repeated = max(2, number - 61)
            return create(repeated, key=f"key-{repeated}")
        if kind == 4:
            return Request(target="/items?per_page=5")
        body = json.dumps({"name": f"replaced-{number}", "description": None, "price": number % 1000}).encode()
        return Request(method="PUT", target=f"/items/{number % _SEEDED + 1}", headers=(_JSON,), body=body)

    @staticmethod
    def creation(number: int) -> Request:
        """A creation without a key, with one, or the retry of an earlier one."""
        kind = number % 3
        if kind == 0:
            return create(number)
        repeated = number if kind == 1 else max(1, number - 31)
        return create(repeated, key=f"key-{repeated}")

    def check(self, *reports: Report) -> Counter[str]:
        """Compare the writes with the database, and count how they ended.

        Returns:
            The writes that were `acknowledged`, `refused` or of `unknown` outcome, and the rows that
            are `stored` though nothing that asked for them was acknowledged.

        Raises:
            AssertionError: An acknowledged write is missing or other than acknowledged, a refused one
                was carried out, or there is a row that should not be. A creation may stand twice only
                where an outcome was unknown and it had no key.
        """
        rows = asyncio.run(self._rows())
        found: dict[str, list[asyncpg.Record]] = {}
        for row in rows.values():
            found.setdefault(row["name"], []).append(row)
        writes: dict[str, list[Exchange]] = {}
        for report in reports:
            for exchange in report.exchanges:
                if exchange.request.method != "GET":
                    writes.setdefault(json.loads(exchange.request.body)["name"], []).append(exchange)
        for name in found:
            assert name == "seeded" or name in writes, f"a row that nobody asked for: {name}"
        counts: Counter[str] = Counter()
        for name, exchanges in writes.items():
            stored, outcomes = found.get(name, []), Counter(map(_outcome, exchanges))
            told = [_acknowledged(exchange, rows) for exchange in exchanges if _outcome(exchange) == "acknowledged"]
            most = outcomes["acknowledged"] + outcomes["unknown"]
            if _makes_one(exchanges[0].request):
                most = min(1, most)
            else:
                assert len(told) == len(set(told)), f"one row for several creations: {exchanges}"
            assert len(stored) <= most, f"{len(stored)} rows, and at most {most} may be: {exchanges}"
            expected = _value(json.loads(exchanges[0].request.body))
            assert all(expected == _value(row) for row in stored), f"half a row: {exchanges}"
            counts += outcomes
            counts["stored"] += 0 if told else len(stored)
        return counts

    async def _rows(self) -> dict[int, asyncpg.Record]:
        connection = await asyncpg.connect(self._url, user="postgres")
        try:
            found = await connection.fetch("SELECT id, name, description, price::float FROM items")
            return {row["id"]: row for row in found}
        finally:
            await connection.close()


def create(number: int, *, key: str | None = None, name: str = "created", description: str | None = None) -> Request:
    """The creation of this number's item."""
    headers = (_JSON,) if key is None else (_JSON, ("Idempotency-Key", key))
    values = {"name": f"{name}-{number}", "description": description, "price": number % 1000}
    return Request(method="POST", target="/items", headers=headers, body=json.dumps(values).encode())


def _makes_one(request: Request) -> bool:
    """Whether it makes no second row when it is sent again."""
    return request.method == "PUT" or any(name == "Idempotency-Key" for name, _ in request.headers)


def _outcome(exchange: Exchange) -> str:
    """How a write ended: `acknowledged`, `refused`, which says that nothing was written, or `unknown`."""
    if exchange.answer is None:
        return "refused" if exchange.failure == "refused" else "unknown"
    if exchange.answer.status < 300:
        return "acknowledged"
    if exchange.answer.status == 503:
        return "refused" if json.loads(exchange.answer.body)["code"] in _UNTOUCHED else "unknown"
    return "refused" if exchange.answer.status < 500 else "unknown"


def _acknowledged(exchange: Exchange, rows: dict[int, asyncpg.Record]) -> int:
    """The id of the item that was told to be written: it is stored as it was asked for."""
    assert exchange.answer
    told = json.loads(exchange.answer.body)
    expected = _value(json.loads(exchange.request.body))
    assert expected == _value(told), f"acknowledged as something else: {exchange}"
    assert told["id"] in rows, f"acknowledged and lost: {exchange}"
    assert expected == _value(rows[told["id"]]), f"acknowledged and not stored: {exchange}"
    return int(told["id"])


def _value(item: Any) -> tuple[Any, ...]:
    """What a client has set of an item, whether it is a body, an answer or a row."""
    return item["name"], item["description"], item["price"]
