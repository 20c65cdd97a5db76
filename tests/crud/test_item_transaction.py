import pytest

from app.crud import item as items
from app.crud import item_idempotency, item_page
from app.errors import ItemNotFoundError
from tests.databases import assert_all_connections_work

COUNT = "SELECT count(*) FROM items"


async def test_crud_works_in_a_transaction(database, sql):
    """Every operation runs in it, sees what the others have written, and is committed with them."""
    async with database.transaction() as transaction:
        kettle = await items.create(transaction, {"name": "Kettle"})
        pan, _ = await item_idempotency.create_once(
            transaction,
            {"name": "Pan", "description": None, "price": 1.5, "is_active": True},
            key="k",
            fingerprint=b"f",
        )
        kettle = await items.change(transaction, kettle.id, {"price": 2}, versions=[kettle.updated_at])
        kettle = await items.deactivate(transaction, kettle.id)
        assert kettle == await items.get(transaction, kettle.id)
        page = await item_page.page(transaction, limit=5, offset=0, is_active=None, q="a", count_exactly=True)
        assert [pan] == page.items
        after = await item_page.page_after(transaction, 0, limit=5, is_active=None, q=None)
        assert [kettle, pan] == after.items
        assert pan == await items.delete_permanently(transaction, pan.id)
        assert 0 == await sql.fetchval(COUNT)

    assert [(kettle.id, "Kettle", False)] == [
        tuple(row) for row in await sql.fetch("SELECT id, name, is_active FROM items")
    ]


async def test_crud_is_rolled_back_with_its_transaction(database, sql):
    """What crud has written before an error is gone, and its own errors roll back, too."""
    item = await items.create(database, {"name": "Kettle"})

    with pytest.raises(ItemNotFoundError):  # noqa: PT012  # a block fails at its end
        async with database.transaction() as transaction:
            await items.change(transaction, item.id, {"name": "Pan"})
            await items.create(transaction, {"name": "Pot"})
            await items.deactivate(transaction, 99)

    assert item == await items.get(database, item.id)
    assert 1 == await sql.fetchval(COUNT)
    await assert_all_connections_work(database)
