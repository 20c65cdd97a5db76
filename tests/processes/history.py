"""Makes write requests, and compares what the service acknowledged with what its database stores."""

import asyncio
import json
from collections import Counter
from typing import Any

import asyncpg

from tests.cluster import execute
from tests.processes.load import Report, Request, RequestResult

_SEEDED = 10_000

_JSON = ("Content-Type", "application/json")

_REFUSED_BEFORE_THE_DATABASE = {"overloaded", "pool_exhausted"}
"""Codes of a 503 that a request gets before it has a database connection."""


class History:
    """Requests whose writes can be distinguished: no two write the same value, unless one is a retry."""

    def __init__(self, url: str) -> None:
        """Insert the samples that requests replace."""
        self.url = url
        """The database that writes are compared with."""
        execute(url, f"INSERT INTO samples (name) SELECT 'seeded' FROM generate_series(1, {_SEEDED})")

    @staticmethod
    def request(number: int) -> Request:
        """A read, a creation with or without a key, the retry of an earlier creation, or a replacement."""
        kind = number % 6
        if kind == 0:
            return Request(target=f"/samples/{number % _SEEDED + 1}")
        if kind == 1:
            return create(number)
        if kind == 2:
            return create(number, key=f"key-{number}")
        if kind == 3:
            # Sent 61 numbers after the request that it repeats, which usually has an answer by then.
            repeated = max(2, number - 61)
            return create(repeated, key=f"key-{repeated}")
        if kind == 4:
            return Request(target="/samples?per_page=5")
        body = json.dumps({"name": f"replaced-{number}", "description": None, "amount": number % 1000}).encode()
        return Request(method="PUT", target=f"/samples/{number % _SEEDED + 1}", headers=(_JSON,), body=body)

    @staticmethod
    def creation(number: int) -> Request:
        """A creation without a key, a creation with a key, or the retry of an earlier one."""
        kind = number % 3
        if kind == 0:
            return create(number)
        repeated = number if kind == 1 else max(1, number - 31)
        return create(repeated, key=f"key-{repeated}")

    def check(self, *reports: Report) -> Counter[str]:
        """Compare the writes with the database, and count their outcomes.

        Returns:
            The number of writes that were `acknowledged`, `refused` or of `unknown` outcome, and of
            rows that are `stored` although no write of them was acknowledged.

        Raises:
            AssertionError: An acknowledged write is missing or different, a refused one was carried
                out, or there is a row that no request wrote. A creation may be stored twice only
                where an outcome was unknown and it had no key.
        """
        rows = asyncio.run(self._rows())
        found: dict[str, list[asyncpg.Record]] = {}
        for row in rows.values():
            found.setdefault(row["name"], []).append(row)
        writes: dict[str, list[RequestResult]] = {}
        for report in reports:
            for result in report.results:
                if result.request.method != "GET":
                    writes.setdefault(json.loads(result.request.body)["name"], []).append(result)
        for name in found:
            assert name == "seeded" or name in writes, f"a row that no request wrote: {name}"
        counts: Counter[str] = Counter()
        for name, results in writes.items():
            stored, outcomes = found.get(name, []), Counter(map(_outcome, results))
            acknowledged = [_acknowledged(result, rows) for result in results if _outcome(result) == "acknowledged"]
            most = outcomes["acknowledged"] + outcomes["unknown"]
            if _is_idempotent(results[0].request):
                most = min(1, most)
            else:
                assert len(acknowledged) == len(set(acknowledged)), f"one row for several creations: {results}"
            assert len(stored) <= most, f"{len(stored)} rows, at most {most} expected: {results}"
            expected = _value(json.loads(results[0].request.body))
            assert all(expected == _value(row) for row in stored), f"an incomplete row: {results}"
            counts += outcomes
            counts["stored"] += 0 if acknowledged else len(stored)
        return counts

    async def _rows(self) -> dict[int, asyncpg.Record]:
        connection = await asyncpg.connect(self.url, user="postgres")
        try:
            found = await connection.fetch("SELECT id, name, description, amount FROM samples")
            return {row["id"]: row for row in found}
        finally:
            await connection.close()


def create(number: int, *, key: str | None = None, name: str = "created", description: str | None = None) -> Request:
    """The creation of this number's sample."""
    headers = (_JSON,) if key is None else (_JSON, ("Idempotency-Key", key))
    values = {"name": f"{name}-{number}", "description": description, "amount": number % 1000}
    return Request(method="POST", target="/samples", headers=headers, body=json.dumps(values).encode())


def _is_idempotent(request: Request) -> bool:
    """Whether the request makes no second row when it is sent again."""
    return request.method == "PUT" or any(name == "Idempotency-Key" for name, _ in request.headers)


def _outcome(result: RequestResult) -> str:
    """How a write ended: `acknowledged`, `refused` (nothing was written), or `unknown`."""
    if result.answer is None:
        return "refused" if result.failure == "refused" else "unknown"
    if result.answer.status < 300:
        return "acknowledged"
    if result.answer.status == 503:
        return "refused" if json.loads(result.answer.body)["code"] in _REFUSED_BEFORE_THE_DATABASE else "unknown"
    return "refused" if result.answer.status < 500 else "unknown"


def _acknowledged(result: RequestResult, rows: dict[int, asyncpg.Record]) -> int:
    """The id of the acknowledged sample, once it is sure that it is stored as requested."""
    assert result.answer
    sample = json.loads(result.answer.body)
    expected = _value(json.loads(result.request.body))
    assert expected == _value(sample), f"acknowledged with other values: {result}"
    assert sample["id"] in rows, f"acknowledged and not stored: {result}"
    assert expected == _value(rows[sample["id"]]), f"stored with other values: {result}"
    return int(sample["id"])


def _value(sample: Any) -> tuple[Any, ...]:
    """The fields that a client sets, of a request's body, an answer or a row."""
    return sample["name"], sample["description"], sample["amount"]
