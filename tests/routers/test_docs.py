import re

import pytest

from app import TITLE
from tests.answers import problem

ASSETS = ["/docs/start.js", "/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css"]


async def test_the_page_loads_from_this_server_only(client):
    """The page names no other host, its policy allows none, and its files are the known ones."""
    page = await client.get("/docs")

    assert "text/html; charset=utf-8" == page.headers["content-type"]
    targets = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert set(ASSETS) == {f"/{target}" for target in targets if not target.startswith("data:")}
    assert "http" not in page.text
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "http" not in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert "nosniff" == page.headers["x-content-type-options"]


@pytest.mark.parametrize("path", ASSETS)
async def test_each_asset_has_its_content_type(client, path):
    """Scripts and styles have their content type and `nosniff`; HEAD has the same length."""
    asset, head = await client.get(path), await client.head(path)

    assert 200 == asset.status_code
    assert ("text/css" if path.endswith("css") else "text/javascript") == asset.headers["content-type"].partition(";")[
        0
    ]
    assert "nosniff" == asset.headers["x-content-type-options"]
    assert len(asset.content) == int(asset.headers["content-length"]) == int(head.headers["content-length"])
    assert b"" == head.content


@pytest.mark.parametrize("path", ASSETS[1:])
@pytest.mark.parametrize(
    ("wanted", "status", "code"),
    [
        ("bytes=99999999-", 416, "requested_range_not_satisfiable"),
        ("bytes=5-2", 400, "bad_request"),
        ("bytes=x", 400, "bad_request"),
        ("lines=1-2", 400, "bad_request"),
        ("5", 400, "bad_request"),
    ],
)
async def test_a_range_that_cannot_be_served_is_a_problem(client, path, wanted, status, code):
    """A range beyond the end is 416 with the size of the file, a malformed one is 400."""
    whole, refused = await client.head(path), await client.get(path, headers={"Range": wanted})

    problem(refused, status, code)
    if status == 416:
        assert f"bytes */{whole.headers['content-length']}" == refused.headers["content-range"]


async def test_a_part_of_an_asset_is_served(client):
    """A range within the file is answered 206, with the caching of the whole."""
    part = await client.get("/docs/swagger-ui.css", headers={"Range": "bytes=0-3"})

    assert (206, 4) == (part.status_code, len(part.content))
    assert "public, max-age=86400" == part.headers["cache-control"]


async def test_the_page_shows_this_document(client):
    """The page loads this service's OpenAPI document."""
    assert '"openapi.json"' in (await client.get("/docs/start.js")).text
    assert TITLE == (await client.get("/openapi.json")).json()["info"]["title"]


@pytest.mark.parametrize(
    "path", ["/redoc", "/docs/", "/docs/oauth2-redirect", "/docs/../pyproject.toml", "/docs/%2e%2e/pyproject.toml"]
)
async def test_other_paths_are_not_found(client, path):
    """Other pages and other files are 404."""
    assert 404 == (await client.get(path)).status_code
