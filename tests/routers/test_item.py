import re
from datetime import datetime

import pytest

from tests.answers import problem, refused_fields

KETTLE = {"name": "Kettle", "description": "Boils a litre.", "price": 34.5, "is_active": False}
DEFAULTS = {"description": None, "price": None, "is_active": True}


def without_times(item):
    """Return the fields that a client can set."""
    return {name: item[name] for name in KETTLE}


@pytest.fixture
async def item(client):
    """An item, as the response to its creation."""
    return (await client.post("/items", json=KETTLE)).json()


async def test_creating_returns_the_item_and_its_location(client):
    """POST is 201 with the item, `Location` and `ETag`; a read at that location returns the same."""
    created = await client.post("/items", json=KETTLE)

    assert 201 == created.status_code
    assert "application/json" == created.headers["content-type"]
    item = created.json()
    assert ["id", "name", "description", "price", "is_active", "created_at", "updated_at"] == list(item)
    assert KETTLE == without_times(item)
    assert f"/items/{item['id']}" == created.headers["location"]
    assert re.fullmatch(r'"[!#-~]+"', created.headers["etag"])
    read = await client.get(created.headers["location"])
    assert (200, item, created.headers["etag"]) == (read.status_code, read.json(), read.headers["etag"])


async def test_absent_fields_of_a_new_item_get_their_defaults(client):
    """`description` and `price` default to null, `is_active` to true."""
    item = (await client.post("/items", json={"name": "Kettle"})).json()

    assert {"name": "Kettle"} | DEFAULTS == without_times(item)


async def test_times_are_rfc_3339_in_utc(client, item):
    """Times end in Z. They are equal in a new item, and a write changes `updated_at` only."""
    changed = (await client.patch(f"/items/{item['id']}", json={"price": 1})).json()

    for time in (item["created_at"], item["updated_at"], changed["updated_at"]):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", time)
    assert item["created_at"] == item["updated_at"] == changed["created_at"]
    assert datetime.fromisoformat(changed["updated_at"]) > datetime.fromisoformat(item["updated_at"])


async def test_replacing_sets_every_field(client, item):
    """PUT is 200 with the new item; absent optional fields get their defaults."""
    replaced = await client.put(f"/items/{item['id']}", json={"name": "Pan"})

    assert 200 == replaced.status_code
    assert {"name": "Pan"} | DEFAULTS == without_times(replaced.json())
    assert (item["id"], item["created_at"]) == (replaced.json()["id"], replaced.json()["created_at"])
    assert replaced.json() == (await client.get(f"/items/{item['id']}")).json()


async def test_replacing_requires_a_name(client, item):
    """PUT without `name` is 422, and nothing changes."""
    response = await client.put(f"/items/{item['id']}", json={"price": 1})

    assert {"name"} == refused_fields(response)
    assert item == (await client.get(f"/items/{item['id']}")).json()


@pytest.mark.parametrize("change", [{"name": "Pan"}, {"description": None}, {"price": None}, {"is_active": True}])
async def test_a_change_sets_only_the_fields_that_are_present(client, item, change):
    """PATCH sets the fields that are present, null included, and no others."""
    changed = await client.patch(f"/items/{item['id']}", json=change)

    assert 200 == changed.status_code
    assert KETTLE | change == without_times(changed.json())
    assert changed.json() == (await client.get(f"/items/{item['id']}")).json()


@pytest.mark.parametrize("body", [{}, {"colour": "red"}, {"id": 1, "created_at": None}])
async def test_a_change_without_fields_is_refused(client, item, body):
    """PATCH without a known field is 422, whether or not the item exists."""
    assert {"body"} == refused_fields(await client.patch(f"/items/{item['id']}", json=body))
    assert {"body"} == refused_fields(await client.patch("/items/99", json=body))


async def test_deleting_deactivates(client):
    """DELETE is 204 without a body, the item stays readable as inactive, and a second DELETE changes nothing."""
    item = (await client.post("/items", json={"name": "Kettle"})).json()

    first = await client.delete(f"/items/{item['id']}")
    after_first = await client.get(f"/items/{item['id']}")
    second = await client.delete(f"/items/{item['id']}")

    assert (204, b"") == (first.status_code, first.content)
    assert "content-type" not in first.headers
    assert after_first.json()["is_active"] is False
    assert after_first.json()["updated_at"] > item["updated_at"]
    assert 204 == second.status_code
    assert after_first.json() == (await client.get(f"/items/{item['id']}")).json()


async def test_deleting_permanently_removes_the_row(client, item):
    """`permanent=true` is 204. Then every method is 404."""
    path = f"/items/{item['id']}"

    assert 204 == (await client.delete(path, params={"permanent": "true"})).status_code

    for method in ("GET", "PUT", "PATCH", "DELETE"):
        body = None if method in ("GET", "DELETE") else {"name": "Pan"}
        assert (
            str(item["id"]) in problem(await client.request(method, path, json=body), 404, "item_not_found")["detail"]
        )
    problem(await client.delete(path, params={"permanent": "true"}), 404, "item_not_found")


async def test_permanent_is_true_or_false(client, item):
    """Any other value of `permanent` is 422, and nothing is deleted."""
    for value in ("", "1", "yes", "True", " true"):
        assert {"permanent"} == refused_fields(await client.delete(f"/items/{item['id']}", params={"permanent": value}))
    assert 204 == (await client.delete(f"/items/{item['id']}", params={"permanent": "false"})).status_code
    assert 200 == (await client.get(f"/items/{item['id']}")).status_code


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE"])
async def test_an_id_is_a_whole_number_of_64_bits(client, method):
    """Ids from 1 to 2^63-1 are looked up; any other text is 422."""
    body = {"name": "Pan"} if method in ("PUT", "PATCH") else None

    for item_id in ("1", str(2**63 - 1)):
        assert 404 == (await client.request(method, f"/items/{item_id}", json=body)).status_code
    refused = (
        "0",
        "-1",
        str(2**63),
        "9" * 5000,
        "1_000",
        "+1",
        "%201",
        "1%20",
        "1%0A",
        "1.0",
        "1e3",
        "0x1",
        "%D9%A1",
        "a",
        "%00",
    )
    for item_id in refused:
        response = await client.request(method, f"/items/{item_id}", json=body)
        assert 422 == response.status_code, item_id
        if method != "HEAD":
            assert {"item_id"} == refused_fields(response)


async def test_head_is_get_without_the_body(client, item):
    """HEAD has the status and headers of GET, also for errors."""
    for path in (f"/items/{item['id']}", "/items", "/items/99", "/items/x"):
        head, get = await client.head(path), await client.get(path)

        assert (get.status_code, b"") == (head.status_code, head.content)
        assert {**get.headers, "x-request-id": ""} == {**head.headers, "x-request-id": ""}


@pytest.mark.parametrize(
    ("path", "allowed"), [("/items", "GET, HEAD, POST"), ("/items/1", "DELETE, GET, HEAD, PATCH, PUT")]
)
async def test_a_method_that_is_not_allowed_is_405(client, path, allowed):
    """`Allow` of a 405 names the methods of all routes at the path."""
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"} - set(allowed.split(", ")):
        response = await client.request(method, path)

        problem(response, 405, "method_not_allowed")
        assert allowed == response.headers["allow"], method


@pytest.mark.parametrize("path", ["/items/", "/items/1/", "/item", "/items/1/2", "/items//1", "/Items"])
async def test_an_unknown_path_is_not_found(client, path):
    """A path that is not documented is 404; there are no redirects."""
    problem(await client.get(path), 404, "not_found")
