import pytest

from app.http import cursors, pagination
from app.http.pagination import MAX_PAGE_BYTES
from tests.answers import links, problem
from tests.routers.item_lists import fill, ids

LARGEST = "repeat(chr(1), 10000)"
"""A description that is 60,002 bytes of JSON."""


async def test_a_page_of_twenty_always_fits(client, sql):
    """Twenty of the largest items that can be stored are one page."""
    await fill(sql, 21, name="repeat(chr(1), 255)")
    await sql.execute(f"UPDATE items SET description = {LARGEST}, price = 9999999999.99")

    response = await client.get("/items")

    assert 20 == len(ids(response))
    assert 20 * 61_000 < len(response.content) <= MAX_PAGE_BYTES


async def test_a_numbered_page_that_is_too_large_is_refused(client, sql):
    """Beyond 2 MiB the answer is 422 and names `per_page` and `cursor`."""
    await fill(sql, 100)
    await sql.execute(f"UPDATE items SET description = {LARGEST}")

    body = problem(await client.get("/items?per_page=100"), 422, "page_too_large")

    assert "2,097,152 bytes" in body["detail"]
    assert "`per_page`" in body["detail"]
    assert "`cursor`" in body["detail"]
    assert 34 == len(ids(await client.get("/items?per_page=34")))


@pytest.mark.parametrize("limit", [1, 700, 2000, 5000])
async def test_pages_after_a_cursor_end_early_at_the_limit(client, sql, monkeypatch, limit):
    """A page after a cursor has at most the limit's bytes and at least one item. No item is lost or returned twice."""
    monkeypatch.setattr(pagination, "MAX_PAGE_BYTES", limit)
    await fill(sql, 40, name="repeat('n', 1 + n * 37 % 255)")
    cursor, found, lengths = cursors.encode(0), [], []

    while cursor:
        response = await client.get(f"/items?per_page=15&cursor={cursor}")
        found += ids(response)
        lengths.append(len(ids(response)))
        assert len(response.content) <= limit or 1 == lengths[-1]
        cursor = response.json()["next_cursor"]
        assert (cursor is not None) == ("next" in links(response))

    assert list(range(1, 41)) == found
    assert all(lengths)


async def test_a_page_after_a_cursor_is_as_long_as_the_limit_allows(client, sql, monkeypatch):
    """One byte less than the page has, and its last item is left for the next page."""
    await fill(sql, 6)
    whole = await client.get(f"/items?per_page=5&cursor={cursors.encode(0)}")

    monkeypatch.setattr(pagination, "MAX_PAGE_BYTES", len(whole.content))
    assert whole.content == (await client.get(f"/items?per_page=5&cursor={cursors.encode(0)}")).content
    monkeypatch.setattr(pagination, "MAX_PAGE_BYTES", len(whole.content) - 1)
    assert [1, 2, 3, 4] == ids(await client.get(f"/items?per_page=5&cursor={cursors.encode(0)}"))
