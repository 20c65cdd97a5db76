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


async def test_each_item_in_a_list_has_its_etag(client, created, other):
    """It is the `ETag` of the item, by page number and after a cursor, and works in `If-Match`."""
    first = (await client.get("/items?per_page=1")).json()
    after = (await client.get(f"/items?cursor={first['next_cursor']}")).json()
    listed = [item["etag"] for item in (*first["items"], *after["items"])]

    assert [created.headers["etag"], other.headers["etag"]] == listed
    changed = await client.patch("/items/1", json={"name": "Pan"}, headers={"If-Match": listed[0]})
    assert 200 == changed.status_code
    assert [changed.headers["etag"], listed[1]] == [
        item["etag"] for item in (await client.get("/items")).json()["items"]
    ]


async def test_every_answer_must_be_validated_by_a_cache(client, created):
    """Below `/items` every status is `private, no-cache`, once, whatever the method; other paths are not stored."""
    path, fresh = created.headers["location"], {"If-None-Match": created.headers["etag"]}
    answers = [
        created,
        await client.get("/items"),
        await client.head(path),
        await client.get(path, headers=fresh),
        await client.patch(path, json={"name": "Pan"}, headers={"If-Match": '"old"'}),
        await client.post("/items", content=b"{", headers={"Content-Type": "application/json"}),
        await client.post("/items", content=b"{}", headers={"Content-Type": "text/plain"}),
        await client.post("/items", json={}),
        await client.put("/items"),
        await client.delete(path),
        await client.get("/items/99"),
        await client.get("/items/1/more"),
    ]

    assert [201, 200, 200, 304, 412, 400, 415, 422, 405, 204, 404, 404] == [answer.status_code for answer in answers]
    assert [["private, no-cache"]] * len(answers) == [answer.headers.get_list("cache-control") for answer in answers]
    assert "no-store" == (await client.get("/itemsandmore")).headers["cache-control"]


async def test_a_merge_patch_changes_an_item(client, created):
    """PATCH accepts `application/merge-patch+json`, which the document names beside JSON; other methods do not."""
    headers = {"Content-Type": "application/merge-patch+json"}
    content = (await client.get("/openapi.json")).json()["paths"]["/items/{item_id}"]["patch"]["requestBody"]["content"]

    changed = await client.patch(created.headers["location"], content=b'{"price": 2.5}', headers=headers)

    assert (200, 2.5, "Kettle") == (changed.status_code, changed.json()["price"], changed.json()["name"])
    assert ["application/json", "application/merge-patch+json"] == list(content)
    assert content["application/json"] == content["application/merge-patch+json"]
    for method, path in (("POST", "/items"), ("PUT", "/items/1")):
        problem(
            await client.request(method, path, content=b'{"name": "Pan"}', headers=headers),
            415,
            "unsupported_media_type",
        )
