from typing import Any

import pytest

from tests.answers import refused_fields

WRITES = [("POST", "/items"), ("PUT", "/items/1"), ("PATCH", "/items/1")]


@pytest.fixture(autouse=True)
async def _item(client):
    await client.post("/items", json={"name": "Kettle"})


async def test_white_space_around_texts_is_removed(client):
    """Texts are measured and stored without the white space around them."""
    item = (await client.post("/items", json={"name": f" \t{'n' * 255}\n\u2003", "description": " d "})).json()

    assert ("n" * 255, "d") == (item["name"], item["description"])


async def test_characters_are_counted_not_bytes(client):
    """255 characters outside the basic plane are a valid name and are returned unchanged."""
    item = (await client.post("/items", json={"name": "🫖" * 255})).json()

    assert "🫖" * 255 == item["name"]


@pytest.mark.parametrize(("method", "path"), WRITES)
@pytest.mark.parametrize(
    "name",
    [
        "\u200b", "\u2060\ufeff", "\u2800", "\u0301\u0308", "\u115f\u1160", "\u3164\uffa0", "\x01\x1b", "\u202e\xad",
        "\u034f", "\u180e", "\ufe0f", "\U000e0041", "\u200b \u200b",
    ],
)  # fmt: skip
async def test_a_name_of_invisible_characters_is_refused(client, method, path, name):
    """Control, format, space and combining characters and fillers need another character beside them."""
    refused = await client.request(method, path, json={"name": name})

    assert {"name"} == refused_fields(refused)
    assert "visible character" in refused.json()["errors"][0]["message"]
    assert f"{name}n" == (await client.request(method, path, json={"name": f"{name}n"})).json()["name"]


@pytest.mark.parametrize(("method", "path"), WRITES)
async def test_each_field_has_its_bounds(client, method, path):
    """Every method that writes accepts the values at a bound, and refuses the values beyond it by the field's name."""
    cases: dict[str, dict[Any, bool]] = {
        "name": {"n": True, "n" * 255: True, "": False, " \n": False, "n" * 256: False, "a\0": False, "\0": False},
        "description": {None: True, "": True, "d" * 10_000: True, "d" * 10_001: False, "a\0": False},
        "price": {
            None: True, 0: True, 0.01: True, 7: True, 9_999_999_999.99: True,
            -0.01: False, 10_000_000_000: False, 0.001: False, 9_999_999_999.991: False, 1e300: False, 10**30: False,
        },
        "is_active": {True: True, False: True},
    }  # fmt: skip

    for field, values in cases.items():
        for value, is_taken in values.items():
            response = await client.request(method, path, json={"name": "Kettle"} | {field: value})
            if is_taken:
                assert response.is_success, (field, value, response.text)
                assert (value.strip() if isinstance(value, str) else value) == response.json()[field]
            else:
                assert {field} == refused_fields(response), (field, value)


@pytest.mark.parametrize(("method", "path"), WRITES)
async def test_each_field_has_its_type(client, method, path):
    """No type is converted to another, and null is accepted only for `description` and `price`."""
    invalid: dict[str, list[Any]] = {
        "name": [None, 1, True, ["n"], {"n": 1}],
        "description": [1, False, [], {}],
        "price": ["1", "1.5", True, [], {}],
        "is_active": [None, 0, 1, "true", "", []],
    }

    for field, values in invalid.items():
        for value in values:
            response = await client.request(method, path, json={"name": "Kettle"} | {field: value})
            assert {field} == refused_fields(response), (field, value)


@pytest.mark.parametrize(("method", "path"), WRITES)
@pytest.mark.parametrize("body", ["null", "1", '"text"', "[]", '[{"name": "Kettle"}]', "true"])
async def test_a_body_that_is_not_an_object_is_refused(client, method, path, body):
    """JSON that is not an object is 422 and names `body`."""
    response = await client.request(method, path, content=body, headers={"Content-Type": "application/json"})

    assert {"body"} == refused_fields(response)
    if body != "null":
        assert "Input should be a JSON object" == response.json()["errors"][0]["message"]


@pytest.mark.parametrize(("method", "path"), WRITES)
async def test_a_nul_is_named(client, method, path):
    """The message is a sentence, not the regular expression that refuses it."""
    response = await client.request(method, path, json={"name": "Kettle", "description": "a\0b"})

    assert {"description"} == refused_fields(response)
    assert "Input should not contain the character NUL" == response.json()["errors"][0]["message"]


@pytest.mark.parametrize(("method", "path"), WRITES)
async def test_unknown_fields_are_ignored(client, method, path):
    """Unknown fields, `id` and the times are ignored in every body."""
    body = {"name": "Pan", "id": 99, "created_at": "1999-01-01T00:00:00Z", "updated_at": None, "colour": {"a": [1]}}

    written = (await client.request(method, path, json=body)).json()

    assert "Pan" == written["name"]
    assert 99 != written["id"]
    assert not written["created_at"].startswith("1999")
    assert "colour" not in written


@pytest.mark.parametrize("price", ["0.1", "0.29", "19.99", "1e2", "1.10", "12345e-2", "9999999999.99"])
async def test_a_price_is_stored_exactly(client, price):
    """A price with two decimals is returned as the number that was sent."""
    body = f'{{"name": "Kettle", "price": {price}}}'

    created = (await client.post("/items", content=body, headers={"Content-Type": "application/json"})).json()

    assert float(price) == created["price"] == (await client.get(f"/items/{created['id']}")).json()["price"]
