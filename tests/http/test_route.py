from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Query, Request
from starlette.responses import JSONResponse, Response

from app.http.route import Route

# What FastAPI documents is compared with FastAPI in test_same_as_fastapi.py.


@pytest.fixture
def router():
    """A router whose routes are `Route`."""
    return APIRouter(route_class=Route)


def is_bound(router):
    """Whether a `Binding` calls the endpoint of the only route."""
    (route,) = router.routes
    return route.binding is not None


def served(router):
    """Return a client of an application with the routes of this router."""
    app = FastAPI(routes=router.routes)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver")


async def deny():
    """Refuse every request."""
    raise HTTPException(403)


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

    assert is_bound(router)
    assert ["GET", 7, "/7/7", "b+ é", ["1", ""], ["1", "2"]] == full.json()
    assert ["GET", 7, "/7/7", "none", None, None] == bare.json()


async def test_all_errors_are_reported_together(router):
    """Errors of all parts of a request are in one response, and so are missing parameters."""

    @router.get("/{number}")
    async def endpoint(number: int, size: int, x_count: Annotated[int, Header()]) -> Response:
        return JSONResponse([number, size, x_count])

    async with served(router) as client:
        response = await client.get("/a", headers={"X-Count": "b"})

    assert is_bound(router)
    assert 422 == response.status_code
    assert [["path", "number"], ["query", "size"], ["header", "x-count"]] == [
        error["loc"] for error in response.json()["detail"]
    ]


@pytest.mark.parametrize(
    "declared", [{"dependencies": [Depends(deny)]}, {}], ids=["dependency without a name", "no dependency"]
)
async def test_a_dependency_without_a_name_is_called(declared):
    """A dependency of the router whose value nobody takes still refuses the request."""
    router = APIRouter(route_class=Route, **declared)

    @router.get("/")
    async def endpoint() -> Response:
        return Response("served")

    async with served(router) as client:
        response = await client.get("/")

    assert is_bound(router)
    assert (403 if declared else 200) == response.status_code


async def test_dependencies_are_called_before_parameters_are_validated(router):
    """As in FastAPI, a refusal by a dependency comes before the 422 for an invalid parameter."""

    @router.get("/{number}", dependencies=[Depends(deny)])
    async def endpoint(number: int) -> Response:
        return JSONResponse(number)

    async with served(router) as client:
        assert 403 == (await client.get("/a")).status_code


async def test_the_body_can_be_read_from_the_request_too(router):
    """A dependency and an endpoint that take the request read the body that was parsed already."""

    async def raw(request: Request) -> bytes:
        return await request.body()

    @router.post("/")
    async def endpoint(request: Request, document: dict[str, int], body: Annotated[bytes, Depends(raw)]) -> Response:
        chunks = [chunk async for chunk in request.stream()]
        return JSONResponse([document, body.decode(), b"".join(chunks).decode()])

    async with served(router) as client:
        response = await client.post("/", content=b'{"a":  1}', headers={"Content-Type": "application/json"})

    assert is_bound(router)
    assert [{"a": 1}, '{"a":  1}', '{"a":  1}'] == response.json()


async def test_an_endpoint_that_breaks_its_annotation_is_named(router):
    """An endpoint that declares a Response and returns something else raises a TypeError that names it."""

    @router.get("/")
    async def endpoint() -> Response:
        return {"a": 1}  # type: ignore[return-value]

    async with served(router) as client:
        with pytest.raises(TypeError, match=r"endpoint.* returned <class 'dict'>"):
            await client.get("/")


async def test_a_derived_class_with_its_own_handler_is_called():
    """A class that overrides `get_route_handler`, as FastAPI's documentation shows, is not passed over."""

    class Marked(Route):
        def get_route_handler(self) -> Callable[[Request], Any]:
            handler = super().get_route_handler()

            async def marked(request: Request) -> Response:
                response = await handler(request)
                response.headers["X-Marked"] = "1"
                return response

            return marked

    router = APIRouter(route_class=Marked)

    @router.post("/")
    async def endpoint(document: dict[str, int]) -> Response:
        return JSONResponse(document)

    async with served(router) as client:
        response = await client.post("/", json={"a": 1})

    assert ("1", {"a": 1}) == (response.headers["x-marked"], response.json())


async def test_overrides_take_effect_at_any_time(router):
    """A dependency is overridden and restored between requests, on a router that the application includes or not."""

    async def number() -> int:
        return 1

    async def other_number() -> int:
        return 2

    @router.get("/")
    async def endpoint(value: Annotated[int, Depends(number)]) -> Response:
        return JSONResponse(value)

    app = FastAPI()
    app.include_router(router)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver") as client:
        values = [(await client.get("/")).json()]
        app.dependency_overrides[number] = other_number
        values.append((await client.get("/")).json())
        app.dependency_overrides.clear()
        values.append((await client.get("/")).json())

    assert [1, 2, 1] == values


def test_a_negative_size_limit_is_refused(router):
    """A `max_body_size` that FastAPI refuses is refused here."""
    with pytest.raises(ValueError, match="max_body_size"):
        router.post("/", max_body_size=-1)(deny)


async def in_a_loop() -> None:
    """A dependency that is a coroutine function."""


def in_a_thread() -> None:
    """A dependency that runs in a thread."""


class AsynchronousCheck:
    """A dependency that is an object."""

    async def __call__(self) -> None:
        """Check nothing."""


async def generated() -> AsyncIterator[None]:
    """A dependency with an end."""
    yield


@pytest.mark.parametrize(
    ("dependency", "expected"),
    [(in_a_loop, True), (AsynchronousCheck(), True), (generated, True), (in_a_thread, False), (lambda: None, False)],
)
def test_a_route_knows_whether_a_part_of_it_runs_in_a_thread(dependency, expected):
    """Then its request is not cancelled when the client disconnects: the thread would go on."""

    async def above(value: Annotated[Any, Depends(dependency)]) -> None: ...

    async def endpoint() -> None: ...

    def synchronous() -> None: ...

    assert expected is Route("/teas", endpoint, dependencies=[Depends(above)]).is_asynchronous
    assert not Route("/teas", synchronous).is_asynchronous
