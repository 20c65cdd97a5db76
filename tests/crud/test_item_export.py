from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.crud import item as items
from app.crud import item_export
from app.crud.item_export import CHUNK_BYTES, CHUNK_ROWS, SCAN_ROWS, chunk_after
from app.errors import ItemNotFoundError

START = -(2**63)

FILTERS = st.fixed_dictionaries(
    {"is_active": st.none() | st.booleans(), "q": st.none() | st.sampled_from(["a", "B", "%", "_", "\\", "ab"])}
)
NAMES = st.text(st.sampled_from("aAbB%_\\"), min_size=1, max_size=4)
CHANGES = st.lists(
    st.tuples(st.just("add"), NAMES) | st.tuples(st.just("remove") | st.just("rename"), st.integers(0, 100)), max_size=4
)


@pytest.fixture
def small_chunks(monkeypatch):
    """Chunks of three items, of at most seven that are read."""
    monkeypatch.setattr(item_export, "CHUNK_ROWS", 3)
    monkeypatch.setattr(item_export, "SCAN_ROWS", 7)
    item_export._chunk.cache_clear()
    yield
    item_export._chunk.cache_clear()


async def chunks(database, **filters):
    """All chunks, from the first to the last."""
    position: int | None = START
    while position is not None:
        chunk = await chunk_after(database, position, **filters)
        assert chunk.position is None or chunk.position > position
        yield chunk
        position = chunk.position


def matches(row, is_active, q):
    """Whether an item matches the filters."""
    return is_active in (None, row["is_active"]) and (q is None or q.lower() in row["name"].lower())


@pytest.mark.usefixtures("small_chunks")
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(NAMES, max_size=20), filters=FILTERS, changes=st.lists(CHANGES, max_size=12))
async def test_every_item_is_exported_once(database, sql, names, filters, changes):
    """Items that match all the time are exported exactly once, in order, whatever else is written meanwhile."""
    await sql.execute("TRUNCATE items")
    await sql.executemany(
        "INSERT INTO items (name, is_active) VALUES ($1, $2)", [(name, i % 2 == 0) for i, name in enumerate(names)]
    )
    rows = {row["id"]: row for row in await sql.fetch("SELECT id, name, is_active FROM items")}
    throughout = {item_id for item_id, row in rows.items() if matches(row, **filters)}
    seen = []
    async for chunk in chunks(database, **filters):
        assert len(chunk.rows) <= 3
        assert all(matches({"name": item.name, "is_active": item.is_active}, **filters) for item in chunk.rows)
        seen += [item.id for item in chunk.rows]
        for kind, value in changes.pop() if changes else []:
            if kind == "add":
                await items.create(database, {"name": value})
            elif rows:
                item_id = list(rows)[value % len(rows)]
                throughout.discard(item_id)
                with suppress(ItemNotFoundError):
                    if kind == "remove":
                        await items.delete_permanently(database, item_id)
                    else:
                        await items.change(database, item_id, {"name": "Z"})

    assert sorted(set(seen)) == seen
    assert throughout <= set(seen)


async def test_an_export_goes_on_where_few_items_match(database, sql):
    """A statement reads a bounded number of items, and the next one goes on behind them until the last item."""
    await sql.execute(
        "INSERT INTO items (name, is_active) SELECT CASE WHEN n % 15000 = 0 THEN 'Quokka' ELSE 'Kettle' END, n > 1 "
        "FROM generate_series(1, 35000) AS n"
    )
    found = [chunk async for chunk in chunks(database, is_active=None, q="quokk")]
    inactive = [item.id async for chunk in chunks(database, is_active=False, q=None) for item in chunk.rows]

    assert [15000, 30000] == [item.id for chunk in found for item in chunk.rows]
    assert [SCAN_ROWS, 2 * SCAN_ROWS, 3 * SCAN_ROWS, None] == [chunk.position for chunk in found]
    assert [1] == inactive


async def test_a_chunk_has_a_bounded_number_of_items_and_bytes(database, sql):
    """Of small items it has CHUNK_ROWS; of large ones as many as CHUNK_BYTES allow, and at least one."""
    await sql.execute(
        "INSERT INTO items (name, description) SELECT 'Kettle', CASE WHEN n > 1500 THEN repeat('é', 10000) END "
        "FROM generate_series(1, 1700) AS n"
    )
    for filters in ({"is_active": None, "q": None}, {"is_active": True, "q": "ettl"}):
        sizes = [
            (len(chunk.rows), sum(len((item.description or "").encode()) for item in chunk.rows))
            async for chunk in chunks(database, **filters)
        ]

        assert (CHUNK_ROWS, 0) == sizes[0]
        assert 1700 == sum(rows for rows, _ in sizes)
        assert CHUNK_BYTES - 20_000 < max(size for _, size in sizes) <= CHUNK_BYTES + 20_000


async def test_one_item_that_is_larger_than_a_chunk_is_exported(database, sql, monkeypatch):
    """The bound on the bytes never stops an export."""
    monkeypatch.setattr(item_export, "CHUNK_BYTES", 1)
    item_export._chunk.cache_clear()
    await sql.execute("INSERT INTO items (name) SELECT 'Kettle' FROM generate_series(1, 3)")
    exported = [[item.id for item in chunk.rows] async for chunk in chunks(database, is_active=None, q=None)]
    item_export._chunk.cache_clear()

    assert [[1], [2], [3], []] == exported
