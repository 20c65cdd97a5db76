import json

import pytest

from app.crud import item_export
from app.errors import StatementTimeoutError
from app.http import cursors
from app.settings import Settings
from tests.answers import problem, refused_fields
from tests.application import opened
from tests.routers.item_lists import fill


def exported(response):
    """Return the items of an export, which is complete."""
    assert 200 == response.status_code, response.text
    assert "application/x-ndjson" == response.headers["content-type"]
    assert not response.text or response.text.endswith("\n")
    return [json.loads(line) for line in response.text.splitlines()]


async def test_an_export_has_all_items_as_lists_have_them(client, sql):
    """Each line is an item with the members that it has in a list, in the order of the ids."""
    await fill(sql, 1100, name="'Kettle ' || n || ' ü'")
    items = exported(await client.get("/items/export"))
    listed = (await client.get("/items?per_page=100")).json()["items"]

    assert listed == items[:100]
    assert list(range(1, 1101)) == [item["id"] for item in items]


async def test_an_export_takes_the_filters_of_a_list(client, sql):
    """`is_active` and `q` select items as they do in a list."""
    await fill(sql, 40, name="'Kettle ' || n", active="n % 2 = 0")

    for query in ("is_active=true", "is_active=false", "q=TLE%203", "q=3&is_active=true", "q=nothing", "q=", "q=%25"):
        listed = (await client.get(f"/items?per_page=100&{query}")).json()["items"]
        assert listed == exported(await client.get(f"/items/export?{query}")), query


async def test_an_export_is_resumed_after_its_last_line(client, sql):
    """`cursor` is the id of the last item, or a cursor of a list: the rest follows."""
    await fill(sql, 30)
    items = exported(await client.get("/items/export"))

    for cursor in (str(items[9]["id"]), cursors.encode(items[9]["id"])):
        assert items[10:] == exported(await client.get("/items/export", params={"cursor": cursor}))
    assert [] == exported(await client.get("/items/export", params={"cursor": str(2**63 - 1)}))


@pytest.mark.parametrize("cursor", ["", "x", "-1", "1.5", "+1", "٣", " 1", str(2**63), "9" * 30, "A" * 16, "A" * 65])
async def test_a_cursor_that_is_neither_an_id_nor_a_cursor_is_refused(client, cursor):
    """The response is 422 and names `cursor`."""
    assert {"cursor"} == refused_fields(await client.get("/items/export", params={"cursor": cursor}))


async def test_head_has_the_head_of_an_export(client, sql):
    """HEAD has the same status and content type, and no body."""
    await fill(sql, 3)
    response = await client.head("/items/export")

    assert 200 == response.status_code
    assert "application/x-ndjson" == response.headers["content-type"]
    assert b"" == response.content


async def test_a_failure_before_the_first_line_is_a_problem(client, monkeypatch):
    """The response to a first statement that fails has its own status."""

    async def fail(*arguments, **filters):
        raise StatementTimeoutError

    monkeypatch.setattr(item_export, "chunk_after", fail)

    problem(await client.get("/items/export"), 504, "statement_timeout")


@pytest.mark.parametrize("name", ["page", "per_page", "count", "sort", "updated_after", "ids"])
async def test_the_parameters_of_a_list_are_refused(client, name):
    """An export that ignored them would contain other items than the client expects."""
    assert {name} == refused_fields(await client.get("/items/export", params={name: "1"}))


async def test_exports_have_a_limit_of_their_own(database_url):
    """A client begins RATE_LIMIT_EXPORT exports, also by HEAD, and is then refused. Other requests are not."""
    settings = Settings.load(database_url=database_url, rate_limit_export="2/hour", _env_file=None)
    async with opened(settings) as client:
        assert 422 == (await client.get("/items/export?is_active=x")).status_code
        assert 200 == (await client.get("/items/export")).status_code
        assert 200 == (await client.head("/items/export")).status_code
        refused = await client.get("/items/export?q=a")
        problem(refused, 429, "rate_limited")
        assert 3595 < int(refused.headers["retry-after"]) <= 3600
        assert '"route";q=2;w=3600' == refused.headers["ratelimit-policy"]
        assert f'"route";r=0;t={refused.headers["retry-after"]}' == refused.headers["ratelimit"]
        assert 200 == (await client.get("/items")).status_code


async def test_exports_have_no_limit_where_limits_are_off(client):
    """RATE_LIMIT_ENABLED=false switches this limit off as well."""
    for _ in range(12):
        assert 200 == (await client.get("/items/export")).status_code


async def test_an_export_is_counted_and_logged_as_a_request(client, sql, lines):
    """The route is that of the export, and the log line has its bytes."""
    await fill(sql, 3)
    lines()
    response = await client.get("/items/export")
    (line,) = [line for line in lines() if line["event"] == "request_served"]
    metrics = (await client.get("/metrics")).text

    assert ("/items/export", 200, len(response.content)) == (line["route"], line["status"], line["bytes"])
    assert 'handler="/items/export",method="GET",status="200"' in metrics
