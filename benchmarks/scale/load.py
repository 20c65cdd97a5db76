"""Fills a migrated database with varied items: `python -m benchmarks.scale.load URL ROWS`."""

import asyncio
import sys
import time
from datetime import UTC, datetime, timedelta

import asyncpg

BATCH_ROWS = 200_000

BAR_CHARACTERS = 30

LOADED_FROM = datetime(2026, 1, 1, tzinfo=UTC)
LOADED_EVERY = timedelta(seconds=3)
"""When the rows are said to have been changed."""

# Every value is computed from the row's number, so two loads of one size are equal. Each kind is in one
# row of twelve, and each serial number in one row. The rare words are in five rows and fifty rows are
# inactive, whatever the size, evenly distributed. The newest 0.5 % of the rows share a word.
_INSERT = """
INSERT INTO items (name, description, price, is_active, created_at, updated_at)
SELECT
    colours[1 + abs(hashint8(n)) % 16] || ' ' || kinds[1 + abs(hashint8(n * 31 + 7)) % 12]
        || CASE WHEN n % ($3 / 5) = $3 / 10 THEN ' Quokka жx' ELSE '' END
        || ' No. ' || lpad((n * 7919 % 100000000)::text, 8, '0')
        || CASE WHEN n > $3 - $3 / 200 THEN ' (import)' ELSE '' END,
    CASE WHEN n % 3 = 0 THEN 'Made by hand in lot ' || n / 100 || ', and checked twice before it is sent.' END,
    abs(hashint8(n * 17)) % 1000000 / 100.0,
    n % ($3 / 50) <> $3 / 100,
    moment,
    moment
FROM
    generate_series($1::bigint, $2::bigint) AS n,
    LATERAL (SELECT $4::timestamptz + n * $5::interval AS moment) AS made,
    (SELECT
        ARRAY['Amber', 'Black', 'Blue', 'Brown', 'Coral', 'Green', 'Grey', 'Indigo', 'Ivory', 'Lilac', 'Olive',
            'Orange', 'Red', 'Silver', 'White', 'Yellow'] AS colours,
        ARRAY['kettle', 'teapot', 'saucepan', 'cutting board', 'bread knife', 'rolling pin', 'whisk', 'ladle',
            'mixing bowl', 'measuring jug', 'pepper mill', 'casserole'] AS kinds) AS words
"""

_SECONDARY = """
SELECT indexrelid::regclass::text AS name, pg_get_indexdef(indexrelid) AS definition
FROM pg_index WHERE indrelid = 'items'::regclass AND NOT indisprimary
"""


async def load(connection: asyncpg.Connection, rows: int) -> dict[str, float]:
    """Fill the empty table, and return the seconds that its rows and each index took.

    The indexes are dropped before and re-created after it, which is several times faster.
    """
    seconds: dict[str, float] = {}
    await connection.execute(
        "SET maintenance_work_mem = '1GB'; SET statement_timeout = 0; SET synchronous_commit = off"
    )
    indexes = await connection.fetch(_SECONDARY)
    for index in indexes:
        await connection.execute(f"DROP INDEX {index['name']}")
    started = time.monotonic()
    for first in range(1, rows + 1, BATCH_ROWS):
        last = min(first + BATCH_ROWS - 1, rows)
        await connection.execute(_INSERT, first, last, rows, LOADED_FROM, LOADED_EVERY)
        _show(last, rows, time.monotonic() - started)
    seconds["rows"] = time.monotonic() - started
    for index in indexes:
        print(f"  {index['name']} …", end="", flush=True)
        started = time.monotonic()
        await connection.execute(index["definition"])
        seconds[index["name"]] = time.monotonic() - started
        print(f" {seconds[index['name']]:.1f} s")
    await connection.execute("VACUUM (ANALYZE) items")
    return seconds


def _show(done: int, rows: int, seconds: float) -> None:
    filled = "█" * (BAR_CHARACTERS * done // rows)
    left = seconds * (rows - done) / done
    print(f"\r  {filled:<{BAR_CHARACTERS}} {done:>12,} rows  {seconds:4.0f} s, {left:4.0f} s left ", end="", flush=True)
    if done == rows:
        print()


async def _main(url: str, rows: int) -> None:
    connection = await asyncpg.connect(url)
    try:
        await load(connection, rows)
    finally:
        await connection.close()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], int(sys.argv[2])))
