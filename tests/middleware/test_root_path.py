from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from starlette.types import Receive, Scope, Send

from app.middleware.root_path import RootPath
from app.settings import Settings
from tests.answers import links, problem
from tests.log_lines import Lines
from tests.sample.app import create_app

# The prefix is also the path of a route: it must not be taken off twice.
PREFIXES = ["/shop", "/samples", "/api/v1"]


@pytest.fixture
def app(settings: Settings, request: pytest.FixtureRequest) -> FastAPI:
    """The application behind a proxy that strips a prefix."""
    return create_app(settings.model_copy(update={"root_path": request.param}))


@pytest.fixture
async def stripped(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client that sends what the proxy sends: paths without the prefix."""
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver") as running,
    ):
        yield running


@pytest.mark.parametrize(("app", "prefix"), [(prefix, prefix) for prefix in PREFIXES], indirect=["app"])
async def test_links_have_the_prefix(stripped, prefix):
    """`Location`, `Link`, the index and the document's servers have the prefix, and the paths without it are served."""
    created = [await stripped.post("/samples", json={"name": "Kettle"}) for _ in range(2)]
    page = await stripped.get("/samples?per_page=1")
    after = await stripped.get(f"/samples?per_page=1&cursor={page.json()['next_cursor']}")
    index = await stripped.get("/")
    document = (await stripped.get("/openapi.json")).json()

    assert [f"{prefix}/samples/{answer.json()['id']}" for answer in created] == [
        answer.headers["location"] for answer in created
    ]
    assert 200 == (await stripped.get(created[0].headers["location"].removeprefix(prefix))).status_code
    for listed in (page, after):
        assert links(listed)
        assert all(target.startswith(f"{prefix}/samples?") for target in links(listed).values())
    assert all(target.startswith(f"{prefix}/") for target in index.json()["links"].values())
    assert [{"url": prefix}] == document["servers"]
    assert "/samples" in document["paths"]


@pytest.mark.parametrize("app", PREFIXES, indirect=True)
async def test_other_answers_and_lines_do_not_change(stripped, lines: Lines):
    """Errors, HEAD, probes and 405 are as without a prefix, and the log has the path that was received."""
    problem(await stripped.get("/samples/999"), 404, "sample_not_found")
    problem(await stripped.get("/nowhere"), 404, "not_found")
    refused = await stripped.delete("/samples")
    problem(refused, 405, "method_not_allowed")
    assert {"GET", "HEAD", "POST"} == set(refused.headers["allow"].split(", "))
    for path in ("/health", "/health/ready", "/docs", "/docs/start.js"):
        assert 200 == (await stripped.head(path)).status_code
    served = [line for line in lines() if line["event"] == "request_served"]

    assert ["/samples/999", "/nowhere", "/samples", "/health", "/health/ready", "/docs", "/docs/start.js"] == [
        line["path"] for line in served
    ]
    assert ["/samples/{sample_id}", "none", "/samples"] == [line["route"] for line in served[:3]]


@pytest.mark.parametrize("app", PREFIXES, indirect=True)
async def test_the_headers_do_not_change(stripped):
    """The answers of a resource may be kept and must be validated, and others are not stored, as without a prefix."""
    for path in ("/samples", "/samples/999", "/samples?page=0"):
        assert "private, no-cache" == (await stripped.get(path)).headers["cache-control"], path
    assert {"no-store"} == {(await stripped.get(path)).headers["cache-control"] for path in ("/", "/nowhere")}


@pytest.mark.parametrize("app", ["/shop"], indirect=True)
async def test_a_handler_finds_the_prefix(app, stripped):
    """`request.url_for`, `request.url` and `root_path` are those that a client uses."""

    @app.get("/widgets/{number}")
    async def widget(request: Request, number: int) -> list[str]:
        url = request.url_for("widget", number=number)
        return [url.path, request.url.path, request.scope["root_path"]]

    assert ["/shop/widgets/7", "/shop/widgets/7", "/shop"] == (await stripped.get("/widgets/7")).json()


async def test_the_documentation_page_works_below_any_prefix(client):
    """The links of the page and of its script are relative."""
    page, script = (await client.get("/docs")).text, (await client.get("/docs/start.js")).text

    assert not any(text in page for text in ('="/', "='/"))
    assert 'url: "openapi.json"' in script


async def test_the_scope_is_restored():
    """After the request, also after a failure, outer middleware sees the path that was received."""

    async def fail(scope: Scope, _receive: Receive, _send: Send) -> None:
        assert (b"/shop/a%20b", "/shop/a b", "/shop") == (scope["raw_path"], scope["path"], scope["root_path"])
        raise ValueError("in the route")

    async def unused(*_: object) -> Any:
        raise AssertionError

    scope = {"type": "http", "path": "/a b", "raw_path": b"/a%20b", "root_path": ""}
    with pytest.raises(ValueError, match="in the route"):
        await RootPath(fail, "/shop")(scope, unused, unused)

    assert {"type": "http", "path": "/a b", "raw_path": b"/a%20b", "root_path": ""} == scope
