"""What is declared on the application or on a router works as FastAPI documents it, or is refused at the start."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Security, WebSocket
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount
from starlette.routing import Route as StarletteRoute

from app.dependencies import DatabaseDependency
from app.errors import NotFoundError, StartupError
from app.http.application import Application
from app.http.route import Route
from app.main import create_app
from app.rate_limits import limiter
from app.settings import Settings
from tests.answers import problem
from tests.log_lines import Lines


class OutOfTeaError(Exception):
    """An error that this service does not know."""


@pytest.fixture
def app() -> FastAPI:
    """The application of this service, without a database."""
    return create_app(Settings.load(database_url="postgresql://a@b/c", rate_limit_enabled=False, _env_file=None))


@pytest.fixture
def router() -> APIRouter:
    """A plain router with one route, as FastAPI's documentation shows it."""
    router = APIRouter(prefix="/teas", tags=["teas"])

    @router.get("/{tea_id}")
    async def read_tea(tea_id: int) -> dict[str, int]:
        if tea_id == 0:
            raise OutOfTeaError
        return {"id": tea_id}

    return router


def served(app: FastAPI) -> httpx.AsyncClient:
    """Return a client of the application."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver")


async def deny() -> None:
    """Refuse every request."""
    raise HTTPException(403)


async def test_an_included_router_keeps_everything(app, router, lines: Lines):
    """Prefix, tags, responses and dependencies of `include_router` apply, also in logs, metrics and document."""
    responses: dict[int | str, dict[str, Any]] = {418: {"description": "A teapot."}}
    seen: list[str] = []
    app.include_router(
        router, prefix="/v1", tags=["v1"], responses=responses, dependencies=[Depends(lambda: seen.append("called"))]
    )

    async with served(app) as client:
        response = await client.get("/v1/teas/7")
        metrics = (await client.get("/metrics")).text

    assert {"id": 7} == response.json()
    assert ["called"] == seen
    assert ["/v1/teas/{tea_id}"] == [line["route"] for line in lines() if line.get("path") == "/v1/teas/7"]
    samples = [sample for family in text_string_to_metric_families(metrics) for sample in family.samples]
    assert any(sample.labels.get("handler") == "/v1/teas/{tea_id}" for sample in samples)
    operation = app.openapi()["paths"]["/v1/teas/{tea_id}"]["get"]
    assert ["v1", "teas"] == operation["tags"]
    assert "418" in operation["responses"]


async def test_routes_of_a_nested_router_are_direct_routes(app, router):
    """At the start, each route of a router in a router becomes a `Route` of the application."""
    outer = APIRouter(prefix="/shop", dependencies=[Depends(deny)])
    outer.include_router(router)
    app.include_router(outer)

    async with served(app) as client:
        problem(await client.get("/shop/teas/7"), 403, "forbidden")

    assert all(isinstance(route, Route) for route in app.routes)
    assert "/shop/teas/{tea_id}" in [route.path for route in app.routes if isinstance(route, Route)]


async def test_a_path_without_parameters_is_no_value_of_a_parameter(app, router):
    """A method that it lacks is 405 with its own methods, also where a route behind it has that method."""
    before = APIRouter(prefix="/teas")

    @before.post("/all")
    async def write_all() -> str:
        return "written"

    app.include_router(before)
    app.include_router(router)
    async with served(app) as client:
        assert '"written"' == (await client.post("/teas/all")).text
        refused = await client.get("/teas/all")
        assert ("POST", "method_not_allowed") == (refused.headers["allow"], refused.json()["code"])
        assert {"id": 1} == (await client.get("/teas/1")).json()
        for path in ("/teas/al", "/teas/alls", "/teas/all%0A"):
            assert 422 == (await client.get(path)).status_code


async def test_routes_of_the_application_itself_are_routes_of_ours(app):
    """A route that is declared with `app.get` has the same contract as all others."""

    @app.post("/teas")
    async def create_tea(tea: dict[str, int]) -> dict[str, int]:
        return tea

    async with served(app) as client:
        assert {"id": 1} == (await client.post("/teas", json={"id": 1})).json()
        problem(await client.post("/teas", content=b"{}"), 415, "unsupported_media_type")
        response = await client.put("/teas")

    problem(response, 405, "method_not_allowed")
    assert "POST" == response.headers["allow"]


async def test_the_lifespan_and_the_events_of_a_router_run():
    """The lifespan of an included router runs inside the application's, and so do its startup and shutdown events."""
    seen: list[str] = []

    def lifespan_of(name: str) -> Any:
        @asynccontextmanager
        async def lifespan(_: Any) -> AsyncIterator[None]:
            seen.append(f"open {name}")
            yield
            seen.append(f"close {name}")

        return lifespan

    app = Application(middleware=[], max_body_bytes=1, lifespan=lifespan_of("application"))
    app.include_router(APIRouter(lifespan=lifespan_of("router")))
    app.include_router(APIRouter(on_startup=[lambda: seen.append("startup")]))
    app.build_middleware_stack()

    async with app.router.lifespan_context(app):
        assert ["open application", "open router", "startup"] == seen

    assert ["close router", "close application"] == seen[3:]


async def test_an_exception_handler_is_called(app, router):
    """A handler that is declared for an exception class responds to it."""
    app.include_router(router)

    @app.exception_handler(OutOfTeaError)
    async def respond(_request: Request, _error: OutOfTeaError) -> Response:
        return PlainTextResponse("Out of tea.", status_code=418)

    async with served(app) as client:
        response = await client.get("/teas/0")

    assert (418, "Out of tea.") == (response.status_code, response.text)


async def test_added_middleware_is_inside_of_the_controls(app, router, lines: Lines):
    """The responses and the exceptions of a middleware that is added later are logged, counted and named as all are."""
    app.include_router(router)
    order: list[str] = []

    @app.middleware("http")
    async def added_first(request: Request, call_next: Any) -> Response:
        order.append("first")
        if request.url.path == "/teas/1":
            raise OutOfTeaError
        response: Response = await call_next(request)
        return response

    @app.middleware("http")
    async def added_last(request: Request, call_next: Any) -> Response:
        order.append("last")
        return (
            PlainTextResponse("closed", status_code=403) if request.url.path == "/teas/2" else await call_next(request)
        )

    async with served(app) as client:
        passed, raised, refused = [await client.get(f"/teas/{tea_id}") for tea_id in (3, 1, 2)]

    assert ["last", "first"] == order[:2]
    assert {"id": 3} == passed.json()
    problem(raised, 500, "internal_error")
    assert (403, "closed") == (refused.status_code, refused.text)
    assert refused.headers["x-request-id"]
    assert [200, 500, 403] == [line["status"] for line in lines() if line["event"] == "request_served"]


def test_a_websocket_is_refused(app):
    """The server runs without WebSockets, so the route would be 404."""
    router = APIRouter(prefix="/live")

    @router.websocket("/{room}")
    async def live(websocket: WebSocket, room: str) -> None:
        await websocket.accept()

    app.include_router(router, prefix="/v1")

    with pytest.raises(StartupError, match=r"^/v1/live/\{room\}: WebSockets are not served"):
        app.build_middleware_stack()


@pytest.mark.parametrize("own", [limiter.limit("1/minute"), limiter.shared_limit("1/minute", scope="teas")])
def test_a_limit_above_its_route_is_refused(app, own):
    """The route has the function that is not limited: a decorator changes what is below it."""
    router = APIRouter(prefix="/teas")

    @own
    @router.get("/limited")
    async def limited(request: Request) -> int:
        return 1

    app.include_router(router)

    with pytest.raises(StartupError, match=r"^/teas/limited: the limit would not count. Write @limiter.limit below"):
        app.build_middleware_stack()


def test_a_function_may_be_served_with_its_limit_and_without(app):
    """Each of its routes does what it declares. An endpoint need not be hashable."""

    async def tea(request: Request) -> int:
        return 1

    app.get("/free")(tea)
    app.get("/limited")(limiter.limit("1/minute")(tea))
    app.build_middleware_stack()


async def test_a_middleware_gets_the_response_to_a_named_error(app, router):
    """A team's own middleware sees a 404 as FastAPI documents it: as a response, and not as an exception."""
    seen = []

    @router.get("/gone/now")
    async def gone() -> None:
        raise NotFoundError

    @app.middleware("http")
    async def mark(request: Request, call_next: Any) -> Any:
        response = await call_next(request)
        seen.append(response.status_code)
        response.headers["x-marked"] = "yes"
        return response

    app.include_router(router)
    async with served(app) as client:
        response = await client.get("/teas/gone/now")

    problem(response, 404, "not_found")
    assert ([404], "yes") == (seen, response.headers["x-marked"])


async def test_overrides_take_effect_at_any_time(app):
    """`app.dependency_overrides` replaces a dependency between two requests, and no longer."""

    async def number() -> int:
        return 1

    @app.get("/number")
    async def endpoint(value: Annotated[int, Depends(number)]) -> Response:
        return JSONResponse(value)

    async with served(app) as client:
        values = [(await client.get("/number")).json()]
        app.dependency_overrides[number] = lambda: 2
        values.append((await client.get("/number")).json())
        app.dependency_overrides.clear()
        values.append((await client.get("/number")).json())

    assert [1, 2, 1] == values


def test_the_document_contains_what_fastapi_documents(app, router):
    """Security schemes, operation ids, and a route that is added after the first call are in the document."""
    before = app.openapi()
    app.include_router(router, dependencies=[Security(HTTPBearer(), scopes=["read"])])

    @app.get("/named", operation_id="own_id")
    async def endpoint() -> None: ...

    document = app.openapi()

    assert document is not before
    assert document is app.openapi()
    assert {"HTTPBearer"} == set(document["components"]["securitySchemes"])
    assert [{"HTTPBearer": ["read"]}] == document["paths"]["/teas/{tea_id}"]["get"]["security"]
    assert "own_id" == document["paths"]["/named"]["get"]["operationId"]
    for path in ("/named", "/"):
        assert "X-Request-ID" in document["paths"][path]["get"]["responses"]["default"]["headers"]


def test_the_document_follows_the_declarations(app):
    """An operation documents the errors of its own parameters, body and dependencies, and what it declares itself."""

    @app.post("/teas", responses={422: {"description": "Not a tea."}}, max_body_size=10)
    async def create_tea(tea: dict[str, int], strength: int | str = 1) -> None: ...

    @app.post("/teapots")
    async def create_teapot(database: DatabaseDependency) -> None: ...

    paths = app.openapi()["paths"]
    teas, teapots = paths["/teas"]["post"], paths["/teapots"]["post"]

    assert {"200", "400", "413", "415", "422", "default"} == set(teas["responses"])
    assert "Not a tea." == teas["responses"]["422"]["description"]
    assert "10 bytes" in str(teas["responses"]["413"])
    assert [{"type": "integer", "format": "int64"}, {"type": "string"}] == teas["parameters"][0]["schema"]["anyOf"]
    assert {"200", "503", "504", "default"} == set(teapots["responses"])


class PlainRoute(APIRoute):
    """A class of routes that does not read bodies by this service's rules."""


def _with_plain_route_class(app: FastAPI) -> None:
    app.include_router(APIRouter(prefix="/x", route_class=PlainRoute))
    app.router.routes[-1].original_router.get("/y")(deny)  # type: ignore[attr-defined]


def _with_mount_in_a_router(app: FastAPI) -> None:
    app.include_router(APIRouter(routes=[Mount("/static", routes=[StarletteRoute("/x", deny)])]))


def _with_exception_handler(app: FastAPI) -> None:
    app.exception_handler(Exception)(deny)


def _with_status_handler(app: FastAPI) -> None:
    app.exception_handler(500)(deny)


def _with_event(app: FastAPI) -> None:
    app.router.add_event_handler("startup", deny)


def _with_size_limit(app: FastAPI) -> None:
    app.max_body_size = 10


def _with_form_limits(app: FastAPI) -> None:
    app.include_router(APIRouter(), form_limits={"max_fields": 1})


def _with_frontend(
    app: FastAPI,
) -> None:
    router = APIRouter()
    router.frontend("/", directory=".")
    app.include_router(router)


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (_with_plain_route_class, "PlainRoute"),
        (_with_mount_in_a_router, "Mount"),
        (_with_exception_handler, "narrower class"),
        (_with_status_handler, "narrower class"),
        (_with_event, "lifespan"),
        (_with_size_limit, "MAX_BODY_BYTES"),
        (_with_form_limits, "form_limits"),
        (_with_frontend, "frontend"),
    ],
)
def test_what_would_not_be_applied_is_refused(app, declare, message):
    """A declaration that this application would ignore ends the start, with what to write in its place."""
    declare(app)

    with pytest.raises(StartupError, match=re.escape(message)):
        app.build_middleware_stack()


async def test_a_route_after_the_start_is_refused(app, router):
    """A route that would not have the contract of the others is refused by name."""
    async with served(app) as client:
        await client.get("/health")

    with pytest.raises(RuntimeError, match=r"/late.*started"):
        app.get("/late")(deny)
    with pytest.raises(RuntimeError, match="started"):
        app.include_router(router)


async def test_instrumentation_that_replaces_the_call_of_the_framework_is_called(monkeypatch, router):
    """Sentry does so. This service leaves the frameworks' `__call__` out only while it is theirs."""
    seen = []
    call = Starlette.__call__

    async def instrumented(self: Starlette, scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])
        await call(self, scope, receive, send)

    monkeypatch.setattr(Starlette, "__call__", instrumented)
    app = create_app(Settings.load(database_url="postgresql://a@b/c", rate_limit_enabled=False, _env_file=None))
    async with served(app) as client:
        for _ in range(2):
            assert 200 == (await client.get("/health")).status_code

    assert ["http"] * 2 == seen


async def test_a_route_for_head_alone_is_refused(app, router):
    """HEAD is answered by the route for GET, so it would never be called."""

    @router.head("/only")
    async def look() -> Response:
        return Response()

    app.include_router(router)
    with pytest.raises(StartupError, match=r"^/teas/only: HEAD is answered by the route for GET"):
        app.build_middleware_stack()
