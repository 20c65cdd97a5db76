import asyncio

import asyncpg
import pytest

from app.crud import idempotency_keys

KEYS = """
INSERT INTO idempotency_keys (key, fingerprint, answer, created_at)
SELECT number::text, 'f', '{}', now() - interval '1 hour' * number FROM generate_series(20, 29) AS number
"""
"""Keys that are named by their age in hours: those from 24 on have expired."""

LOCK = "SELECT pg_advisory_lock(hashtextextended('purge of idempotency_keys', 0))"


@pytest.fixture
async def keys(sql):
    """Returns the names of the keys that are left."""
    await sql.execute(KEYS)

    async def read() -> list[str]:
        return [row["key"] for row in await sql.fetch("SELECT key FROM idempotency_keys ORDER BY key")]

    return read


async def test_only_expired_keys_are_deleted(database, keys):
    """Keys of the last 24 hours stay, and a second call finds nothing to do."""
    assert 6 == await idempotency_keys.delete_expired(database, limit=100)
    assert ["20", "21", "22", "23"] == await keys()
    assert 0 == await idempotency_keys.delete_expired(database, limit=100)


async def test_the_oldest_keys_are_deleted_first(database, keys):
    """One call deletes no more keys than its limit."""
    assert 2 == await idempotency_keys.delete_expired(database, limit=2)
    assert ["20", "21", "22", "23", "24", "25", "26", "27"] == await keys()


async def test_a_key_in_use_is_skipped(database, database_url, keys):
    """A call does not wait for a request that uses an expired key again."""
    other = await asyncpg.connect(database_url)
    try:
        async with other.transaction():
            await other.execute("UPDATE idempotency_keys SET created_at = now() WHERE key = '29'")
            assert 5 == await asyncio.wait_for(idempotency_keys.delete_expired(database, limit=100), 20)
    finally:
        await other.close()
    assert ["20", "21", "22", "23", "29"] == await keys()


async def test_one_worker_deletes_at_a_time(database, database_url, keys):
    """While another one deletes, a call does nothing, at once. Afterwards no lock is left."""
    other = await asyncpg.connect(database_url)
    try:
        await other.execute(LOCK)
        assert await asyncio.wait_for(idempotency_keys.delete_expired(database, limit=100), 20) is None
        assert 10 == len(await keys())
    finally:
        await other.close()
    assert 6 == await idempotency_keys.delete_expired(database, limit=100)
    assert 0 == await idempotency_keys.delete_expired(database, limit=100)
