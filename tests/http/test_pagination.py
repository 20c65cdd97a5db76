from typing import Any

import pytest

from app.errors import InvalidFieldError
from app.http.pagination import MAX_OFFSET, Pagination
from tests.answers import links, refused_fields


@pytest.fixture
async def filled(client, sql):
    """A client, after 250 samples were stored."""
    await sql.execute("INSERT INTO samples (name) SELECT 'Sample ' || n FROM generate_series(1, 250) AS n")
    return client


def ids(response):
    """Return the ids of the listed samples."""
    assert 200 == response.status_code, response.text
    return [sample["id"] for sample in response.json()["samples"]]


async def test_a_page_has_the_documented_shape(filled):
    """A page has the rows under the resource's name, its number, the totals and a cursor."""
    page = (await filled.get("/samples?page=2&per_page=100")).json()

    assert ["samples", "page", "per_page", "total", "total_is_exact", "pages", "next_cursor"] == list(page)
    assert (2, 100, 250, True, 3) == tuple(page[m] for m in ("page", "per_page", "total", "total_is_exact", "pages"))
    alone = await filled.get("/samples/101")
    assert page["samples"][0] == alone.json() | {"etag": alone.headers["etag"]}


async def test_an_empty_list_has_no_pages(client):
    """Without rows there are 0 pages and no cursor, and only `first` is linked."""
    response = await client.get("/samples")

    assert {
        "samples": [], "page": 1, "per_page": 20, "total": 0, "total_is_exact": True, "pages": 0, "next_cursor": None,
    } == response.json()  # fmt: skip
    assert ["first"] == list(links(response))


async def test_following_next_links_reads_every_row_once(filled):
    """A client that follows `next`, from the first page or from a cursor, gets every row once and reaches the end."""
    cursor = (await filled.get("/samples?per_page=10")).json()["next_cursor"]
    for target, first in [("/samples?per_page=99", 1), (f"/samples?per_page=99&cursor={cursor}", 11)]:
        seen: list[int] = []
        following: str | None = target
        while following:
            response = await filled.get(following)
            seen += ids(response)
            following = links(response).get("next")

        assert list(range(first, 251)) == seen
        assert response.json()["next_cursor"] is None


async def test_links_name_the_other_pages(filled):
    """`Link` names the first, previous, next and last page, without the Host header, which the client chooses."""
    targets = links(await filled.get("/samples?page=2&per_page=100", headers={"Host": "evil.example"}))

    assert ["first", "last", "next", "prev"] == sorted(targets)
    assert ids(await filled.get(targets["first"])) == ids(await filled.get(targets["prev"])) == list(range(1, 101))
    assert ids(await filled.get(targets["next"])) == ids(await filled.get(targets["last"])) == list(range(201, 251))
    assert all(target.startswith("/samples?") for target in targets.values())


async def test_after_a_cursor_there_are_no_totals(filled):
    """`page`, `pages` and the total are null; `page` together with `cursor` is refused."""
    cursor = (await filled.get("/samples?per_page=2")).json()["next_cursor"]

    after = (await filled.get(f"/samples?per_page=2&cursor={cursor}")).json()

    assert [3, 4] == [sample["id"] for sample in after["samples"]]
    assert [None] * 4 == [after[member] for member in ("page", "pages", "total", "total_is_exact")]
    assert {"page"} == refused_fields(await filled.get(f"/samples?page=1&cursor={cursor}"))


def pagination(**values):
    """Return the pagination of a request for rows of the resource `teas`."""
    request: dict[str, Any] = {
        "resource": "teas",
        "path": "/teas",
        "page": None,
        "per_page": 20,
        "cursor": None,
        "filters": {},
    }
    return Pagination(**request | values)


def listed(page, *, total, has_next):
    """Return a response body with these facts."""
    return {"page": page, "pages": -(-total // 20), "total_is_exact": True, "next_cursor": "C" if has_next else None}


def test_a_page_number_reaches_a_bounded_depth():
    """10,000 rows can be skipped. Beyond, the error names `page`."""
    assert MAX_OFFSET == pagination(page=501).offset
    with pytest.raises(InvalidFieldError) as raised:
        _ = pagination(page=502).offset
    (refused,) = raised.value.errors
    assert "page" == refused["field"]
    assert "`cursor`" in refused["message"]


def test_beyond_the_greatest_page_number_the_next_link_has_a_cursor():
    """The page after the last one that a number reaches is linked by its cursor, and `last` is not linked."""
    targets = pagination(page=501).links(listed(501, total=10_250, has_next=True))

    assert "cursor=C&" in targets
    assert 'rel="last"' not in targets


def test_links_repeat_the_filters():
    """The other parameters of the request are in every link, quoted."""
    targets = pagination(page=2, filters={"q": "a&b%"}).links(listed(2, total=60, has_next=True))

    assert 4 == targets.count("per_page=20&q=a%26b%25")
