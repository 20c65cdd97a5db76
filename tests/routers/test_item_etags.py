import pytest

from tests.answers import problem

WRITES = [
    ("PUT", "", {"name": "Pan"}),
    ("PATCH", "", {"name": "Pan"}),
    ("DELETE", "", None),
    ("DELETE", "?permanent=true", None),
]
each_write = pytest.mark.parametrize(("method", "query", "body"), WRITES)


@pytest.fixture
async def created(client):
    """The response to the creation of an item."""
    return await client.post("/items", json={"name": "Kettle"})


@pytest.fixture
async def other(client, created):
    """The response to the creation of another item."""
    return await client.post("/items", json={"name": "Kettle"})


def condition(name, *lines):
    """Return the header with one line for each value."""
    return [(name, line) for line in lines]


async def test_every_write_changes_the_etag(client, created):
    """The tag is strong, equal for every reader, and changes with each write, even a write of equal values."""
    path = created.headers["location"]
    tags = [created.headers["etag"]]
    for method, body in [("PUT", {"name": "Pan"}), ("PUT", {"name": "Pan"}), ("PATCH", {"name": "Pan"})]:
        tags.append((await client.request(method, path, json=body)).headers["etag"])
        assert tags[-1] == (await client.get(path)).headers["etag"] == (await client.head(path)).headers["etag"]
    await client.delete(path)
    tags.append((await client.get(path)).headers["etag"])
    await client.delete(path)

    assert len(tags) == len(set(tags))
    assert tags[-1] == (await client.get(path)).headers["etag"]
    assert not any(tag.startswith("W/") for tag in tags)


async def test_two_items_have_different_etags(created, other):
    """Two items with equal contents have different tags."""
    assert created.headers["etag"] != other.headers["etag"]


@each_write
async def test_a_write_with_a_matching_if_match_succeeds(client, created, method, query, body):
    """The current tag matches alone, in a list, on a line of its own, and as a proxy weakens it; `*` matches too."""
    for lines in (
        ["{}"],
        ['"a", {}'],
        ['"a,b",{},"c"'],
        ['"a"', "{}"],
        ['W/"a",\t{} '],
        ["W/{}"],
        ['"a", W/{}'],
        ["*"],
        [" * "],
    ):
        created = await client.post("/items", json={"name": "Kettle"})
        headers = condition("If-Match", *(line.format(created.headers["etag"]) for line in lines))

        response = await client.request(method, created.headers["location"] + query, json=body, headers=headers)

        assert response.is_success, (lines, response.text)


@each_write
async def test_a_write_without_a_matching_if_match_is_refused(client, created, other, method, query, body):  # noqa: PLR0917  # by name
    """An old tag, another item's tag, each also weak, and malformed tags are 412, and nothing changes."""
    path, tag = created.headers["location"], created.headers["etag"]
    await client.patch(path, json={"price": 1})
    now = await client.get(path)
    stale_or_strange = [
        tag,
        other.headers["etag"],
        "W/" + tag,
        "W/" + other.headers["etag"],
        "w/" + now.headers["etag"],
        "W/ " + now.headers["etag"],
        now.headers["etag"].strip('"'),
        now.headers["etag"].replace("-", "-0"),
        now.headers["etag"].replace('"', '"0', 1),
        f'"x{now.headers["etag"][1:]}',
        f"x{now.headers['etag']}",
        f"{now.headers['etag']}x",
        f'"{"9" * 300}"',
        f'"1-{"9" * 17}"',
        f'"1-{"9" * 40}"',
        '""',
        "",
        '"',
        "**",
        '"*"',
        ",",
    ]

    for value in stale_or_strange:
        response = await client.request(method, path + query, json=body, headers={"If-Match": value})
        problem(response, 412, "precondition_failed")
    assert (now.json(), now.headers["etag"]) == ((again := await client.get(path)).json(), again.headers["etag"])


@each_write
async def test_if_match_on_a_deleted_item_is_not_found(client, created, method, query, body):
    """A conditional write to an item that does not exist is 404, for every `If-Match`."""
    await client.delete(created.headers["location"] + "?permanent=true")

    for value in (created.headers["etag"], '"a"', "*"):
        path = created.headers["location"] + query
        problem(await client.request(method, path, json=body, headers={"If-Match": value}), 404, "item_not_found")


async def test_the_second_of_two_writers_is_refused(client, created):
    """Two clients change the version that both have read: the second one is 412, and succeeds with the new tag."""
    path, tag = created.headers["location"], created.headers["etag"]

    first = await client.patch(path, json={"price": 1}, headers={"If-Match": tag})
    second = await client.patch(path, json={"price": 2}, headers={"If-Match": tag})
    repeated = await client.patch(path, json={"price": 2}, headers={"If-Match": first.headers["etag"]})

    assert [200, 412, 200] == [response.status_code for response in (first, second, repeated)]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_matching_if_none_match_is_304(client, created, method):
    """A matching `If-None-Match` is 304 with the tag and without a body; the comparison is weak."""
    path, tag = created.headers["location"], created.headers["etag"]

    for lines in ([tag], [f"W/{tag}"], [f'"a", {tag}'], ['"a"', tag], ["*"]):
        response = await client.request(method, path, headers=condition("If-None-Match", *lines))
        assert (304, b"", tag) == (response.status_code, response.content, response.headers["etag"]), lines
        assert "content-type" not in response.headers
        assert "x-request-id" in response.headers


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_an_if_none_match_without_a_match_is_200(client, created, other, method):
    """Another tag or a malformed one gets the item. If there is no item, `*` is 404."""
    path, tag = created.headers["location"], created.headers["etag"]
    await client.patch(path, json={"price": 1})

    for value in (tag, other.headers["etag"], "", '"', f"x{tag}", '"*"'):
        assert 200 == (await client.request(method, path, headers={"If-None-Match": value})).status_code
    assert 404 == (await client.request(method, "/items/99", headers={"If-None-Match": "*"})).status_code
