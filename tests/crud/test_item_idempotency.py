import asyncio

import pytest

from app.crud import item as items
from app.crud.item_idempotency import KEY_PREFIX, create_once
from app.errors import IdempotencyKeyReusedError, InvalidFieldError

KETTLE = {"name": "Kettle", "description": 'Boils\na "litre" \\ of 🫖.', "price": 0.29, "is_active": False}


async def test_a_second_call_returns_the_item_of_the_first(database):
    """The first call creates the item; the second returns it as it was created, to the microsecond."""
    created, is_first_replay = await create_once(database, KETTLE, key="k", fingerprint=b"f")
    again, is_replay = await create_once(database, KETTLE, key="k", fingerprint=b"f")

    assert (False, True) == (is_first_replay, is_replay)
    assert created == again == await items.get(database, created.id)
    assert KETTLE == {name: getattr(created, name) for name in KETTLE}


async def test_another_fingerprint_is_refused(database):
    """A key cannot be used for another content."""
    await create_once(database, KETTLE, key="k", fingerprint=b"f")

    with pytest.raises(IdempotencyKeyReusedError):
        await create_once(database, KETTLE, key="k", fingerprint=b"g")


async def test_the_key_is_not_stored_when_the_item_is_not(database, sql):
    """A retry with the same key can succeed."""
    with pytest.raises(InvalidFieldError):
        await create_once(database, KETTLE | {"name": ""}, key="k", fingerprint=b"f")

    assert 0 == await sql.fetchval("SELECT count(*) FROM idempotency_keys")
    assert not (await create_once(database, KETTLE, key="k", fingerprint=b"f"))[1]


async def test_a_retry_waits_for_the_first(database, sql):
    """A call whose key is being stored by another one waits, and then returns that one's item."""
    transaction = sql.transaction()
    await transaction.start()
    await sql.execute(
        'INSERT INTO idempotency_keys VALUES ($1, \'f\', \'{"id": 7, "name": "First", "is_active": true}\', now())',
        f"{KEY_PREFIX}k",
    )
    retry = asyncio.create_task(create_once(database, KETTLE, key="k", fingerprint=b"f"))
    await asyncio.sleep(0.2)
    assert not retry.done()

    await transaction.commit()

    item, is_replay = await retry
    assert (7, "First", True) == (item.id, item.name, is_replay)


async def test_a_retry_of_a_first_that_fails_becomes_the_first(database, sql):
    """When the first call is rolled back, the waiting retry creates the item."""
    transaction = sql.transaction()
    await transaction.start()
    await sql.execute("INSERT INTO idempotency_keys VALUES ($1, 'f', '{\"id\": 7}', now())", f"{KEY_PREFIX}k")
    retry = asyncio.create_task(create_once(database, KETTLE, key="k", fingerprint=b"f"))
    await asyncio.sleep(0.1)

    await transaction.rollback()

    item, is_replay = await retry
    assert not is_replay
    assert item == await items.get(database, item.id)


async def test_old_keys_can_be_purged(database, sql):
    """Keys older than a day are found by an index, and only they are deleted."""
    for key in ("old", "new"):
        await create_once(database, KETTLE, key=key, fingerprint=b"f")
    await sql.execute(
        "UPDATE idempotency_keys SET created_at = now() - interval '25 hours' WHERE key = $1", f"{KEY_PREFIX}old"
    )
    purge = "DELETE FROM idempotency_keys WHERE created_at < now() - interval '24 hours'"

    await sql.execute("SET enable_seqscan = off")
    plan = await sql.fetch(f"EXPLAIN {purge}")
    await sql.execute(purge)

    assert any("ix_idempotency_keys_created_at" in row[0] for row in plan)
    assert [f"{KEY_PREFIX}new"] == [row["key"] for row in await sql.fetch("SELECT key FROM idempotency_keys")]
