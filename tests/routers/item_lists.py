"""Stores many items, and reads responses that list them."""

import asyncpg
import httpx


async def fill(sql: asyncpg.Connection, count: int, name: str = "'Item ' || n", active: str = "true") -> None:
    """Store `count` items. The two SQL expressions can contain the item's number, `n`."""
    await sql.execute(
        f"INSERT INTO items (name, is_active) SELECT {name}, {active} FROM generate_series(1, {count}) AS n"
    )
    await sql.execute("ANALYZE items")


def ids(response: httpx.Response) -> list[int]:
    """Return the ids of the listed items."""
    assert 200 == response.status_code, response.text
    return [item["id"] for item in response.json()["items"]]
