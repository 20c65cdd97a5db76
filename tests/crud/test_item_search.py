import itertools
import json

import pytest

from app import NAME
from app.crud import item_page, item_search
from app.crud.item_search import SCAN_LIMIT
from app.database.statements import StatementCompiler
from app.errors import SearchTooBroadError

ITEMS = SCAN_LIMIT + 2_500
"""More than the scan by id reads."""

LIMIT = 20

SEARCHES = [
    "kettle",  # in every second item: found by the scan
    "one of ten",  # in a tenth of them
    "quokka",  # in three items, one of them near the end: found by the index
    "import",  # in the newest items only, which the scan does not reach
    "e", "T", "ж", "жq", "q.", "%", "'", "\\", "--", "zz", " ", "Ж ", "x-1", "a\\b", "nothing of that",
    "e t", "ttle o", "TLE  ", "nettek", "kettle (import)", "pan one of ten pan",
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


@pytest.mark.parametrize("q", ["quokka", "zz", "--", "q", "e z"])
async def test_a_search_with_few_matches_uses_the_index(database, sql, names, q):
    """The index finds texts of any length, and white space and punctuation, without reading the whole table."""
    await sql.execute("ANALYZE items")
    before = await used(sql)

    await item_page.page(database, limit=LIMIT, offset=0, is_active=None, q=q, count_exactly=False)

    after = await used(sql)
    assert {"ix_items_letter_triples"} == {name for name, scans in after.items() if scans > before[name]} - {"pk_items"}
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


LIMITS = {
    "SCAN_LIMIT": 200, "LONG_SCAN_LIMIT": 400, "CANDIDATE_LIMIT": 300, "ENTRY_LIMIT": 2500, "READ_LIMIT": 6000,
}  # fmt: skip


@pytest.fixture(params=[2500, 100], ids=["with the index", "without the index"])
def low_limits(monkeypatch, request):
    """Limits that a small table exceeds. The index can be used for a text with 2,500 entries, or with 100."""
    for name, limit in {**LIMITS, "ENTRY_LIMIT": request.param}.items():
        monkeypatch.setattr(item_search, name, limit)
    statements = (item_page._searched, item_page._searched_after)
    for statement in statements:
        statement.cache_clear()
    yield
    for statement in statements:
        statement.cache_clear()


@pytest.fixture
async def permuted(sql):
    """The ids of "knife bread". Each 60th name contains it; the others only have all of its parts, in another order."""
    await sql.execute(
        "INSERT INTO items (name) SELECT CASE WHEN n % 60 = 0 THEN 'knife bread ' ELSE 'e bread knife e ' END || n"
        " FROM generate_series(1, 2400) AS n"
    )
    await sql.execute("ANALYZE items")
    return [row["id"] for row in await sql.fetch("SELECT id FROM items WHERE name LIKE 'knife bread%' ORDER BY id")]


BROAD = ["knife bread", "fe bre", "fe br", "e", "e ", " ", "ee", "bread knife e 9", "00", "e bread knife e bread", "zz"]


@pytest.mark.parametrize("q", BROAD)
async def test_a_search_reads_a_bounded_number_of_items(sql, low_limits, permuted, q):
    """No part of the statement reads more items than its limit, whatever is searched."""
    for statement, position in [
        (item_page._searched(None, False), {"offset": 0}),
        (item_page._searched(True, False), {"offset": 1000}),
        (item_page._searched_after(None), {"item_id": 500}),
        (item_page._searched_after(False), {"item_id": 0}),
    ]:
        read = await rows_read(sql, statement, {**item_page._parameters(q), **position})

        assert read.pop("Bitmap Heap Scan") <= LIMITS["CANDIDATE_LIMIT"] + 1, (q, position)
        # One more, to know whether there are more.
        assert read.pop("Index Scan", 0) <= LIMITS["LONG_SCAN_LIMIT"] + 1, (q, position)
        assert read.pop("Index Only Scan", 0) <= LIMITS["LONG_SCAN_LIMIT"] + 1, (q, position)
        assert {} == read, (q, position)


@pytest.mark.parametrize("low_limits", [2500], indirect=True)
async def test_a_page_that_the_scan_cannot_reach_is_not_scanned_for(sql, low_limits, permuted):
    """By the estimate of the index, the scanned items have too few matches before the page."""
    parameters = item_page._parameters("knife bread")

    first = await rows_read(sql, item_page._searched(None, False), {**parameters, "offset": 0})
    deep = await rows_read(sql, item_page._searched(None, False), {**parameters, "offset": 1000})

    assert (LIMITS["SCAN_LIMIT"], 0) == (first["Index Scan"], deep["Index Scan"])
    assert LIMITS["CANDIDATE_LIMIT"] + 1 == deep["Bitmap Heap Scan"]


async def rows_read(sql, statement, parameters):
    """How many rows of the items each kind of scan has read."""
    compiled = StatementCompiler().compile(statement)
    values = compiled.values({**parameters, "limit": LIMIT})
    plan = await sql.fetchval(f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {compiled.sql}", *values)
    read: dict[str, int] = {}
    for node in nodes(json.loads(plan)[0]["Plan"]):
        if node.get("Relation Name") == "items":
            removed = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
            rows = (node["Actual Rows"] + removed) * node["Actual Loops"]
            read[node["Node Type"]] = max(read.get(node["Node Type"], 0), rows)
    return read


async def test_common_parts_of_a_text_are_not_looked_up(sql):
    """The index reads no more entries than the limit, except for the rarest part of the text, and finds the same."""
    await sql.execute(
        "INSERT INTO items (name) SELECT CASE WHEN n % 300 = 0 THEN 'Quokka' ELSE 'Kettle' END || ' of red copper'"
        " FROM generate_series(1, 6000) AS n"
    )
    await sql.execute("VACUUM (ANALYZE) items")  # also empties the list of pending entries
    explain = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT FROM items WHERE letter_triples(name) @@ "
    q, read = "Quokka of red copper", []
    for limit in (1_000_000, 8_000, 0):
        plan = await sql.fetchrow("SELECT * FROM bounded_items_search(NULL, $1, $1, $2)", q, limit)
        explained = json.loads(await sql.fetchval(explain + f"CAST($${plan['query']}$$ AS tsquery)"))
        scan = next(node for node in nodes(explained[0]["Plan"]) if node["Node Type"] == "Bitmap Index Scan")
        read.append((plan["query"].count("&") + 1, scan["Shared Hit Blocks"] + scan["Shared Read Blocks"]))
        assert (20, True) == (scan["Actual Rows"], plan["entries"] < 50), plan

    ((all_parts, most), (some_parts, fewer), (one_part, fewest)) = read
    assert all_parts > some_parts > one_part == 1
    assert most > 2 * fewer > 2 * fewest


def nodes(plan):
    """All nodes of a plan."""
    yield plan
    for part in plan.get("Plans", ()):
        yield from nodes(part)


async def test_a_page_that_is_not_found_within_the_limits_is_refused(database, low_limits, permuted):
    """Neither a page nor a page after a cursor is answered with fewer items than there are, unless it can continue."""
    with pytest.raises(SearchTooBroadError):
        await item_page.page(database, limit=LIMIT, offset=0, is_active=None, q="knife bread", count_exactly=False)
    with pytest.raises(SearchTooBroadError):
        await item_page.page_after(database, 0, limit=LIMIT, is_active=None, q="bread knife bread")

    page = await item_page.page(database, limit=LIMIT, offset=0, is_active=None, q="knife bread", count_exactly=True)
    assert (permuted[:LIMIT], len(permuted)) == ([item.id for item in page.items], page.total)


async def test_cursors_return_every_match_of_a_broad_search(database, low_limits, permuted):
    """A page after a cursor can be short. The next one continues, and every match is returned once."""
    found: list[int] = []
    has_more, lengths = True, set()
    while has_more:
        after = found[-1] if found else 0
        page = await item_page.page_after(database, after, limit=LIMIT, is_active=None, q="knife bread")
        found += [item.id for item in page.items]
        has_more = page.has_more
        lengths.add(len(page.items))

    assert permuted == found
    assert max(lengths) < LIMIT


async def test_a_total_that_is_not_counted_within_the_limits_is_an_estimate(database, low_limits, permuted):
    """The page is complete, and its total is marked as an estimate."""
    page = await item_page.page(database, limit=2, offset=0, is_active=None, q="knife bread", count_exactly=False)

    assert permuted[:2] == [item.id for item in page.items]
    assert page.has_more
    assert not page.total_is_exact
