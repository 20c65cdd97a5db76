"""Looks for expensive searches among a million and ten million names: the server's CPU time, and the buffers read."""

import asyncio
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from app.crud import item_page
from benchmarks.harness.databases import create_migrated
from benchmarks.harness.progress import Progress
from benchmarks.harness.reports import Report
from benchmarks.scale.questions import Question, statement
from benchmarks.searches.names import load
from benchmarks.searches.results import Search, Searches, report
from benchmarks.searches.texts import KNOWN, random_text
from tests.cluster import throw_away_cluster

SIZES = (1_000_000, 10_000_000)
RANDOM_TEXTS = 150
WARM_UP_RUNS = 6
"""Runs of a new statement. After five runs PostgreSQL may choose a generic plan."""

RUNS = 2
"""The least of so many runs counts: the other ones waited for the caches of the CPU."""

PER_PAGE = 20
LAST_PAGE = 500
_EXPENSIVE = 40


@dataclass(frozen=True, slots=True)
class Position:
    """A page of a search."""

    page: int | None = None
    is_active: bool | None = None
    after: float = 0
    """For a page after a cursor: its place in the table, 0 to 1."""

    def question(self, q: str) -> Question:
        """The question for this page of a search."""
        if self.page is None:
            return lambda database, rows: item_page.page_after(
                database, int(rows * self.after), limit=PER_PAGE, is_active=self.is_active, q=q
            )
        offset = (self.page - 1) * PER_PAGE
        return lambda database, _: item_page.page(
            database, limit=PER_PAGE, offset=offset, is_active=self.is_active, q=q, count_exactly=False
        )


FIRST = "first page"
POSITIONS = {
    FIRST: Position(page=1),
    "page 500": Position(page=LAST_PAGE),
    "page 500, active": Position(page=LAST_PAGE, is_active=True),
    "first page, inactive": Position(page=1, is_active=False),
    "after the first": Position(),
    "after the middle": Position(after=0.5),
}


def run() -> Report:
    """Run the benchmark."""
    with throw_away_cluster() as cluster:
        return asyncio.run(_loaded_and_measured(cluster.url))


async def _loaded_and_measured(server: str) -> Report:
    urls = {}
    for rows in SIZES:
        urls[rows] = await asyncio.to_thread(create_migrated, server, f"items_searches_{rows}")
        connection = await asyncpg.connect(urls[rows])
        await load(connection, rows)
        await connection.close()
    return await measure(urls)


async def measure(urls: Mapping[int, str]) -> Report:
    """Measure all searches on loaded tables."""
    known = [text for texts in KNOWN.values() for text in texts]
    progress = Progress("searches", len(urls) * (len(known) + RANDOM_TEXTS))
    searches: Searches = {}
    for rows, url in urls.items():
        connection = await asyncpg.connect(url, statement_cache_size=0)
        session = _Session(connection, rows)
        await connection.execute("SET jit = off")
        names = [row["name"] for row in await connection.fetch("SELECT name FROM items WHERE id % 997 = 0 LIMIT 5000")]
        chosen = random.Random(rows)
        found: dict[str, list[Search]] = {}
        for number in range(len(known) + RANDOM_TEXTS):
            expensive = sorted(found, key=lambda text: -max(search.milliseconds for search in found[text]))[:_EXPENSIVE]
            text = known[number] if number < len(known) else random_text(chosen, names, expensive)
            progress.step(repr(text[:20]))
            found[text] = [await session.search(text, position) for position in POSITIONS]
        searches[rows] = found
        await connection.close()
    progress.end()
    return report(searches)


class _Session:
    """One connection, whose statements are prepared as the service prepares them."""

    def __init__(self, connection: asyncpg.Connection, rows: int) -> None:
        self._connection = connection
        self._rows = rows
        self._prepared: dict[str, str] = {}

    async def search(self, text: str, position: str) -> Search:
        """The cost of one search."""
        asked = await statement(POSITIONS[position].question(text), self._rows)
        is_new = asked.sql not in self._prepared
        name = self._prepared.setdefault(asked.sql, f"search_{len(self._prepared)}")
        execute = f"EXECUTE {name}({asked.literals})"
        if is_new:
            await self._connection.execute(f"PREPARE {name} AS {asked.sql}")
            for _ in range(WARM_UP_RUNS):
                await self._connection.fetch(execute)
        row = (await self._connection.fetch(execute))[0]
        is_refused = row["total"] is None if "total" in row else not row["is_complete"] and row["id"] is None
        taken, buffers = [], 0
        for _ in range(RUNS):
            began = self._cpu_milliseconds()
            explained = await self._connection.fetchval(
                f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {execute}"
            )
            taken.append(self._cpu_milliseconds() - began)
            plan = json.loads(explained)[0]["Plan"]
            buffers = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
        return Search(position, min(taken), buffers, is_refused)

    def _cpu_milliseconds(self) -> float:
        """The CPU time of the connection's server process so far. Only Linux has this file."""
        return int(Path(f"/proc/{self._connection.get_server_pid()}/schedstat").read_text().split()[0]) / 1e6
