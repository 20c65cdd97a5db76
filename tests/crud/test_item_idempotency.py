import asyncio

import pytest

from app.crud import item as items
from app.crud.item_idempotency import create_once
from app.errors import IdempotencyKeyReusedError

KETTLE = {"name": "Kettle", "description": 'Boils\na "litre" \\ of 🫖.', "price": 0.29, "is_active": False}


async def test_the_first_call_makes_and_the_next_repeats(database):
    """The first call stores the item; the same one again returns it as it was made, to the microsecond."""
    made, was_made_before = await create_once(database, KETTLE, key="k", fingerprint=b"f")
    again, is_replay = await create_once(database, KETTLE, key="k", fingerprint=b"f")

    assert (False, True) == (was_made_before, is_replay)
    assert made == again == await items.get(database, made.id)
    assert KETTLE == {name: getattr(made, name) for name in KETTLE}


async def test_another_fingerprint_is_refused(database):
    """A key belongs to one content."""
    await create_once(database, KETTLE, key="k", fingerprint=b"f")

    with pytest.raises(IdempotencyKeyReusedError):
        await create_once(database, KETTLE, key="k", fingerprint=b"g")


async def test_key_and_item_are_stored_together_or_not_at_all(database, sql):
    """Where the item cannot be stored, the key is not kept either: a retry may succeed."""
    with pytest.raises(Exception, match="name_length"):
        await create_once(database, KETTLE | {"name": ""}, key="k", fingerprint=b"f")

    assert 0 == await sql.fetchval("SELECT count(*) FROM idempotency_keys")
    assert not (await create_once(database, KETTLE, key="k", fingerprint=b"f"))[1]


async def test_a_retry_waits_for_the_first(database, sql):
    """A call whose key is being stored at the moment waits for it, and then returns that item."""
    transaction = sql.transaction()
    await transaction.start()
    await sql.execute(
        'INSERT INTO idempotency_keys VALUES (\'k\', \'f\', \'{"id": 7, "name": "First", "is_active": true}\', now())'
    )
    retry = asyncio.create_task(create_once(database, KETTLE, key="k", fingerprint=b"f"))
    await asyncio.sleep(0.2)
    assert not retry.done()

    await transaction.commit()

    item, is_replay = await retry
    assert (7, "First", True) == (item.id, item.name, is_replay)


async def test_a_retry_of_a_first_that_fails_becomes_the_first(database, sql):
    """When the request that is waited for does not come to its end, the retry makes the item."""
    transaction = sql.transaction()
    await transaction.start()
    await sql.execute("INSERT INTO idempotency_keys VALUES ('k', 'f', '{\"id\": 7}', now())")
    retry = asyncio.create_task(create_once(database, KETTLE, key="k", fingerprint=b"f"))
    await asyncio.sleep(0.1)

    await transaction.rollback()

    item, is_replay = await retry
    assert not is_replay
    assert item == await items.get(database, item.id)


async def test_old_keys_can_be_purged(database, sql):
    """Keys of more than a day are found by an index, and removing them forgets nothing that still counts."""
    for key in ("old", "new"):
        await create_once(database, KETTLE, key=key, fingerprint=b"f")
    await sql.execute("UPDATE idempotency_keys SET created_at = now() - interval '25 hours' WHERE key = 'old'")
    purge = "DELETE FROM idempotency_keys WHERE created_at < now() - interval '24 hours'"

    await sql.execute("SET enable_seqscan = off")
    plan = await sql.fetch(f"EXPLAIN {purge}")
    await sql.execute(purge)

    assert any("ix_idempotency_keys_created_at" in row[0] for row in plan)
    assert ["new"] == [row["key"] for row in await sql.fetch("SELECT key FROM idempotency_keys")]
