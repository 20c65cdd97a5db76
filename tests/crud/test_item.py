import asyncio
import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest

from app.crud import item as items
from app.crud import item_idempotency, item_page
from app.errors import ItemNotFoundError, PreconditionFailedError
from tests.databases import connected
from tests.paths import ROOT
from tests.proxy import proxied

KETTLE = {"name": "Kettle", "description": "Boils a litre.", "price": 34.5, "is_active": False}


def set_by_client(item):
    """The item's columns that a client may set."""
    return {name: getattr(item, name) for name in KETTLE}


def test_it_works_without_fastapi():
    """A script that uses crud loads neither FastAPI nor Starlette nor Pydantic."""
    script = """if True:
        import sys
        import app.crud.item, app.crud.item_idempotency, app.crud.item_page, app.database, app.models.item
        print(*{name.partition(".")[0] for name in sys.modules} & {"fastapi", "starlette", "pydantic", "pydantic_core"})
    """

    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)

    assert "" == done.stdout.strip()


async def test_each_operation_is_one_round_trip(database_url):
    """Every operation is one statement and waits for the server once."""
    async with proxied(database_url) as proxy, connected(proxy.url, connections=1) as database:

        async def all_operations():
            item = await items.create(database, KETTLE)
            version = {"versions": [item.updated_at]}
            yield await items.create(database, {"name": "Pan"})
            yield await items.get(database, item.id)
            yield await items.change(database, item.id, {"price": 1.5}, **version)
            yield await items.change(database, item.id, KETTLE)
            yield await items.deactivate(database, item.id)
            for is_active, q in [(None, None), (True, None), (None, "e"), (False, "e")]:
                for exactly in (False, True):
                    yield await item_page.page(
                        database, limit=2, offset=0, is_active=is_active, q=q, count_exactly=exactly
                    )
                yield await item_page.page_after(database, 0, limit=2, is_active=is_active, q=q)
            yield await item_idempotency.create_once(database, KETTLE, key="k", fingerprint=b"f")
            yield await items.delete_permanently(database, item.id)

        async for _ in all_operations():  # prepares the statements
            pass
        await items.create(database, KETTLE)
        before = proxy.round_trips
        counted = 1 + len([operation async for operation in all_operations()])

    assert counted == proxy.round_trips - before >= 20


async def test_a_created_item_is_read_back(database):
    """It has the given values; columns that are left out have the table's defaults."""
    item = await items.create(database, KETTLE)
    bare = await items.create(database, {"name": "Pan"})

    assert KETTLE == set_by_client(item)
    assert item == await items.get(database, item.id)
    assert {"name": "Pan", "description": None, "price": None, "is_active": True} == set_by_client(bare)
    assert item.created_at == item.updated_at


@pytest.mark.parametrize("changes", [{"name": "Pan"}, {"price": None, "is_active": True}, {"price": 0.29}, KETTLE])
async def test_a_change_overwrites_the_named_columns(database, changes):
    """Named columns change, also to null, the others stay, and the version becomes later."""
    item = await items.create(database, KETTLE)

    changed = await items.change(database, item.id, changes)

    assert KETTLE | changes == set_by_client(changed)
    assert changed == await items.get(database, item.id)
    assert (item.id, item.created_at) == (changed.id, changed.created_at)
    assert changed.updated_at > item.updated_at


async def test_a_version_becomes_later_when_the_clock_has_gone_back(database, sql):
    """Every write makes the version later, by at least a microsecond."""
    item = await items.create(database, {"name": "Kettle"})
    await sql.execute("UPDATE items SET updated_at = now() + interval '1 day'")
    ahead = await items.get(database, item.id)

    changed = await items.change(database, item.id, {"price": 1})
    inactive = await items.deactivate(database, item.id)

    assert [timedelta(microseconds=1)] * 2 == [
        changed.updated_at - ahead.updated_at,
        inactive.updated_at - changed.updated_at,
    ]


async def test_deactivating_an_inactive_item_changes_nothing(database):
    """The item stays the same, and so does its version."""
    item = await items.create(database, {"name": "Kettle"})

    once = await items.deactivate(database, item.id)
    twice = await items.deactivate(database, item.id)

    assert not once.is_active
    assert once == twice == await items.get(database, item.id)


async def test_a_permanent_deletion_returns_the_deleted_item(database):
    """The row is deleted, and its last state is returned."""
    item = await items.create(database, KETTLE)

    assert item == await items.delete_permanently(database, item.id)

    with pytest.raises(ItemNotFoundError):
        await items.get(database, item.id)


WRITES = {
    "change": lambda database, item_id, **guard: items.change(database, item_id, {"name": "Pan"}, **guard),
    "deactivate": items.deactivate,
    "delete": items.delete_permanently,
}
each_write = pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)


@each_write
async def test_a_guarded_write_needs_one_of_its_versions(database, write):
    """It succeeds if the current version is among them; otherwise it is refused and changes nothing."""
    item = await items.create(database, {"name": "Kettle"})
    stale = item.updated_at - timedelta(microseconds=1)

    for versions in ([], [stale]):
        with pytest.raises(PreconditionFailedError):
            await write(database, item.id, versions=versions)
    assert item == await items.get(database, item.id)

    await write(database, item.id, versions=[stale, item.updated_at])


@each_write
async def test_a_write_to_a_missing_item_is_refused(database, write):
    """The item is not found, whatever versions are expected."""
    other = await items.create(database, {"name": "Kettle"})

    for versions in (None, [], [other.updated_at]):
        with pytest.raises(ItemNotFoundError):
            await write(database, 99, versions=versions)


@each_write
async def test_exactly_one_of_concurrent_guarded_writes_succeeds(database, write):
    """Of 20 writes that expect the same version, one succeeds."""
    for _ in range(5):
        item = await items.create(database, {"name": "Kettle"})

        ends = await asyncio.gather(
            *(write(database, item.id, versions=[item.updated_at]) for _ in range(20)), return_exceptions=True
        )

        kinds = [type(end).__name__ for end in ends]
        assert 1 == kinds.count("Item")
        assert 19 == kinds.count("PreconditionFailedError") + kinds.count("ItemNotFoundError")


async def test_concurrent_changes_of_different_columns_all_succeed(database):
    """Changes that are not guarded overwrite their own columns and no others."""
    item = await items.create(database, {"name": "Kettle"})
    changes: list[dict[str, Any]] = [{"name": "Pan"}, {"description": "Flat."}, {"price": 1.5}, {"is_active": False}]

    written = await asyncio.gather(*(items.change(database, item.id, change) for change in changes))

    assert {"name": "Pan", "description": "Flat.", "price": 1.5, "is_active": False} == set_by_client(
        await items.get(database, item.id)
    )
    assert 4 == len({one.updated_at for one in written})
