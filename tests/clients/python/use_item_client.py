"""Uses the items by the client that openapi-python-client generates. Its argument is the server's URL."""

import sys

from client import Client
from client.api.items import change_item, create_item, list_items, read_item, replace_item
from client.models import ItemCreate, ItemList, ItemRead, ItemReplace, ItemUpdate, Problem
from client.types import UNSET, Unset

client = Client(base_url=sys.argv[1])


def create(body: ItemCreate) -> ItemRead:
    """Create an item."""
    item = create_item.sync(client=client, body=body)
    assert isinstance(item, ItemRead)
    return item


created = create(ItemCreate(name="Kettle", price=9_999_999_999.99))
assert created.id == 2**63 - 3
assert created.price == 9_999_999_999.99
assert created.description is None
for name in ("Pan", "Pot"):
    create(ItemCreate(name=name, description="Made of steel."))

names = []
cursor: str | Unset | None = UNSET
while cursor is not None:
    page = list_items.sync(client=client, per_page=1, cursor=cursor)
    assert isinstance(page, ItemList)
    names += [item.name for item in page.items]
    cursor = page.next_cursor
assert names == ["Kettle", "Pan", "Pot"]

version = read_item.sync_detailed(created.id, client=client).headers["ETag"]
changed = change_item.sync(created.id, client=client, if_match=version, body=ItemUpdate(price=None))
assert isinstance(changed, ItemRead)
assert changed.price is None
assert changed.name == "Kettle"

late = replace_item.sync(created.id, client=client, if_match=version, body=ItemReplace(name="Jug"))
assert isinstance(late, Problem)
assert late.code == "precondition_failed"

missing = read_item.sync(1, client=client)
assert isinstance(missing, Problem)
assert missing.code == "item_not_found"
