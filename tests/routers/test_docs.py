import re

import pytest

ASSETS = ["/docs/start.js", "/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css"]


async def test_the_page_comes_whole_from_this_server(client):
    """The page names no other host, its policy allows none, and all it asks for is here."""
    page = await client.get("/docs")

    assert "text/html; charset=utf-8" == page.headers["content-type"]
    targets = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert set(ASSETS) == {target for target in targets if not target.startswith("data:")}
    assert "http" not in page.text
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "http" not in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert "nosniff" == page.headers["x-content-type-options"]


@pytest.mark.parametrize("path", ASSETS)
async def test_each_asset_is_served_as_what_it_is(client, path):
    """Scripts and styles have their types, which browsers are told not to guess; HEAD answers the same."""
    asset, head = await client.get(path), await client.head(path)

    assert 200 == asset.status_code
    assert ("text/css" if path.endswith("css") else "text/javascript") == asset.headers["content-type"].partition(";")[
        0
    ]
    assert "nosniff" == asset.headers["x-content-type-options"]
    assert len(asset.content) == int(asset.headers["content-length"]) == int(head.headers["content-length"])
    assert b"" == head.content


async def test_the_page_shows_this_document(client):
    """What the page loads is the document of this service."""
    assert '"/openapi.json"' in (await client.get("/docs/start.js")).text
    assert "Items API" == (await client.get("/openapi.json")).json()["info"]["title"]


@pytest.mark.parametrize(
    "path", ["/redoc", "/docs/", "/docs/oauth2-redirect", "/docs/../pyproject.toml", "/docs/%2e%2e/pyproject.toml"]
)
async def test_nothing_else_is_served(client, path):
    """There is no other page, and no way to other files."""
    assert 404 == (await client.get(path)).status_code
