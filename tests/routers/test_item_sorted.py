from datetime import UTC, datetime
from urllib.parse import quote

import pytest

from app.http import cursors
from tests.answers import links, problem, refused_fields
from tests.routers.item_lists import fill, ids

START = datetime(2020, 11, 22, 13, tzinfo=UTC)


@pytest.fixture
async def changed(client, sql):
    """A client, after 30 items were changed in the reverse order of their ids, three at a time."""
    await fill(sql, 30)
    await sql.execute("UPDATE items SET updated_at = $1::timestamptz + (30 - id) / 3 * interval '1 second'", START)
    return client


async def follow(client, target):
    """The ids of all pages from this one on."""
    seen = []
    while target:
        response = await client.get(target)
        seen.append(ids(response))
        target = links(response).get("next")
    return seen


async def test_the_newest_items_come_first(client, sql):
    """`sort=-id` reverses the list: with page numbers, with cursors, and among the active items."""
    await fill(sql, 25)
    await sql.execute("UPDATE items SET is_active = false WHERE id % 5 = 0")
    first = (await client.get("/items?sort=-id&per_page=10")).json()
    after = f"/items?sort=-id&per_page=10&cursor={first['next_cursor']}"
    active = await client.get("/items?sort=-id&per_page=10&is_active=true&page=2")

    assert [*range(25, 15, -1)] == [item["id"] for item in first["items"]]
    assert (25, 3, True) == (first["total"], first["pages"], first["total_is_exact"])
    assert (
        [*range(15, 5, -1)]
        == ids(await client.get(after))
        == ids(await client.get("/items?sort=-id&per_page=10&page=2"))
    )
    assert [[*range(15, 5, -1)], [*range(5, 0, -1)]] == await follow(client, after)
    assert [12, 11, 9, 8, 7, 6, 4, 3, 2, 1] == ids(active)
    assert ids(await client.get("/items?sort=id")) == ids(await client.get("/items"))


async def test_changes_are_listed_in_their_order(changed):
    """`sort=updated_at` is in the order of (`updated_at`, `id`), without a total, and each item once."""
    first = await changed.get("/items?sort=updated_at&per_page=7")
    body = first.json()
    listed = [item for page in await follow(changed, "/items?sort=updated_at&per_page=7") for item in page]
    times = {item["id"]: item["updated_at"] for item in (await changed.get("/items?per_page=100")).json()["items"]}

    assert sorted(times, key=lambda item_id: (times[item_id], item_id)) == listed
    assert [None] * 4 == [body[name] for name in ("page", "pages", "total", "total_is_exact")]
    assert {"first", "next"} == set(links(first))


async def test_changes_after_a_time(changed):
    """`updated_after` excludes the changes of that very time; an offset is converted, and links repeat it."""
    for text in ("2020-11-22T13:00:07Z", "2020-11-22T14:00:07.000%2B01:00", "2020-11-22t13:00:07z"):
        assert [[4, 5, 6, 1], [2, 3]] == await follow(
            changed, f"/items?sort=updated_at&per_page=4&updated_after={text}"
        ), text
    assert [[]] == await follow(changed, "/items?sort=updated_at&updated_after=9999-12-31T23:59:59Z")
    assert 20 == len(ids(await changed.get("/items?sort=updated_at&updated_after=0001-01-01T00:00:00Z")))


async def test_a_change_is_met_again(client, sql):
    """What is written after a page was read comes later, and the last time that was read is where to go on."""
    await fill(sql, 3)
    seen = (await client.get("/items?sort=updated_at")).json()
    changed = (await client.patch("/items/2", json={"name": "Pan"})).json()
    made = (await client.post("/items", json={"name": "Pot"})).json()

    after = await client.get("/items", params={"sort": "updated_at", "updated_after": seen["items"][-1]["updated_at"]})

    assert seen["next_cursor"] is None
    assert [changed["id"], made["id"]] == ids(after)


@pytest.mark.parametrize(
    "text",
    ["2020-11-22T13:00:00", "2020-11-22", "1795352400", "", "2020-11-22 13:00:00Z", "2020-13-22T13:00:00Z",
     "2020-11-22T13:00:00 00:00", "0001-01-01T00:00:00%2B14:00", "9999-12-31T23:00:00-14:00", "now",
     "٢٠٢٠-11-22T13:00:00Z"],
)  # fmt: skip
async def test_a_time_needs_an_offset(client, text):
    """`updated_after` without an offset, or in another form than that of RFC 3339, is 422."""
    assert {"updated_after"} == refused_fields(
        await client.get(f"/items?sort=updated_at&updated_after={quote(text, safe='%:')}")
    )


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("sort=name", "sort"),
        ("sort=", "sort"),
        ("sort=-id&q=a", "sort"),
        ("updated_after=2020-11-22T13:00:00Z", "updated_after"),
        ("sort=-id&updated_after=2020-11-22T13:00:00Z", "updated_after"),
        ("sort=updated_at&page=1", "page"),
        ("sort=updated_at&q=a", "q"),
        ("sort=updated_at&count=exact", "count"),
        ("sort=updated_at&is_active=true", "is_active"),
        ("sort=-id&page=1&cursor=" + cursors.encode(1, "-id"), "page"),
        *(
            (f"ids=1&{other}", other.partition("=")[0])
            for other in (
                "page=1", "per_page=19", "cursor=" + cursors.encode(1), "is_active=true", "q=a", "count=exact",
                "sort=-id",
            )
        ),
    ],
)  # fmt: skip
async def test_parameters_that_do_not_belong_together_are_refused(client, query, field):
    """The error names the parameter that cannot be combined."""
    assert {field} == refused_fields(await client.get(f"/items?{query}"))


async def test_a_cursor_is_refused_under_another_order(client):
    """A cursor works only with the `sort` that it was made for, and an altered or empty one never does."""
    made = {
        "id": cursors.encode(7),
        "-id": cursors.encode(7, "-id"),
        "updated_at": cursors.encode_change(START, 7),
    }
    for sort, own in made.items():
        assert 200 == (await client.get("/items", params={"sort": sort, "cursor": own})).status_code
        others = [cursor for cursor in made.values() if cursor != own]
        for altered in (*others, "", own.swapcase(), own + "=", own[:-4]):
            assert {"cursor"} == refused_fields(await client.get("/items", params={"sort": sort, "cursor": altered}))


async def test_chosen_items_are_listed_by_their_ids(client, sql):
    """`ids` lists those that exist, once each, in the order of the ids, as one page without links."""
    await fill(sql, 9)

    response = await client.get("/items?ids=9,3,77,3,1")

    assert [1, 3, 9] == ids(response)
    assert {"page": None, "pages": None, "per_page": 4, "total": 3, "total_is_exact": True, "next_cursor": None} == {
        name: value for name, value in response.json().items() if name != "items"
    }
    assert "link" not in response.headers
    assert (await client.get("/items/3")).headers["etag"] == response.json()["items"][1]["etag"]
    assert [] == ids(await client.get(f"/items?ids={2**63 - 1}"))
    assert [*range(1, 10)] == ids(await client.get("/items", params={"ids": ",".join(map(str, range(1, 101)))}))


@pytest.mark.parametrize(
    "text", ["", ",", "1,", ",1", "1,,2", "a", "1;2", "1, 2", "+1", "-1", "0", "1.0", "\0", str(2**63), "9" * 20,
             ",".join(["1"] * 101), "٣"],
)  # fmt: skip
async def test_a_malformed_list_of_ids_is_refused(client, text):
    """An empty list, more than 100 ids, and anything but ids of 64 bits is 422."""
    assert {"ids"} == refused_fields(await client.get("/items", params={"ids": text}))


async def test_clients_may_send_the_defaults_beside_ids(client, sql):
    """Generated clients send `per_page` and `sort` with the documented defaults. Other values are refused."""
    await fill(sql, 3)

    assert [1, 2] == ids(await client.get("/items?ids=1,2&per_page=20&sort=id&q="))
    assert {"per_page"} == refused_fields(await client.get("/items?ids=1,2&per_page=21"))
    assert {"sort"} == refused_fields(await client.get("/items?ids=1,2&sort=-id"))


async def test_repeated_ids_are_refused(client):
    """`ids=1&ids=2` would silently list the last item alone."""
    assert {"ids"} == refused_fields(await client.get("/items?ids=1&ids=2"))


async def test_a_list_of_large_items_is_bounded(client, sql):
    """Chosen items that are too large for one body are 422; a page of the feed ends early, and continues."""
    await sql.execute(
        "INSERT INTO items (name, description) SELECT 'Large', repeat(U&'\\0001', 10000) FROM generate_series(1, 60)"
    )
    chosen = await client.get("/items", params={"ids": ",".join(map(str, range(1, 61)))})
    pages = await follow(client, "/items?sort=updated_at&per_page=100")

    problem(chosen, 422, "page_too_large")
    assert len(pages) > 1
    assert [*range(1, 61)] == sorted(number for page in pages for number in page)
