import itertools

import pytest

from app import NAME
from app.crud import item_page
from app.crud.item_search import SCAN_LIMIT, has_trigram

ITEMS = SCAN_LIMIT + 2_500
"""More than the scan by id reads."""

LIMIT = 20

SEARCHES = [
    "kettle",  # in every second item: found by the scan
    "one of ten",  # in a tenth of them
    "quokka",  # in three items, one of them near the end: found by the index of trigrams
    "import",  # in the newest items only, which the scan does not reach
    "e", "T", "ж", "жq", "q.", "%", "'", "\\", "--", "zz", " ", "Ж ", "x-1", "a\\b", "nothing of that",
]  # fmt: skip


@pytest.fixture
async def names(sql):
    """Names by id; each 100th item is inactive."""
    await sql.execute(
        """
        INSERT INTO items (name, is_active)
        SELECT CASE WHEN n % 2 = 0 THEN 'Kettle' ELSE 'Pan' END || CASE WHEN n % 10 = 3 THEN ' one of ten' ELSE '' END
            || CASE WHEN n IN (77, 5000, $1 - 3) THEN ' Quokka жq. 5% a''b a\\b -- x-1 Ж' ELSE '' END
            || CASE WHEN n > $1 - 1500 THEN ' (import)' ELSE '' END, n % 100 <> 0
        FROM generate_series(1, $1) AS n
        """,
        ITEMS,
    )
    return {row["id"]: (row["name"].lower(), row["is_active"]) for row in await sql.fetch("SELECT * FROM items")}


def expected(names, q, is_active):
    """The ids that match, found by reading all names."""
    return [
        item_id
        for item_id, (name, active) in sorted(names.items())
        if q.lower() in name and is_active in (None, active)
    ]


@pytest.mark.parametrize("analyzed", [True, False])
async def test_a_search_finds_the_same_items_by_every_plan(database, sql, names, analyzed):
    """Page, deep page, page after a cursor and total are right, also with wrong statistics."""
    if analyzed:
        await sql.execute("ANALYZE items")
    for q, is_active in itertools.product(SEARCHES, [None, True, False]):
        ids = expected(names, q, is_active)
        for offset in (0, 60, 9_980):
            page = await item_page.page(
                database, limit=LIMIT, offset=offset, is_active=is_active, q=q, count_exactly=False
            )
            assert ids[offset : offset + LIMIT] == [item.id for item in page.items], (q, is_active, offset)
            assert (offset + LIMIT < len(ids)) == page.has_more, (q, is_active, offset)
            assert page.total_is_exact == (len(ids) <= item_page.COUNT_LIMIT), (q, is_active, offset)
            assert page.total == len(ids) or (len(ids) > 1000 and (page.total or 0) > 1000), (q, is_active, offset)
        for after in (0, ITEMS // 2, ITEMS - 200):
            page = await item_page.page_after(database, after, limit=LIMIT, is_active=is_active, q=q)
            following = [item_id for item_id in ids if item_id > after]
            assert following[:LIMIT] == [item.id for item in page.items], (q, is_active, after)
            assert (len(following) > LIMIT) == page.has_more, (q, is_active, after)


@pytest.mark.parametrize(("q", "is_active"), [("kettle", None), ("e", True), ("quokka", None), ("import", False)])
async def test_all_matches_are_counted_on_request(database, names, q, is_active):
    """With `count_exactly` the total is the exact number."""
    page = await item_page.page(database, limit=1, offset=0, is_active=is_active, q=q, count_exactly=True)

    assert (len(expected(names, q, is_active)), True) == (page.total, page.total_is_exact)


@pytest.mark.parametrize(
    ("q", "index"),
    [
        pytest.param("quokka", "ix_items_name_trgm", marks=pytest.mark.needs("pg_trgm")),
        ("zz", "ix_items_letter_pairs"),
        ("--", "ix_items_letter_pairs"),
        ("q", "ix_items_letter_pairs"),
    ],
)
async def test_a_search_with_few_matches_uses_an_index(database, sql, names, q, index):
    """It does not read the whole table, nor, for one or two letters, the whole trigram index."""
    await sql.execute("ANALYZE items")
    before = await used(sql)

    await item_page.page(database, limit=LIMIT, offset=0, is_active=None, q=q, count_exactly=False)

    after = await used(sql)
    assert {index} == {name for name, scans in after.items() if scans > before[name]} - {"pk_items"}
    assert before["the whole table"] == after["the whole table"]


async def used(sql):
    """How often each index was used, and the whole table read, so far."""
    await sql.execute("SELECT pg_stat_force_next_flush()")
    for pid in await sql.fetch(
        f"SELECT pid FROM pg_stat_activity WHERE application_name = '{NAME}' AND datname = current_database()"
    ):
        await sql.execute(f"SELECT pg_terminate_backend({pid['pid']}, 1000)")
    rows = await sql.fetch(
        "SELECT indexrelname AS name, idx_scan AS scans FROM pg_stat_user_indexes WHERE relname = 'items' "
        "UNION ALL SELECT 'the whole table', seq_scan FROM pg_stat_user_tables WHERE relname = 'items'"
    )
    return {row["name"]: row["scans"] for row in rows}


@pytest.mark.parametrize(
    ("q", "found"),
    [
        ("abc", True),
        ("1st", True),
        ("Жук", True),
        ("a b cde", True),
        ("ab", False),
        ("ab-cd", False),
        ("a_b", False),
        ("---", False),
        ("", False),
    ],
)
def test_three_letters_or_digits_in_a_row_make_a_trigram(q, found):
    """Other texts cannot be found by the trigram index."""
    assert found == has_trigram(q)
