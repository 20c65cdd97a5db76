"""Remembers what a service was asked and what it acknowledged, and compares that with what its database holds."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import asyncpg

from tests.cluster import execute
from tests.processes.load import Exchange, Report, Request

_SEEDED = 20_000

_JSON = ("Content-Type", "application/json")


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
        body = json.dumps({"name": f"replaced-{number}", "price": number % 1000}).encode()
        return Request(method="PUT", target=f"/items/{number % _SEEDED + 1}", headers=(_JSON,), body=body)

    def check(self, report: Report) -> Counter[str]:
        """Compare the acknowledged writes with the database, and count them by their kind.

        Raises:
            AssertionError: One is missing or other than acknowledged, or there is a row that should not be.
        """
        rows = asyncio.run(self._rows())
        by_name: dict[str, list[asyncpg.Record]] = {}
        for row in rows.values():
            by_name.setdefault(row["name"], []).append(row)
        counts: Counter[str] = Counter()
        for exchange, body in _writes(report):
            expected = (body["name"], body["price"])
            if exchange.answer and exchange.answer.status in {200, 201}:
                told = json.loads(exchange.answer.body)
                assert expected == (told["name"], told["price"])
                stored = rows.get(told["id"])
                assert stored, f"acknowledged and lost: {exchange}"
                assert expected == (stored["name"], stored["price"]), f"acknowledged and not stored: {exchange}"
                counts["acknowledged"] += 1
            else:
                counts["unknown"] += 1
                for stored in by_name.get(body["name"], ()):
                    assert expected == (stored["name"], stored["price"]), f"half a row: {exchange}"
        sent = {body["name"] for _, body in _writes(report)}
        for name, found in by_name.items():
            assert name == "seeded" or name in sent, f"a row that nobody asked for: {name}"
            # Without a key each was sent once, so none may stand twice.
            assert name == "seeded" or len(found) == 1, f"twice: {name}"
        return counts

    async def _rows(self) -> dict[int, asyncpg.Record]:
        connection = await asyncpg.connect(self._url, user="postgres")
        try:
            return {row["id"]: row for row in await connection.fetch("SELECT id, name, price::float FROM items")}
        finally:
            await connection.close()


def create(number: int, *, key: str | None = None) -> Request:
    """The creation of this number's item."""
    headers = (_JSON,) if key is None else (_JSON, ("Idempotency-Key", key))
    body = json.dumps({"name": f"created-{number}", "price": number % 1000}).encode()
    return Request(method="POST", target="/items", headers=headers, body=body)


def _writes(report: Report) -> Iterator[tuple[Exchange, Any]]:
    for exchange in report.exchanges:
        if exchange.request.method != "GET":
            yield exchange, json.loads(exchange.request.body)
