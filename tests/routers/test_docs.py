import re

import pytest

from app import TITLE

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
