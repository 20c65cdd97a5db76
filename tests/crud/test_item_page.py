import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.crud import item as items
from app.crud import item_page
from app.database.statements import StatementCompiler

FILTERS = st.fixed_dictionaries(
    {"is_active": st.none() | st.booleans(), "q": st.none() | st.sampled_from(["a", "B", "%", "_", "\\", "ab"])}
)
NAMES = st.text(st.sampled_from("aAbB%_\\"), min_size=1, max_size=4)
CHANGES = st.lists(
    st.tuples(st.just("add"), NAMES) | st.tuples(st.just("remove") | st.just("rename"), st.integers(0, 100)), max_size=4
)
shared = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


async def fill(sql, names):
    """Replace all items by these; every second one is active."""
    await sql.execute("TRUNCATE items")
    await sql.executemany(
        "INSERT INTO items (name, is_active) VALUES ($1, $2)", [(name, i % 2 == 0) for i, name in enumerate(names)]
    )
    return {row["id"]: row for row in await sql.fetch("SELECT id, name, is_active FROM items")}


def matches(row, is_active, q):
    """Whether an item matches the filters."""
    return is_active in (None, row["is_active"]) and (q is None or q.lower() in row["name"].lower())


@shared
@given(
    names=st.lists(NAMES, max_size=12), limit=st.integers(1, 5), filters=FILTERS, changes=st.lists(CHANGES, max_size=12)
)
async def test_pages_by_cursor_return_every_item_once(database, sql, names, limit, filters, changes):  # noqa: PLR0917  # by name
    """Items that match all the time are returned exactly once, in order, whatever else is written meanwhile."""
    rows = await fill(sql, names)
    throughout = {item_id for item_id, row in rows.items() if matches(row, **filters)}
    seen = []
    last, has_more = 0, True
    while has_more:
        page = await item_page.page_after(database, last, limit=limit, **filters)
        assert len(page.items) <= limit
        assert all(matches({"name": item.name, "is_active": item.is_active}, **filters) for item in page.items)
        seen += [item.id for item in page.items]
        last, has_more = seen[-1] if seen else 0, page.has_more
        for kind, value in changes.pop() if changes else []:
            if kind == "add":
                await items.create(database, {"name": value})
            elif rows:
                item_id = list(rows)[value % len(rows)]
                throughout.discard(item_id)
                del rows[item_id]
                if kind == "remove":
                    await items.delete_permanently(database, item_id)
                else:
                    await items.change(database, item_id, {"name": "Z"})

    assert seen == sorted(set(seen))
    assert throughout <= set(seen)


@shared
@given(names=st.lists(NAMES, max_size=12), limit=st.integers(1, 5), filters=FILTERS)
async def test_pages_by_number_are_the_matches_in_order(database, sql, names, limit, filters):
    """All pages together are the matching items in order, and each page has their exact number."""
    rows = await fill(sql, names)
    expected = sorted(item_id for item_id, row in rows.items() if matches(row, **filters))

    for offset in range(0, len(expected) + limit, limit):
        page = await item_page.page(database, limit=limit, offset=offset, count_exactly=False, **filters)
        assert expected[offset : offset + limit] == [item.id for item in page.items]
        assert (len(expected), True) == (page.total, page.total_is_exact)
        assert (offset + limit < len(expected)) == page.has_more


@pytest.mark.parametrize("count_exactly", [True, False])
async def test_counting_stops_at_the_count_limit(database, sql, count_exactly):
    """The server counts 1,001 rows at most, unless the exact number is requested."""
    await sql.execute("INSERT INTO items (name) SELECT 'Kettle' FROM generate_series(1, 5000)")
    await sql.execute("ANALYZE items")

    page = await item_page.page(database, limit=1, offset=0, is_active=None, q=None, count_exactly=count_exactly)

    compiled = StatementCompiler().compile(item_page._page(None, count_exactly, newest_first=False))
    plan = "\n".join(
        row[0]
        for row in await sql.fetch(
            f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {compiled.sql}", *compiled.values({"limit": 2, "offset": 0})
        )
    )
    assert (5000, count_exactly) == (page.total, page.total_is_exact)
    assert ("rows=5000" in plan) == count_exactly, plan
