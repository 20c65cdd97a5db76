import asyncio

import pytest

from tests.answers import problem, refused_fields

BODY = {"name": "Kettle", "price": 34.5}


@pytest.fixture
def settings(settings):
    """With patience: here 50 requests wait for one row, whatever else the machine does."""
    return settings.model_copy(update={"database_wait_seconds": 20.0})


async def post(client, key, body=BODY, **arguments):
    """Ask for an item under this key."""
    if not arguments:
        arguments = {"json": body}
    return await client.post(
        "/items", headers={"Idempotency-Key": key, "Content-Type": "application/json"}, **arguments
    )


def essence(response):
    """What has to be the same in a first answer and its replays."""
    assert 201 == response.status_code, response.text
    return response.content, response.headers["location"], response.headers["etag"], response.headers["content-type"]


async def test_a_retry_gets_the_first_answer(client):
    """The same key and body make one item; the replay is byte for byte the first answer, and says that it is one."""
    first = await post(client, "k")
    replay = await post(client, "k")

    assert essence(first) == essence(replay)
    assert "idempotency-replayed" not in first.headers
    assert "true" == replay.headers["idempotency-replayed"]
    assert first.json() == (await client.get(first.headers["location"])).json()
    assert 1 == (await client.get("/items")).json()["total"]


async def test_keys_are_told_apart_by_each_character(client):
    """Other keys make other items, and without a key every request does."""
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
async def test_another_body_under_a_known_key_is_refused(client, body):
    """The same key with another content is 422, makes nothing, and leaves the first answer as it is."""
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
async def test_bodies_are_compared_by_what_they_mean(client, content):
    """Order, white space, escapes, defaults and unknown fields do not make another body."""
    first = await post(client, "k")

    assert essence(first) == essence(await post(client, "k", content=content))


@pytest.mark.parametrize(("first", "same"), [("0", "0.0"), ("0", "-0.0"), ("5", "5.00"), ("100", "1e2")])
async def test_prices_are_compared_as_numbers(client, first, same):
    """However a number is written, it is the same content."""
    contents = [f'{{"name": "Kettle", "price": {price}}}' for price in (first, same)]

    assert essence(await post(client, "k", content=contents[0])) == essence(
        await post(client, "k", content=contents[1])
    )


async def test_fifty_requests_at_once_make_one_item(client):
    """Retries that come while the first is under way wait for it: one row, 50 equal answers, 49 of them replays."""
    answers = await asyncio.gather(*(post(client, "k") for _ in range(50)))

    assert 1 == len({essence(answer) for answer in answers})
    assert 49 == sum("idempotency-replayed" in answer.headers for answer in answers)
    assert 1 == (await client.get("/items")).json()["total"]


async def test_different_bodies_at_once_make_one_item(client):
    """Of two contents that race for a key one wins, and every request with the other is refused."""
    bodies = [{"name": "Kettle"}, {"name": "Pan"}] * 10

    answers = await asyncio.gather(*(post(client, "k", body) for body in bodies))

    assert [201] * 10 + [422] * 10 == sorted(answer.status_code for answer in answers)
    assert 1 == len({essence(answer) for answer in answers if answer.status_code == 201})


@pytest.mark.parametrize(
    ("method", "query", "body"),
    [("PATCH", "", {"name": "Pan", "price": None}), ("DELETE", "", None), ("DELETE", "?permanent=true", None)],
)
async def test_a_replay_is_the_first_answer_whatever_came_since(client, method, query, body):
    """A changed, deactivated or removed item is answered as it was made, and is not made again."""
    first = await post(client, "k")
    await client.request(method, first.headers["location"] + query, json=body)
    since = await client.get(first.headers["location"])

    assert essence(first) == essence(await post(client, "k"))
    after = await client.get(first.headers["location"])
    assert (since.status_code, since.headers.get("etag")) == (after.status_code, after.headers.get("etag"))


@pytest.mark.parametrize("body", [BODY, {"name": "Pan"}])
async def test_a_key_is_forgotten_after_a_day(client, sql, body):
    """After 24 hours a key makes a new item, of whatever content, and then replays that one."""
    first = await post(client, "k")
    await sql.execute("UPDATE idempotency_keys SET created_at = now() - interval '23 hours 59 minutes'")
    assert essence(first) == essence(await post(client, "k"))

    await sql.execute("UPDATE idempotency_keys SET created_at = now() - interval '24 hours 1 second'")
    second = await post(client, "k", body)

    assert first.headers["location"] != second.headers["location"]
    assert "idempotency-replayed" not in second.headers
    assert essence(second) == essence(await post(client, "k", body))


async def test_a_forgotten_key_makes_one_item_for_fifty_requests(client, sql):
    """Requests that race for a key of yesterday agree on one new item."""
    first = await post(client, "k")
    await sql.execute("UPDATE idempotency_keys SET created_at = now() - interval '25 hours'")

    answers = {essence(answer) for answer in await asyncio.gather(*(post(client, "k") for _ in range(50)))}

    assert 1 == len(answers)
    assert essence(first) not in answers
    assert 2 == (await client.get("/items")).json()["total"]


async def test_a_refused_request_does_not_take_its_key(client):
    """A key that came with a body that is refused is still free."""
    assert {"name"} == refused_fields(await post(client, "k", {"name": ""}))

    assert "idempotency-replayed" not in (await post(client, "k")).headers


@pytest.mark.parametrize("key", ["", "k" * 256, "a b", "a\tb", "\x7f", "é", "k\x80"])
async def test_a_key_is_visible_ascii_within_its_bounds(client, key):
    """A key is 1 to 255 visible ASCII characters; any other is refused, and nothing made."""
    response = await client.post("/items", json=BODY, headers=[(b"Idempotency-Key", key.encode())])

    assert {"Idempotency-Key"} == refused_fields(response)
    assert 0 == (await client.get("/items")).json()["total"]


async def test_one_request_has_one_key(client):
    """Two lines of keys are refused, equal ones too."""
    for keys in (["a", "b"], ["a", "a"], ["a", ""]):
        response = await client.post("/items", json=BODY, headers=[("Idempotency-Key", key) for key in keys])
        assert {"Idempotency-Key"} == refused_fields(response)
