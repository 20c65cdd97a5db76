from typing import Annotated

import httpx
import pytest
from fastapi import APIRouter, BackgroundTasks, Cookie, Depends, FastAPI, Header, Query, Request
from starlette.responses import JSONResponse, Response

from app.http.route import Route


@pytest.fixture
def router():
    """A router whose routes are `Route`."""
    return APIRouter(route_class=Route)


def served(router):
    """Return a client of an application with the routes of this router."""
    app = FastAPI(routes=router.routes)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver")


async def test_each_kind_of_argument_is_bound(router):
    """Path, query, headers, dependencies and the request are bound by name; absent parameters get their defaults."""

    async def twice(request: Request) -> str:
        return request.url.path * 2

    @router.get("/{number}")
    async def endpoint(  # noqa: PLR0917  # by name
        request: Request,
        number: int,
        path: Annotated[str, Depends(twice)],
        text: Annotated[str, Query(alias="Text")] = "none",
        texts: Annotated[list[str] | None, Query()] = None,
        x_tag: Annotated[list[str] | None, Header()] = None,
    ) -> Response:
        return JSONResponse([request.method, number, path, text, texts, x_tag])

    async with served(router) as client:
        full = await client.get("/7?Text=a&Text=b%2B+%C3%A9&texts=1&texts=", headers=[("X-Tag", "1"), ("x-tag", "2")])
        bare = await client.get("/7?text=a")

    assert ["GET", 7, "/7/7", "b+ é", ["1", ""], ["1", "2"]] == full.json()
    assert ["GET", 7, "/7/7", "none", None, None] == bare.json()


async def test_all_errors_are_reported_together(router):
    """Errors of all parts of a request are in one response, and so are missing parameters."""

    @router.get("/{number}")
    async def endpoint(number: int, size: int, x_count: Annotated[int, Header()]) -> Response:
        return JSONResponse([number, size, x_count])

    async with served(router) as client:
        response = await client.get("/a", headers={"X-Count": "b"})

    assert 422 == response.status_code
    assert [["path", "number"], ["query", "size"], ["header", "x-count"]] == [
        error["loc"] for error in response.json()["detail"]
    ]


async def test_an_unsupported_endpoint_is_refused(router):
    """An endpoint that `Route` cannot call is refused when it is declared."""

    def not_a_coroutine(request: Request) -> str:
        return request.url.path

    async def of_more(request: Request, q: str) -> str:
        return request.url.path + q

    async def with_cookie(session: Annotated[str, Cookie()]) -> None: ...

    async def with_tasks(tasks: BackgroundTasks) -> None: ...

    async def with_response(response: Response) -> None: ...

    async def with_plain_dependency(path: Annotated[str, Depends(not_a_coroutine)]) -> None: ...

    async def with_wider_dependency(path: Annotated[str, Depends(of_more)]) -> None: ...

    for endpoint in (with_cookie, with_tasks, with_response, with_plain_dependency, with_wider_dependency):
        with pytest.raises(TypeError):
            router.get("/")(endpoint)
