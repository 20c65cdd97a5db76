import asyncio
import gc
import time
from typing import Any

import httpx
import orjson
import pytest

from tests.answers import problem, refused_fields
from tests.application import opened

KETTLE = {"name": "Kettle", "description": "Boils a litre.", "price": 34.5, "is_active": False}
DEFAULTS = {"description": None, "price": None, "is_active": True}
JSON = {"Content-Type": "application/json"}
LIMIT = 1024 * 1024

COUNTED = 700_000
"""Counting so far takes 10 ms of CPU time here and longer where everything does."""


async def send(client: httpx.AsyncClient, items: Any, **headers: str) -> httpx.Response:
    """Send a batch."""
    return await client.post("/items/batch", json={"items": items}, headers=headers)


async def total(client: httpx.AsyncClient) -> int:
    """How many items there are."""
    number: int = (await client.get("/items", params={"count": "exact"})).json()["total"]
    return number


async def test_a_batch_creates_its_items_in_the_order_sent(client):
    """The answer is 201 with the items as they can be read, each with its ETag."""
    answer = await send(client, [KETTLE, {"name": "  Pan\n"}, {"name": "Pot", "price": 1, "colour": "red"}])

    assert (201, ["items"]) == (answer.status_code, list(answer.json()))
    assert "location" not in answer.headers
    created = answer.json()["items"]
    assert [("Kettle", 34.5), ("Pan", None), ("Pot", 1)] == [(item["name"], item["price"]) for item in created]
    assert KETTLE == {name: created[0][name] for name in KETTLE}
    assert DEFAULTS == {name: created[1][name] for name in DEFAULTS}
    assert created == (await client.get("/items")).json()["items"]
    for item in created:
        read = await client.get(f"/items/{item['id']}")
        assert read.headers["etag"] == item["etag"]
        assert read.json() == {name: value for name, value in item.items() if name != "etag"}


@pytest.mark.parametrize("items", [[], [KETTLE] * 501, None, "x", {}, 1])
async def test_a_batch_has_1_to_500_items(client, items):
    """Another number, or something that is no list, is 422."""
    assert {"items"} == refused_fields(await send(client, items))
    assert 201 == (await send(client, [{"name": "Kettle"}] * 500)).status_code
    assert 500 == await total(client)


@pytest.mark.parametrize(("body", "field"), [({}, "items"), ([], "body"), ({"item": [KETTLE]}, "items")])
async def test_a_body_is_an_object_with_items(client, body, field):
    """Another document is 422."""
    assert {field} == refused_fields(await client.post("/items/batch", json=body))


async def test_all_errors_of_all_items_are_named(client):
    """One bad item refuses the batch. Each error names its item and field; the answer is bounded by their number."""
    bad = {"name": "", "description": 1, "price": 0.001, "is_active": None}
    assert {"items.1.name", "items.3"} == refused_fields(
        await send(client, [KETTLE, {"name": "a\0"}, KETTLE, "no item", KETTLE])
    )
    answer = await send(client, [bad] * 500)

    assert {f"items.{place}.{name}" for place in range(500) for name in bad} == refused_fields(answer)
    assert len(answer.content) < 250_000
    assert 0 == await total(client)


@pytest.mark.parametrize("content", [rb'{"items":[{"name":"\ud800"}]}', b'{"items":[{"name":"\xff"}]}', b'{"items":['])
async def test_a_malformed_document_is_refused(client, content):
    """A lone surrogate, bytes that are not UTF-8, and an open end are 400."""
    problem(await client.post("/items/batch", content=content, headers=JSON), 400, "malformed_body")


def padded(size: int) -> bytes:
    """A batch of this size."""
    empty = '{"items": [{"name": "Kettle", "padding": ""}]}'
    return empty.replace('""', f'"{"x" * (size - len(empty))}"').encode()


async def test_a_body_has_at_most_1_mib(client):
    """Its limit is its own, and greater than MAX_BODY_BYTES. Other routes keep theirs."""
    assert 201 == (await client.post("/items/batch", content=padded(LIMIT), headers=JSON)).status_code
    problem(await client.post("/items/batch", content=padded(LIMIT + 1), headers=JSON), 413, "body_too_large")
    problem(await client.post("/items", content=padded(65_537), headers=JSON), 413, "body_too_large")


async def test_a_document_of_many_values_is_refused_before_it_is_parsed(client):
    """More than 50,000 values, in fields that are ignored too, are 422. Those in texts are no values."""
    for ignored in (
        b"[" + b"0," * 50_000 + b"0]",
        b'{"a":[' + b"{}," * 25_001 + b"0]}",
        b'["' + b'","' * 300_000 + b'"]',
    ):
        content = b'{"items":[{"name":"Kettle","ignored":' + ignored + b"}]}"
        assert {"body"} == refused_fields(await client.post("/items/batch", content=content, headers=JSON))
    texts = orjson.dumps({"items": [{"name": "Kettle", "description": '[{"\\,",:}]' * 1_000}] * 40})
    assert 201 == (await client.post("/items/batch", content=texts, headers=JSON)).status_code


@pytest.mark.parametrize(("method", "status"), [("GET", 405), ("PUT", 405), ("DELETE", 405), ("HEAD", 405)])
async def test_the_path_is_no_id(client, method, status):
    """Other methods are 405."""
    answer = await client.request(method, "/items/batch", json={"name": "Kettle"} if method == "PUT" else None)
    assert (status, "POST") == (answer.status_code, answer.headers["allow"])


async def test_a_retry_gets_the_first_answer(client):
    """The same key and content create the items once, whatever becomes of them. Another content is 422."""
    first = await send(client, [KETTLE, {"name": "Pan"}], **{"Idempotency-Key": "k"})
    await client.patch(f"/items/{first.json()['items'][0]['id']}", json={"name": "Pot"})
    again = await send(client, [KETTLE, {"name": " Pan", "price": None}], **{"Idempotency-Key": "k"})

    assert (201, first.content) == (again.status_code, again.content)
    assert (None, "true") == tuple(answer.headers.get("idempotency-replayed") for answer in (first, again))
    for other in ([KETTLE], [{"name": "Pan"}, KETTLE], [KETTLE, {"name": "Pan"}, KETTLE]):
        problem(await send(client, other, **{"Idempotency-Key": "k"}), 422, "idempotency_key_reused")
    assert {"Idempotency-Key"} == refused_fields(await send(client, [KETTLE], **{"Idempotency-Key": "a b"}))
    assert 2 == await total(client)


async def test_a_key_creates_one_item_or_a_batch(client):
    """A key that was used for one item is refused for a batch of the same item, and the other way round."""
    await client.post("/items", json=KETTLE, headers={"Idempotency-Key": "one"})
    await send(client, [KETTLE], **{"Idempotency-Key": "batch"})

    problem(await send(client, [KETTLE], **{"Idempotency-Key": "one"}), 422, "idempotency_key_reused")
    answer = await client.post("/items", json=KETTLE, headers={"Idempotency-Key": "batch"})
    problem(answer, 422, "idempotency_key_reused")
    assert 2 == await total(client)


async def test_concurrent_retries_create_the_items_once(settings):
    """They wait for the first one, and get its answer."""
    async with opened(settings.model_copy(update={"database_wait_seconds": 20.0})) as client:
        answers = await asyncio.gather(*(send(client, [KETTLE] * 3, **{"Idempotency-Key": "k"}) for _ in range(10)))

        assert 1 == len({answer.content for answer in answers})
        assert 9 == sum("idempotency-replayed" in answer.headers for answer in answers)
        assert 3 == await total(client)


@pytest.fixture
def limited(settings):
    """Settings with a quota of ten writes."""
    return settings.model_copy(update={"rate_limit_enabled": True, "rate_limit_write": "10/minute"})


async def test_a_batch_counts_as_its_items(limited):
    """What does not fit into the quota is refused whole, with nothing created; what never fits is 422."""
    async with opened(limited) as client:
        first = await send(client, [KETTLE] * 7)
        assert (201, '"write";r=3;t=60') == (first.status_code, first.headers["ratelimit"])
        refused = await send(client, [KETTLE] * 4)
        problem(refused, 429, "rate_limited")
        assert ("60", '"write";r=2;t=60') == (refused.headers["retry-after"], refused.headers["ratelimit"])
        assert "counts as 11 requests" in problem(await send(client, [KETTLE] * 11), 422, "quota_too_small")["detail"]
        last = await client.post("/items", json=KETTLE)
        assert (201, '"write";r=0;t=60') == (last.status_code, last.headers["ratelimit"])
        assert 8 == await total(client)


async def test_an_invalid_batch_counts_as_one(limited):
    """Its items were not created."""
    async with opened(limited) as client:
        refused = await send(client, [{"name": ""}] * 5)
    assert (422, '"write";r=9;t=60') == (refused.status_code, refused.headers["ratelimit"])


def filled(item: dict[str, Any]) -> bytes:
    """A document of 500 such items, of almost 1 MiB: an unknown field fills it."""
    size = (LIMIT - len(orjson.dumps({"items": [item] * 500}))) // 500 - len(',"filling":""')
    return orjson.dumps({"items": [{**item, "filling": "x" * size} for _ in range(500)]})


HEAVY = {
    "small": orjson.dumps({"items": [KETTLE] * 500}),
    "long": orjson.dumps({"items": [KETTLE | {"name": "x" * 255, "description": "y" * 1_700}] * 500}),
    "not Latin": orjson.dumps({"items": [KETTLE | {"name": "é" * 250, "description": "\u0301🫖" * 240}] * 500}),
    "escaped": orjson.dumps({"items": [KETTLE | {"description": "\x01" * 320}] * 500}),
    "all invalid": filled({"name": "", "description": 1, "price": 0.001, "is_active": 1}),
    "invisible": orjson.dumps({"items": [{"name": "\u0301" * 255, "description": "\u0301" * 700}] * 500}),
    "many values": filled({"name": "Kettle", "ignored": [{}] * 40}),
    "too many values": b'{"items":[' + b"{}," * 349_000 + b"{}]}",
    "too many items": b'{"items":[' + b'{"name":"a"},' * 12_000 + b"{}]}",
}


def counting_seconds() -> float:
    """The CPU time that counting to `COUNTED` takes now."""
    began = time.thread_time()
    for _ in range(COUNTED):
        pass
    return time.thread_time() - began


async def longest_hold(client: httpx.AsyncClient, content: bytes, key: str) -> float:
    """The longest CPU time for which a batch kept others from running, in multiples of `counting_seconds`."""
    held: list[float] = []

    async def watch() -> None:
        while True:
            began = time.thread_time()
            await asyncio.sleep(0)
            held.append(time.thread_time() - began)

    gc.collect()
    gc.freeze()  # as a worker does when it starts: what is there before is not looked at
    before = counting_seconds()
    watching = asyncio.create_task(watch())
    await asyncio.sleep(0)
    answer = await client.post("/items/batch", content=content, headers=JSON | {"Idempotency-Key": key})
    await asyncio.sleep(0)
    watching.cancel()
    gc.unfreeze()
    assert answer.status_code in {201, 422}
    return max(held) / max(before, counting_seconds())


@pytest.mark.parametrize("content", HEAVY.values(), ids=HEAVY)
async def test_no_batch_holds_the_event_loop(client, content):
    """Others run at least every 20 ms of CPU time, whatever is in a batch. The best of three: a machine has pauses."""
    assert len(content) <= LIMIT
    await client.post("/items/batch", content=HEAVY["small"], headers=JSON)
    holds = [await longest_hold(client, content, key) for key in "abc"]
    assert min(holds) < 2, holds
