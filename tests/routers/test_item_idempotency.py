import asyncio

import pytest

from tests.answers import problem, refused_fields

BODY = {"name": "Kettle", "price": 34.5}


@pytest.fixture
def settings(settings):
    """Settings with a long wait for a connection: 50 requests wait for one row here."""
    return settings.model_copy(update={"database_wait_seconds": 20.0})


async def post(client, key, body=BODY, **arguments):
    """Create an item with this key."""
    if not arguments:
        arguments = {"json": body}
    return await client.post(
        "/items", headers={"Idempotency-Key": key, "Content-Type": "application/json"}, **arguments
    )


def essence(response):
    """Return the parts of the response that are equal in a first response and its replays."""
    assert 201 == response.status_code, response.text
    return response.content, response.headers["location"], response.headers["etag"], response.headers["content-type"]


async def test_a_retry_gets_the_first_response(client):
    """The same key and body make one item. The replay equals the first response and is marked as a replay."""
    first = await post(client, "k")
    replay = await post(client, "k")

    assert essence(first) == essence(replay)
    assert "idempotency-replayed" not in first.headers
    assert "true" == replay.headers["idempotency-replayed"]
    assert first.json() == (await client.get(first.headers["location"])).json()
    assert 1 == (await client.get("/items")).json()["total"]


async def test_keys_are_compared_exactly(client):
    """Different keys make different items, and so do requests without a key."""
    keys = ["k", "K", "k.", "kk", "!", "~", "k" * 254, "k" * 255]

    for key in keys:
        assert "idempotency-replayed" not in (await post(client, key)).headers
    await client.post("/items", json=BODY)
    await client.post("/items", json=BODY)

    assert len(keys) + 2 == (await client.get("/items")).json()["total"]


@pytest.mark.parametrize(
    "body",
    [{"name": "Pan", "price": 34.5}, {"name": "Kettle"}, BODY | {"is_active": False}, BODY | {"description": ""}],
)
async def test_another_body_with_a_used_key_is_refused(client, body):
    """A used key with another body is 422 and makes nothing; the first response can still be replayed."""
    first = await post(client, "k")

    problem(await post(client, "k", body), 422, "idempotency_key_reused")

    assert essence(first) == essence(await post(client, "k"))
    assert 1 == (await client.get("/items")).json()["total"]


@pytest.mark.parametrize(
    "content",
    [
        '{"price":34.5,"name":"Kettle"}',
        '{"name": "  Kettle\\n", "price": 34.50}',
        '{ "name" : "\\u004bettle" , "price" : 345e-1 }',
        '{"name": "Kettle", "price": 34.5, "description": null, "is_active": true}',
        '{"name": "Kettle", "price": 34.5, "colour": "red"}',
        '{"name": "Pan", "price": 34.5, "name": "Kettle"}',
    ],
)
async def test_bodies_are_compared_after_validation(client, content):
    """Order, white space, escapes, defaults and unknown fields do not make a different body."""
    first = await post(client, "k")

    assert essence(first) == essence(await post(client, "k", content=content))


@pytest.mark.parametrize(("first", "same"), [("0", "0.0"), ("0", "-0.0"), ("5", "5.00"), ("100", "1e2")])
async def test_prices_are_compared_as_numbers(client, first, same):
    """Two spellings of one number are equal."""
    contents = [f'{{"name": "Kettle", "price": {price}}}' for price in (first, same)]

    assert essence(await post(client, "k", content=contents[0])) == essence(
        await post(client, "k", content=contents[1])
    )


async def test_fifty_concurrent_requests_make_one_item(client):
    """Retries during the first request wait for it: one row, 50 equal responses, 49 of them replays."""
    responses = await asyncio.gather(*(post(client, "k") for _ in range(50)))

    assert 1 == len({essence(response) for response in responses})
    assert 49 == sum("idempotency-replayed" in response.headers for response in responses)
    assert 1 == (await client.get("/items")).json()["total"]


async def test_concurrent_requests_with_different_bodies_make_one_item(client):
    """If two bodies race for a key, one wins, and every request with the other is 422."""
    bodies = [{"name": "Kettle"}, {"name": "Pan"}] * 10

    responses = await asyncio.gather(*(post(client, "k", body) for body in bodies))

    assert [201] * 10 + [422] * 10 == sorted(response.status_code for response in responses)
    assert 1 == len({essence(response) for response in responses if response.status_code == 201})


@pytest.mark.parametrize(
    ("method", "query", "body"),
    [("PATCH", "", {"name": "Pan", "price": None}), ("DELETE", "", None), ("DELETE", "?permanent=true", None)],
)
async def test_a_replay_ignores_later_changes(client, method, query, body):
    """After the item was changed, deactivated or deleted, a replay is the first response and makes nothing."""
    first = await post(client, "k")
    await client.request(method, first.headers["location"] + query, json=body)
    since = await client.get(first.headers["location"])

    assert essence(first) == essence(await post(client, "k"))
    after = await client.get(first.headers["location"])
    assert (since.status_code, since.headers.get("etag")) == (after.status_code, after.headers.get("etag"))


@pytest.mark.parametrize("body", [BODY, {"name": "Pan"}])
async def test_a_key_expires_after_a_day(client, sql, body):
    """After 24 hours a key makes a new item, with any body, and then replays that one."""
    first = await post(client, "k")
    await sql.execute("UPDATE idempotency_keys SET created_at = now() - interval '23 hours 59 minutes'")
    assert essence(first) == essence(await post(client, "k"))

    await sql.execute("UPDATE idempotency_keys SET created_at = now() - interval '24 hours 1 second'")
    second = await post(client, "k", body)

    assert first.headers["location"] != second.headers["location"]
    assert "idempotency-replayed" not in second.headers
    assert essence(second) == essence(await post(client, "k", body))


async def test_an_expired_key_makes_one_item_for_fifty_requests(client, sql):
    """Concurrent requests with an expired key make one new item."""
    first = await post(client, "k")
    await sql.execute("UPDATE idempotency_keys SET created_at = now() - interval '25 hours'")

    essences = {essence(response) for response in await asyncio.gather(*(post(client, "k") for _ in range(50)))}

    assert 1 == len(essences)
    assert essence(first) not in essences
    assert 2 == (await client.get("/items")).json()["total"]


async def test_a_refused_request_does_not_use_its_key(client):
    """The key of a request with an invalid body can still be used."""
    assert {"name"} == refused_fields(await post(client, "k", {"name": ""}))

    assert "idempotency-replayed" not in (await post(client, "k")).headers


@pytest.mark.parametrize("key", ["", "k" * 256, "a b", "a\tb", "\x7f", "é", "k\x80"])
async def test_an_invalid_key_is_refused(client, key):
    """A key that is not 1 to 255 visible ASCII characters is 422, and nothing is made."""
    response = await client.post("/items", json=BODY, headers=[(b"Idempotency-Key", key.encode())])

    assert {"Idempotency-Key"} == refused_fields(response)
    assert 0 == (await client.get("/items")).json()["total"]


async def test_two_keys_are_refused(client):
    """Two keys in one request are 422, also if they are equal."""
    for keys in (["a", "b"], ["a", "a"], ["a", ""]):
        response = await client.post("/items", json=BODY, headers=[("Idempotency-Key", key) for key in keys])
        assert {"Idempotency-Key"} == refused_fields(response)
