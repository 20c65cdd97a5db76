import pytest

from app.crud import item as items
from app.crud import item_idempotency
from app.errors import InvalidFieldError


@pytest.mark.parametrize(
    ("values", "field"),
    [({"name": ""}, "name"), ({"description": "x" * 10_001}, "description"), ({"price": -1}, "price")],
)
async def test_a_constraint_of_items_names_its_field(database, values, field):
    """A script may pass crud a value that the HTTP API would have refused: the error names the field."""
    values = {"name": "Kettle", "description": None, "price": None, "is_active": True} | values
    item = await items.create(database, {"name": "Kettle"})

    for write in (
        items.create(database, values),
        items.change(database, item.id, values),
        items.change(database, item.id, values, versions=[item.updated_at]),
        item_idempotency.create_once(database, values, key="k", fingerprint=b"f"),
    ):
        with pytest.raises(InvalidFieldError) as raised:
            await write
        assert [field] == [error["field"] for error in raised.value.errors]
