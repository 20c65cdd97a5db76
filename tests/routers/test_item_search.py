import pytest

from app.crud import item_page, item_search
from tests.answers import problem
from tests.routers.item_lists import fill, ids


async def test_filters_must_be_repeated_with_a_cursor(client, sql):
    """A cursor is a position only: the filters are those of the request."""
    await fill(sql, 6, active="n % 2 = 0")
    page = (await client.get("/items?per_page=1&is_active=true")).json()

    assert [4, 6] == ids(await client.get("/items", params={"cursor": page["next_cursor"], "is_active": "true"}))
    assert [3, 4, 5, 6] == ids(await client.get("/items", params={"cursor": page["next_cursor"]}))


async def test_is_active_filters(client, sql):
    """`is_active` selects items by their value; an empty one selects all."""
    await fill(sql, 4, active="n % 2 = 0")

    assert [2, 4] == ids(await client.get("/items?is_active=true"))
    assert [1, 3] == ids(await client.get("/items?is_active=false"))
    assert [1, 2, 3, 4] == ids(await client.get("/items?is_active="))
    assert 2 == (await client.get("/items?is_active=false")).json()["total"]


@pytest.mark.parametrize(
    ("q", "names_found"),
    [
        ("kettle", {"Kettle", "KETTLE blue"}),
        ("LE B", {"KETTLE blue"}),
        ("%", {"100% wool"}),
        ("_", {"snake_case"}),
        ("\\", {"back\\slash", "ends\\"}),
        ("s\\", {"ends\\"}),
        ("\\s", {"back\\slash"}),
        ("0%", {"100% wool"}),
        ("e%l", set()),
        ("ÉCRU", {"écru"}),
        ("éC", {"écru"}),
        ("ωΜΈΓΑ", {"Ωμέγα"}),
        ("ШАР", {"шарф"}),
        ("🫖", {"tea 🫖"}),
        ("'; --", set()),
        (
            "",
            {
                "Kettle",
                "KETTLE blue",
                "100% wool",
                "snake_case",
                "back\\slash",
                "ends\\",
                "écru",
                "Ωμέγα",
                "шарф",
                "tea 🫖",
            },
        ),
        ("q" * 255, set()),
    ],
)
async def test_a_search_finds_a_part_of_the_name(client, sql, q, names_found):
    """`q` is a substring of the name, whatever its case. Special characters have no meaning; an empty `q` finds all."""
    names = [
        "Kettle",
        "KETTLE blue",
        "100% wool",
        "snake_case",
        "back\\slash",
        "ends\\",
        "écru",
        "Ωμέγα",
        "шарф",
        "tea 🫖",
    ]
    await sql.executemany("INSERT INTO items (name) VALUES ($1)", [(name,) for name in names])

    page = (await client.get("/items", params={"q": q})).json()

    assert names_found == {item["name"] for item in page["items"]}
    assert len(names_found) == page["total"]


async def test_a_search_reads_the_name_only(client):
    """The description is not searched, and `q` is combined with `is_active`."""
    await client.post("/items", json={"name": "Pan", "description": "kettle"})
    await client.post("/items", json={"name": "Kettle", "is_active": False})
    await client.post("/items", json={"name": "Kettle"})

    assert [2, 3] == ids(await client.get("/items?q=kettle"))
    assert [3] == ids(await client.get("/items?q=kettle&is_active=true"))


async def test_a_search_that_is_too_broad_is_refused(client, sql, monkeypatch):
    """A search that would read too many items is 422, and the answer says what to do."""
    monkeypatch.setattr(item_search, "CANDIDATE_LIMIT", 10)
    monkeypatch.setattr(item_search, "SCAN_LIMIT", 10)
    item_page._searched.cache_clear()
    await fill(sql, 50, name="'red bread ' || n || ' d red'")

    body = problem(await client.get("/items?q=d+red+bread"), 422, "search_too_broad")

    item_page._searched.cache_clear()
    assert "Add letters or a rarer word to `q`" in body["detail"]
