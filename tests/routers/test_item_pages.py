import pytest

from tests.answers import links, problem, refused_fields
from tests.routers.item_lists import fill, ids


async def test_a_page_has_the_documented_shape(client, sql):
    """A page has all documented members and whole items; its default size is 20."""
    await fill(sql, 21)

    page = (await client.get("/items")).json()

    assert ["items", "page", "per_page", "total", "total_is_exact", "pages", "next_cursor"] == list(page)
    assert (1, 20, 21, True, 2) == tuple(page[m] for m in ("page", "per_page", "total", "total_is_exact", "pages"))
    assert list(range(1, 21)) == [item["id"] for item in page["items"]]
    alone = await client.get("/items/1")
    assert page["items"][0] == alone.json() | {"etag": alone.headers["etag"]}
    assert page["next_cursor"]


async def test_an_empty_list_has_no_pages(client):
    """Without matches there are 0 pages and no cursor."""
    response = await client.get("/items")

    assert {
        "items": [], "page": 1, "per_page": 20, "total": 0, "total_is_exact": True, "pages": 0, "next_cursor": None,
    } == response.json()  # fmt: skip
    assert ["first"] == list(links(response))


async def test_items_are_listed_in_the_order_of_their_ids(client, sql):
    """Pages are in the order of the ids, whatever the order of the writes."""
    await fill(sql, 5)
    for item_id in (2, 4, 1):
        await client.patch(f"/items/{item_id}", json={"price": 1})

    assert [1, 2, 3, 4, 5] == ids(await client.get("/items"))
    assert [3, 4] == ids(await client.get("/items?page=2&per_page=2"))


async def test_a_page_past_the_end_is_empty(client, sql):
    """A page past the end is empty, has the total, and has no cursor."""
    await fill(sql, 3)

    past = (await client.get("/items?page=3&per_page=2")).json()

    assert ([], 3, 3, 2, None) == tuple(past[m] for m in ("items", "page", "total", "pages", "next_cursor"))


async def test_a_cursor_continues_after_the_page(client, sql):
    """Both kinds of page have a cursor. With `cursor`, page and totals are null; at the end the cursor is null."""
    await fill(sql, 5)
    page = (await client.get("/items?per_page=2")).json()

    second = (await client.get("/items", params={"per_page": 2, "cursor": page["next_cursor"]})).json()
    third = (await client.get("/items", params={"per_page": 2, "cursor": second["next_cursor"]})).json()

    assert list(page) == list(second)
    assert [3, 4] == [item["id"] for item in second["items"]]
    assert [5] == [item["id"] for item in third["items"]]
    for after in (second, third):
        assert [None] * 4 == [after[member] for member in ("page", "pages", "total", "total_is_exact")]
    assert third["next_cursor"] is None


async def test_a_full_last_page_has_no_cursor(client, sql):
    """The last page has no cursor, also if it is full."""
    await fill(sql, 4)

    page = (await client.get("/items?page=2&per_page=2")).json()

    assert [3, 4] == [item["id"] for item in page["items"]]
    assert page["next_cursor"] is None


async def test_a_cursor_works_after_its_item_is_deleted(client, sql):
    """A cursor is a position between ids: the item before it can be deleted."""
    await fill(sql, 5)
    page = (await client.get("/items?per_page=2")).json()
    await client.delete("/items/2?permanent=true")
    await client.delete("/items/3?permanent=true")

    assert [4, 5] == ids(await client.get("/items", params={"cursor": page["next_cursor"]}))


@pytest.mark.parametrize(
    ("query", "field"),
    [
        *(
            (f"page={value}", "page")
            for value in ("0", "-1", "", "1_0", "+1", "%201", "1.0", "a", "%D9%A1", "9" * 5000)
        ),
        *((f"per_page={value}", "per_page") for value in ("0", "101", "-1", "", "1_0", "1%00")),
        *((f"is_active={value}", "is_active") for value in ("1", "yes", "TRUE", "null")),
        *((f"count={value}", "count") for value in ("", "Exact", "true", "planned")),
        *((f"cursor={value}", "cursor") for value in ("", "1", "A" * 16, "A" * 65, "%00", "é")),
        ("q=%00", "q"),
        (f"q={'q' * 256}", "q"),
    ],
)
async def test_an_invalid_parameter_is_refused_by_name(client, query, field):
    """A parameter out of bounds or of another type is 422 and named."""
    assert {field} == refused_fields(await client.get(f"/items?{query}"))


async def test_a_page_number_with_a_cursor_is_refused(client, sql):
    """`page` together with `cursor` is 422, also if both are valid."""
    await fill(sql, 2)
    cursor = (await client.get("/items?per_page=1")).json()["next_cursor"]

    assert {"page"} == refused_fields(await client.get(f"/items?page=1&cursor={cursor}"))
    assert [2] == ids(await client.get(f"/items?cursor={cursor}"))


async def test_unknown_parameters_are_ignored(client):
    """Parameters that are not documented are ignored."""
    assert 200 == (await client.get("/items?colour=red&limit=0")).status_code


@pytest.mark.parametrize("per_page", [1, 100])
async def test_the_bounds_of_per_page_are_accepted(client, sql, per_page):
    """A page can have 1 and 100 items."""
    await fill(sql, 101)

    assert per_page == len(ids(await client.get(f"/items?per_page={per_page}")))


@pytest.mark.parametrize(("per_page", "deepest"), [(1, 10_001), (20, 501), (100, 101), (3, 3334)])
async def test_an_offset_is_limited(client, per_page, deepest):
    """10,000 rows can be skipped. Beyond, the response is 422 and names `cursor`."""
    assert [] == ids(await client.get(f"/items?per_page={per_page}&page={deepest}"))
    for page in (deepest + 1, 10**18):
        body = problem(await client.get(f"/items?per_page={per_page}&page={page}"), 422, "invalid_request")
        assert ["page"] == [error["field"] for error in body["errors"]]
        assert "`cursor`" in body["errors"][0]["message"]


@pytest.mark.parametrize("query", ["", "&is_active=true", "&q=item", "&q=item&is_active=true"])
async def test_a_total_is_exact_up_to_1000(client, sql, query):
    """1,000 matches are counted exactly. From 1,001 the total is marked as an estimate and greater than 1,000."""
    await fill(sql, 1000)
    thousand = (await client.get(f"/items?per_page=1{query}")).json()
    await fill(sql, 1)
    more = (await client.get(f"/items?per_page=1{query}")).json()
    exact = (await client.get(f"/items?per_page=1&count=exact{query}")).json()

    assert (1000, True, 1000) == (thousand["total"], thousand["total_is_exact"], thousand["pages"])
    assert more["total_is_exact"] is False
    assert more["total"] == more["pages"] > 1000
    assert (1001, True, 1001) == (exact["total"], exact["total_is_exact"], exact["pages"])


async def test_an_estimate_follows_the_statistics(client, sql):
    """Beyond 1,000 matches the total follows the table's statistics, with and without filters."""
    await fill(sql, 50_000, name="CASE WHEN n % 5 = 0 THEN 'Kettle' ELSE 'Pan' END", active="n % 10 = 0")

    for query, count in [("", 50_000), ("is_active=true", 5_000), ("q=kettle", 10_000)]:
        page = (await client.get(f"/items?{query}")).json()
        assert page["total_is_exact"] is False
        assert 0.5 * count < page["total"] < 2 * count, query
        exact = (await client.get(f"/items?count=exact&{query}")).json()
        assert (count, True) == (exact["total"], exact["total_is_exact"])


async def test_links_name_the_other_pages(client, sql):
    """`Link` names the first, previous, next and last page, filters included."""
    await fill(sql, 30, name="'I&t% ' || n", active="n % 2 = 0")

    targets = links(await client.get("/items?page=2&per_page=5&is_active=true&q=I%26t%25"))

    assert ["first", "last", "next", "prev"] == sorted(targets)
    assert [2, 4, 6, 8, 10] == ids(await client.get(targets["first"])) == ids(await client.get(targets["prev"]))
    assert [22, 24, 26, 28, 30] == ids(await client.get(targets["next"])) == ids(await client.get(targets["last"]))


async def test_following_next_links_reads_every_item_once(client, sql):
    """A client that follows `next` gets every item once, also beyond the greatest offset, and reaches the end."""
    await fill(sql, 10_250)

    seen: list[int] = []
    target: str | None = "/items?per_page=100&page=95"
    while target:
        response = await client.get(target)
        seen += ids(response)
        target = links(response).get("next")

    assert list(range(9401, 10_251)) == seen


async def test_links_are_relative(client, sql):
    """A link does not contain the Host header, which the client chooses."""
    await fill(sql, 3)

    response = await client.get("/items?per_page=1&page=2", headers={"Host": "evil.example"})

    assert all(target.startswith("/items?") for target in links(response).values())
