import pytest

from tests.routers.lists import fill, ids


async def test_filters_are_repeated_with_a_cursor(client, sql):
    """A cursor is no more than a position: what is asked with it counts."""
    await fill(sql, 6, active="n % 2 = 0")
    page = (await client.get("/items?per_page=1&is_active=true")).json()

    assert [4, 6] == ids(await client.get("/items", params={"cursor": page["next_cursor"], "is_active": "true"}))
    assert [3, 4, 5, 6] == ids(await client.get("/items", params={"cursor": page["next_cursor"]}))


async def test_activity_filters(client, sql):
    """`is_active` keeps the items that are so, and an empty one is none."""
    await fill(sql, 4, active="n % 2 = 0")

    assert [2, 4] == ids(await client.get("/items?is_active=true"))
    assert [1, 3] == ids(await client.get("/items?is_active=false"))
    assert [1, 2, 3, 4] == ids(await client.get("/items?is_active="))
    assert 2 == (await client.get("/items?is_active=false")).json()["total"]


@pytest.mark.parametrize(
    ("q", "found"),
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
async def test_a_search_finds_a_part_of_the_name(client, sql, q, found):
    """`q` is a substring whatever its case, its special characters stand for themselves, and an empty one is none."""
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

    assert found == {item["name"] for item in page["items"]}
    assert len(found) == page["total"]


async def test_a_search_looks_at_the_name_only_and_joins_the_other_filters(client):
    """The description is not searched; filters hold together."""
    await client.post("/items", json={"name": "Pan", "description": "kettle"})
    await client.post("/items", json={"name": "Kettle", "is_active": False})
    await client.post("/items", json={"name": "Kettle"})

    assert [2, 3] == ids(await client.get("/items?q=kettle"))
    assert [3] == ids(await client.get("/items?q=kettle&is_active=true"))
