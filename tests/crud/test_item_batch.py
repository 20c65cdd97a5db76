import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from app.crud import item as items
from app.crud.item_batch import create_many, create_many_once
from app.crud.item_idempotency import KEY_PREFIX, create_once
from app.errors import IdempotencyKeyReusedError, InvalidFieldError, RequestError

KETTLE: dict[str, Any] = {
    "name": "Kettle",
    "description": 'Boils\na "litre" \\ of 🫖.',
    "price": 0.29,
    "is_active": False,
}
PAN: dict[str, Any] = {"name": "Pan", "description": None, "price": None, "is_active": True}
BAD = PAN | {"name": ""}

rows = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.text(
                st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=255
            ),
            "description": st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
            "price": st.none() | st.integers(0, 999_999_999_999).map(lambda cents: cents / 100),
            "is_active": st.booleans(),
        }
    ),
    min_size=1,
    max_size=20,
)


def content(item: Any) -> Mapping[str, Any]:
    """What a client has set."""
    return {name: getattr(item, name) for name in KETTLE}


@hypothesis_settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows)
async def test_items_are_returned_in_the_order_of_the_rows(database, rows):
    """Each item has the values of its row, exactly, and ids ascend. What is returned is what is stored."""
    created = await create_many(database, rows)

    assert rows == [content(item) for item in created]
    assert sorted(item.id for item in created) == [item.id for item in created]
    assert created[-1] == await items.get(database, created[-1].id)
    assert await create_many_once(database, rows, key=f"k{created[0].id}", fingerprint=b"f") != (created, True)


async def test_equal_rows_make_as_many_items(database, sql):
    """There may be equal items, in one batch too."""
    created = await create_many(database, [KETTLE] * 500)

    assert 500 == len({item.id for item in created}) == await sql.fetchval("SELECT count(*) FROM items")


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("create", [create_many, partial(create_many_once, key="k", fingerprint=b"f")])
async def test_one_bad_row_makes_none(database, sql, place, create):
    """A row that breaks a constraint is refused as that of one item is, and no other row or key is stored."""
    batch = [KETTLE, PAN]
    batch.insert(place, BAD)

    with pytest.raises(InvalidFieldError) as refused:
        await create(database, batch)

    assert [{"field": "name", "message": "must have 1 to 255 characters"}] == refused.value.errors
    assert 0 == await sql.fetchval("SELECT (SELECT count(*) FROM items) + (SELECT count(*) FROM idempotency_keys)")


async def test_a_second_call_returns_the_items_of_the_first(database, sql):
    """The first call creates the items; the second returns them as they were created, whatever became of them."""
    created, is_first_replay = await create_many_once(database, [PAN, KETTLE, PAN], key="k", fingerprint=b"f")
    await items.change(database, created[0].id, {"name": "Pot"})
    await items.delete_permanently(database, created[1].id)
    again, is_replay = await create_many_once(database, [PAN, KETTLE, PAN], key="k", fingerprint=b"f")

    assert (False, True) == (is_first_replay, is_replay)
    assert created == again
    assert [PAN, KETTLE, PAN] == [content(item) for item in created]
    assert 2 == await sql.fetchval("SELECT count(*) FROM items")


async def test_a_key_belongs_to_one_request_of_either_kind(database, sql):
    """A key that has created one item creates no batch, and the other way round. Another owner's key is another one."""
    await create_once(database, PAN, key="one", fingerprint=b"f")
    await create_many_once(database, [PAN], key="many", fingerprint=b"g")

    with pytest.raises(IdempotencyKeyReusedError):
        await create_many_once(database, [PAN], key="one", fingerprint=b"g")
    with pytest.raises(IdempotencyKeyReusedError):
        await create_once(database, PAN, key="many", fingerprint=b"f")
    with pytest.raises(IdempotencyKeyReusedError):
        await create_many_once(database, [KETTLE], key="many", fingerprint=b"h")
    assert not (await create_many_once(database, [PAN], key="many", fingerprint=b"g", owner="ann"))[1]
    assert 3 == await sql.fetchval("SELECT count(*) FROM items")


async def test_an_expired_key_creates_new_items(database, sql):
    """After a day the key is unused, and then it is that of the new items."""
    first, _ = await create_many_once(database, [PAN, PAN], key="k", fingerprint=b"f")
    await sql.execute("UPDATE idempotency_keys SET created_at = now() - interval '24 hours 1 second'")

    second, is_replay = await create_many_once(database, [KETTLE], key="k", fingerprint=b"g")

    assert (False, {first[0].id, first[1].id} & {second[0].id}) == (is_replay, set())
    assert (second, True) == await create_many_once(database, [KETTLE], key="k", fingerprint=b"g")


@pytest.mark.parametrize("outcome", ["commit", "rollback"])
async def test_a_retry_waits_for_the_first(database, sql, outcome):
    """It then returns the first one's items, or creates them if the first has failed."""
    transaction = sql.transaction()
    await transaction.start()
    await sql.execute(
        "INSERT INTO idempotency_keys VALUES"
        ' ($1, \'f\', \'{"first_id": 7, "batch": [{"id": 7, "name": "First", "is_active": true}]}\', now())',
        f"{KEY_PREFIX}k",
    )
    retry = asyncio.create_task(create_many_once(database, [PAN, PAN], key="k", fingerprint=b"f"))
    async with asyncio.timeout(20):
        while not await sql.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert not retry.done()

    await getattr(transaction, outcome)()

    created, is_replay = await retry
    assert is_replay == (outcome == "commit")
    assert (["First"] if is_replay else ["Pan", "Pan"]) == [item.name for item in created]


async def test_concurrent_calls_with_one_key_create_the_items_once(database, sql):
    """One call creates them, the others return them."""
    results = await asyncio.gather(
        *(create_many_once(database, [PAN, KETTLE], key="k", fingerprint=b"f") for _ in range(10))
    )

    assert 9 == sum(is_replay for _, is_replay in results)
    assert all(created == results[0][0] for created, _ in results)
    assert 2 == await sql.fetchval("SELECT count(*) FROM items")


async def test_a_batch_is_one_statement_of_a_transaction_too(database, sql):
    """In a transaction it is rolled back with it."""

    async def create_and_fail() -> None:
        async with database.transaction() as transaction:
            await create_many(transaction, [PAN, PAN])
            raise RequestError

    with pytest.raises(RequestError):
        await create_and_fail()
    assert 0 == await sql.fetchval("SELECT count(*) FROM items")
