"""Compares statements on ten thousand and on ten million items: the server's time, and the buffers read."""

import asyncio
import json
from collections.abc import Mapping

import asyncpg

from benchmarks.harness.databases import create_migrated
from benchmarks.harness.progress import Progress
from benchmarks.harness.reports import Report
from benchmarks.scale.load import load
from benchmarks.scale.questions import ALSO, QUESTIONS, statement
from benchmarks.scale.results import Cost, Costs, report
from tests.cluster import throw_away_cluster

SIZES = (10_000, 1_000_000, 10_000_000)
ROUNDS = 15
WARM_UP_RUNS = 7
"""Runs that are not counted. After five runs PostgreSQL may choose a generic plan."""

WRITES = 5_000

# Each set drops one more index than the previous one, and is rolled back.
_INDEX_SETS = {
    "all indexes": "",
    "without the previous release's": "DROP INDEX ix_items_letter_pairs, ix_items_name_trgm",
    "and without letter triples": "DROP INDEX ix_items_letter_pairs, ix_items_name_trgm, ix_items_letter_triples",
    "the primary key only": "DROP INDEX ix_items_letter_pairs, ix_items_name_trgm, ix_items_letter_triples, "
    "ix_items_is_active_id, ix_items_updated_at_id",
}

_WRITE = """
DO $$
BEGIN
    FOR n IN 1 .. {count} LOOP
        INSERT INTO items (name, price) VALUES ('Green bread knife No. ' || lpad((n * 7919)::text, 8, '0'), 9.5);
    END LOOP;
END
$$
"""


def run() -> Report:
    """Run the benchmark."""
    with throw_away_cluster() as cluster:
        return asyncio.run(_loaded_and_measured(cluster.url))


async def _loaded_and_measured(server: str) -> Report:
    urls, seconds = {}, {}
    for rows in SIZES:
        urls[rows] = await asyncio.to_thread(create_migrated, server, f"items_scale_{rows}")
        connection = await asyncpg.connect(urls[rows])
        seconds[rows] = await load(connection, rows)
        await connection.close()
    return await measure(urls, seconds)


async def measure(urls: Mapping[int, str], load_seconds: Mapping[int, Mapping[str, float]]) -> Report:
    """Measure all statements on loaded tables."""
    connections = {rows: await asyncpg.connect(url) for rows, url in urls.items()}
    questions = QUESTIONS | ALSO
    progress = Progress("scale", len(questions) + 1)
    costs: Costs = {}
    for name, question in questions.items():
        progress.step(name)
        costs[name] = {rows: Cost() for rows in urls}
        for rows, connection in connections.items():
            await connection.execute("SET jit = off")
            await connection.execute(f"PREPARE measured AS {(await statement(question, rows)).sql}")
        for turn in range(WARM_UP_RUNS + ROUNDS):
            for rows, connection in connections.items():
                taken = await _explain(connection, (await statement(question, rows)).literals)
                if turn >= WARM_UP_RUNS:
                    costs[name][rows].milliseconds.append(taken[0])
                    costs[name][rows].buffers.append(taken[1])
        for connection in connections.values():
            await connection.execute("DEALLOCATE measured")
    progress.step("writing")
    writes = {name: await _write(connections, drop) for name, drop in _INDEX_SETS.items()}
    sizes = {rows: await _index_sizes(connection) for rows, connection in connections.items()}
    for connection in connections.values():
        await connection.execute("VACUUM items")
        await connection.close()
    progress.end()
    return report(costs, writes, sizes, load_seconds)


async def _explain(connection: asyncpg.Connection, literals: str) -> tuple[float, float]:
    """Milliseconds and buffers of one run, which is rolled back."""
    transaction = connection.transaction()
    await transaction.start()
    explained = await connection.fetchval(
        f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) EXECUTE measured({literals})"
    )
    await transaction.rollback()
    (plan,) = json.loads(explained)
    buffers = [
        part[kind] for part in (plan["Plan"], plan["Planning"]) for kind in ("Shared Hit Blocks", "Shared Read Blocks")
    ]
    return plan["Planning Time"] + plan["Execution Time"], sum(buffers)


async def _write(connections: Mapping[int, asyncpg.Connection], drop: str) -> dict[int, tuple[float, float]]:
    """Microseconds and bytes of WAL for one insert, by the table's size."""
    taken = {}
    for rows, connection in connections.items():
        transaction = connection.transaction()
        await transaction.start()
        if drop:
            await connection.execute(drop)
        began, position = await _now(connection)
        await connection.execute(_WRITE.format(count=WRITES))
        ended, end = await _now(connection)
        await transaction.rollback()
        taken[rows] = (ended - began) * 1e6 / WRITES, (end - position) / WRITES
    return taken


async def _now(connection: asyncpg.Connection) -> tuple[float, float]:
    """The server's time in seconds, and its WAL position in bytes."""
    seconds = await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float")
    return seconds, await connection.fetchval("SELECT (pg_current_wal_insert_lsn() - '0/0')::float")


async def _index_sizes(connection: asyncpg.Connection) -> dict[str, int]:
    found = await connection.fetch(
        "SELECT indexrelid::regclass::text AS name, pg_relation_size(indexrelid) AS bytes FROM pg_index "
        "WHERE indrelid = 'items'::regclass"
    )
    table = await connection.fetchval("SELECT pg_table_size('items')")
    return {"items": table, **{index["name"]: index["bytes"] for index in found}}
