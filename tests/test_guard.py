"""Sends requests to all routes and checks that each has every control. Only the routes named here are excepted."""

import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Annotated, Any, NoReturn

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Security
from fastapi.routing import APIRoute, iter_route_contexts
from prometheus_client.parser import text_string_to_metric_families
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Scope

from app import logs
from app.auth import Principal
from app.auth.scopes import access_token
from app.dependencies import get_database, get_read_database
from app.errors import StartupError
from app.http.application import Application
from app.http.ndjson import NdjsonResponse
from app.http.scopes import declared_scopes
from app.middleware import lifecycle, problems
from app.middleware.rate_limit import RateLimit
from app.middleware.request_log import RequestLog
from app.middleware.request_metrics import RequestMetrics
from app.settings import Settings
from tests.answers import problem
from tests.issuer.server import Issuer
from tests.issuer.server import issuer as running_issuer
from tests.issuer.tokens import AUDIENCE, SigningKey, make_key
from tests.log_lines import Lines, reading_lines
from tests.sample.app import create_app

NOT_LIMITED = {"/health", "/health/ready", "/metrics"}
"""Monitoring must work when clients are refused."""

ASSETS = ("/docs/start.js", "/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css")

NOT_DOCUMENTED = {"/docs", "/openapi.json", *ASSETS}
"""The routes of the documentation are not part of it."""

CACHED = dict.fromkeys(ASSETS, "public, max-age=86400")
"""The routes with a `Cache-Control` of their own."""

REFUSED: dict[str, HTTPStatus] = {}
"""The status of the routes that refuse the guard's valid request, because it has no token, for example."""

FROM_PRIMARY: set[str] = set()
"""The routes of resources that read from the primary although a replica could answer. Streams do, too: they promise all
rows that exist when they begin."""

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")

PARAMETER = re.compile(r"\{\w+\}")

INVALID_BODIES = [(b"{", 400), (b"[]", 422)]


def example(app: FastAPI, path: str, method: str) -> Any:
    """The example of an operation's body in the document, which must be valid; None if there is none."""
    document = app.openapi()
    body = document["paths"].get(path, {}).get(method.lower(), {}).get("requestBody", {})
    schema = body.get("content", {}).get("application/json", {}).get("schema", {})
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema.get("examples", [None])[0]


def wrong_servers(app: FastAPI) -> list[str]:
    """The routes of resources that do not declare the database that they have to: a GET reads from a replica."""
    faults = []
    for context in iter_route_contexts(app.routes):
        route = context.original_route
        if not isinstance(route, APIRoute) or not route.path.startswith(tuple(app.state.resources)):
            continue
        is_stream = getattr(route.response_class, "value", route.response_class) is NdjsonResponse
        from_primary = route.methods != {"GET"} or is_stream or route.path in FROM_PRIMARY
        declared = {dependency.call for dependency in route.dependant.dependencies} & {get_database, get_read_database}
        if declared != {get_database if from_primary else get_read_database}:
            server = "DatabaseDependency" if from_primary else "ReadDatabaseDependency, or stand in FROM_PRIMARY"
            faults.append(f"{sorted(route.methods or ())} {route.path}: must declare {server}")
    return faults


class Guard:
    """Sends valid and invalid requests to every route, and collects what is wrong with the responses."""

    def __init__(self, app: FastAPI, client: httpx.AsyncClient, lines: Lines) -> None:
        self.app = app
        self.client = client
        self.lines = lines
        self.faults: list[str] = []
        self.responses: list[tuple[str, str, httpx.Response]] = []
        self.counted: Counter[tuple[str, str, str]] = Counter()
        self.documented = app.openapi()["paths"]
        self.ids: dict[str, str] = {}
        """The id of a row, by the path of its list."""

    async def check_all(self) -> list[str]:
        """Return all that is wrong with the routes of this application."""
        self.faults += wrong_servers(self.app)
        await self.create_rows()
        for route in self.app.routes:
            if not isinstance(route, Route):
                self.faults.append(f"{route}: not a route that can be walked")
                continue
            path = PARAMETER.sub(self.ids.get(route.path.partition("/{")[0], "1"), route.path)
            for method in sorted((route.methods or set()) - {"HEAD"}):
                await self.send_valid(route, method, path)
                await self.send_invalid(route, method, path)
            await self.send_wrong_method(route.path, path)
        self.check_lines()
        await self.check_counts()
        return self.faults

    async def create_rows(self) -> None:
        """Create a row by each route that creates one."""
        for path, operations in self.documented.items():
            if "201" in operations.get("post", {}).get("responses", {}):
                made = await self.send("POST", path, path, json=example(self.app, path, "POST"))
                if "id" in made.json():
                    self.ids[path] = str(made.json()["id"])

    async def send(self, method: str, template: str, path: str, **request: Any) -> httpx.Response:
        """Send a request, keep the response, and check what every response must have."""
        response = await self.client.request(method, path, **request)
        self.responses.append((method, template, response))
        self.counted[method, template, str(response.status_code)] += 1
        limited = {"ratelimit", "ratelimit-policy"} <= set(response.headers)
        expected = template not in NOT_LIMITED or method not in {"GET", "HEAD"}
        self.expect(limited == expected, method, template, "limited as it should be", response)
        self.expect_headers(method, template, response)
        self.expect("x-request-id" in response.headers, method, template, "an id", response)
        return response

    def expect_headers(self, method: str, template: str, response: httpx.Response) -> None:
        """Expect the headers that every response has, once each."""
        sniffing = response.headers.get_list("x-content-type-options")
        self.expect(["nosniff"] == sniffing, method, template, "nosniff", response)
        is_resource = template.startswith(tuple(self.app.state.resources))
        caching = "private, no-cache" if is_resource else "no-store"
        if response.status_code == HTTPStatus.OK:
            caching = CACHED.get(template, caching)
        self.expect([caching] == response.headers.get_list("cache-control"), method, template, caching, response)

    async def send_valid(self, route: Route, method: str, path: str) -> None:
        """A valid request succeeds, or gets the status that is listed. The operation is documented."""
        takes_body = isinstance(route, APIRoute) and route.body_field is not None
        response = await self.send(
            method, route.path, path, json=example(self.app, route.path, method) if takes_body else None
        )
        refused = REFUSED.get(route.path)
        is_expected = response.status_code == refused if refused else response.status_code < 300
        self.expect(is_expected, method, route.path, "success", response)
        documented = method.lower() in self.documented.get(route.path, {})
        expected = route.path not in NOT_DOCUMENTED
        self.expect(documented == expected, method, route.path, "documented as it should be", response)
        if method == "GET":
            head = await self.send("HEAD", route.path, path)
            self.expect(head.status_code == response.status_code, "HEAD", route.path, "GET's status", head)

    async def send_invalid(self, route: Route, method: str, path: str) -> None:
        """A request with one invalid part gets a problem."""
        if not isinstance(route, APIRoute):
            return
        valid_body: dict[str, Any] = {"json": example(self.app, route.path, method)} if route.body_field else {}
        for parameter in route.dependant.path_params:
            invalid = route.path.replace(f"{{{parameter.alias}}}", "x")
            self.expect_problem(422, method, route.path, await self.send(method, route.path, invalid, **valid_body))
        for parameter in route.dependant.query_params:
            response = await self.send(method, route.path, path, params={parameter.alias: "\0"}, **valid_body)
            self.expect_problem(422, method, route.path, response)
        if route.body_field:
            plain = await self.send(method, route.path, path, content=b"{}", headers={"Content-Type": "text/plain"})
            self.expect_problem(415, method, route.path, plain)
            for content, status in INVALID_BODIES:
                declared = {"Content-Type": "application/json"}
                response = await self.send(method, route.path, path, content=content, headers=declared)
                self.expect_problem(status, method, route.path, response)

    async def send_wrong_method(self, template: str, path: str) -> None:
        """A method that no route at this path has gets a problem and a whole `Allow`."""
        routes = [route for route in self.app.routes if isinstance(route, Route) and route.path == template]
        declared = {method for route in routes for method in route.methods or ()}
        method = next(method for method in METHODS if method not in declared)
        response = await self.send(method, template, path)
        self.expect_problem(405, method, template, response)
        allowed = set(response.headers.get("allow", "").split(", "))
        self.expect(declared <= allowed, method, template, "a whole Allow", response)

    def expect_problem(self, status: int, method: str, template: str, response: httpx.Response) -> None:
        """Expect a problem with this status."""
        is_problem = response.headers.get("content-type") == "application/problem+json"
        has_request_id = is_problem and response.json().get("request_id") == response.headers.get("x-request-id")
        self.expect(
            has_request_id and response.status_code == status, method, template, f"a {status} problem", response
        )

    def expect(self, is_met: bool, method: str, template: str, what: str, response: httpx.Response) -> None:
        """Keep a fault if the expectation is not met."""
        if not is_met:
            self.faults.append(f"{method} {template}: not {what} ({response.status_code})")

    def check_lines(self) -> None:
        """Each request has one line in the log, which names its route."""
        served = [line for line in self.lines() if line["event"] == "request_served"]
        for method, template, response in self.responses:
            logged = [
                (line["method"], line["route"], line["status"])
                for line in served
                if line["request_id"] == response.headers.get("x-request-id")
            ]
            self.expect([(method, template, response.status_code)] == logged, method, template, "logged", response)

    async def check_counts(self) -> None:
        """Each request is counted once, under its route."""
        scraped = (await self.client.get("/metrics")).text
        samples = [sample for family in text_string_to_metric_families(scraped) for sample in family.samples]
        counted = Counter[tuple[str, str, str]]()
        for sample in samples:
            if sample.name == "http_requests_total":
                labels = sample.labels
                counted[labels["method"], labels["handler"], labels["status"]] += int(sample.value)
        self.faults += [
            f"{key}: counted {counted.get(key, 0)} times, sent {self.counted[key]} times"
            for key in sorted(counted.keys() | self.counted.keys())
            if counted.get(key, 0) != self.counted[key]
        ]


@pytest.fixture
def lines() -> Iterator[Lines]:
    """Returns the lines that this process has logged since the last call."""
    with reading_lines() as read:
        yield read


@pytest.fixture
def built(database_url: str) -> FastAPI:
    """The application with all its controls, before its lifespan."""
    return create_app(Settings.load(database_url=database_url, _env_file=None))


@asynccontextmanager
async def opened(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Run the lifespan and yield a client of the application."""
    descriptor = logs.output.descriptor
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://testserver") as client,
    ):
        # The lifespan has configured logging to standard output; log to the test again.
        logs.configure("debug", "json", descriptor)
        yield client


async def test_every_route_has_every_control(built, lines):
    """Every route is limited, counted and logged under its template, documented, and has problems as errors."""
    async with opened(built) as client:
        assert [] == await Guard(built, client, lines).check_all()


async def pass_on(app: ASGIApp, *request: Any) -> None:
    """Have the application answer, as it does without the control."""
    await app(*request)


async def do_nothing(*_: Any) -> None:
    """Take the place of a control."""


def raise_again(_scope: Scope, error: Exception) -> NoReturn:
    """Leave an exception to the outermost control."""
    raise error


CONTROLS = {
    "log": (RequestLog, "write", lambda *_: None, "logged"),
    "metrics": (RequestMetrics, "end", lambda *_: None, "counted 0 times"),
    "problems": (problems, "answer", raise_again, "a 422 problem"),
    "rate limit": (RateLimit, "count", do_nothing, "limited as it should be"),
    "HEAD": (lifecycle, "answer_head", pass_on, "GET's status"),
}
"""Each control of the lifecycle, what takes its place, and a part of the fault that the guard reports without it."""


@pytest.mark.parametrize("control", CONTROLS)
async def test_a_missing_control_is_found(built, lines, monkeypatch, control):
    """Without one of them the guard reports what is missing."""
    place, name, missing, fault = CONTROLS[control]
    monkeypatch.setattr(place, name, missing)

    async with opened(built) as client:
        assert any(fault in reported for reported in await Guard(built, client, lines).check_all())


async def deny() -> None:
    """Refuse every request."""
    raise HTTPException(403)


class DenyingApplication(Application):
    """The application class, with a dependency that refuses every request in one of the places."""

    place = ""

    def __init__(self, **declared: Any) -> None:
        super().__init__(**declared, dependencies=self.dependencies_at("application"))

    def dependencies_at(self, place: str) -> list[Any]:
        """Return the dependency if this is the place, else nothing."""
        return [Depends(deny)] if place == self.place else []

    def include_router(self, router: APIRouter, **declared: Any) -> None:
        """Include a copy of the router that has the dependency."""
        copy = APIRouter(dependencies=self.dependencies_at("router"))
        for context in iter_route_contexts(router.routes):
            route = context.original_route
            assert isinstance(route, APIRoute)
            copy.add_api_route(
                str(context.path),
                route.endpoint,
                methods=list(route.methods or ()),
                response_model=route.response_model,
                dependencies=self.dependencies_at("route"),
            )
        super().include_router(copy, dependencies=self.dependencies_at("include"), **declared)


@pytest.mark.parametrize("place", ["route", "router", "include", "application", "nowhere"])
async def test_a_dependency_that_refuses_is_called_for_every_route(monkeypatch, lines, database_url, place):
    """Wherever it is declared, every route and method is 403, also probes and documentation."""
    monkeypatch.setattr(DenyingApplication, "place", place)
    monkeypatch.setattr("app.main.Application", DenyingApplication)
    app = create_app(Settings.load(database_url=database_url, _env_file=None))

    async with opened(app) as client:
        responses = {}
        for route in iter_route_contexts(app.routes):
            path = str(route.path)
            for method in route.methods or ():
                body = example(app, path, method) if route.body_field else None
                responses[f"{method} {path}"] = await client.request(method, PARAMETER.sub("1", path), json=body)

    assert len(responses) > 14
    for name, response in responses.items():
        assert (response.status_code == 403) == (place != "nowhere"), name
        if place != "nowhere":
            problem(response, 403, "forbidden")


async def empty_response(*_: object) -> PlainTextResponse:
    """Return an empty response."""
    return PlainTextResponse("")


@pytest.mark.parametrize(
    ("added", "reported"),
    [
        (APIRoute("/hidden", empty_response, include_in_schema=False), "GET /hidden: not documented"),
        (Mount("/mounted", routes=[Route("/page", empty_response)]), "not a route that can be walked"),
    ],
    ids=["hidden", "mounted"],
)
async def test_a_route_without_documentation_is_found(built, lines, added, reported):
    """The guard reports a route that is not documented, and a mounted application, whose routes it cannot see."""
    built.router.routes.append(added)

    async with opened(built) as client:
        assert any(reported in fault for fault in await Guard(built, client, lines).check_all())


OPEN = {"/", "/health", "/health/ready", "/metrics", *NOT_DOCUMENTED}
"""The routes that everybody may read, with authentication too."""


@pytest.fixture(scope="module")
def signing_key() -> SigningKey:
    """The key of the issuer."""
    return make_key(kind="EdDSA")


@pytest.fixture
def issuer(signing_key: SigningKey) -> Iterator[Issuer]:
    """A running issuer."""
    with running_issuer([signing_key.jwk]) as running:
        yield running


@pytest.fixture
def authenticating(database_url: str, issuer: Issuer) -> FastAPI:
    """The application with authentication, before its lifespan."""
    settings = Settings.load(
        database_url=database_url,
        auth_issuer=issuer.url,
        auth_audience=AUDIENCE,
        rate_limit_enabled=False,
        _env_file=None,
    )
    return create_app(settings)


@pytest.mark.parametrize("server", [get_database, None])
@pytest.mark.parametrize("path", ["/samples/none", "/samples/other/{sample_id}"])
def test_a_route_that_names_no_server_for_its_reads_is_found(built, path, server):
    """A new GET of a resource reads from a replica, or is named. A write that goes to a replica is found as well."""
    assert [] == wrong_servers(built)

    dependencies = [] if server is None else [Depends(server)]
    built.router.routes.append(APIRoute(path, empty_response, dependencies=dependencies))
    written = APIRoute(path, empty_response, methods=["POST"], dependencies=[Depends(get_read_database)])
    built.router.routes.append(written)

    assert [
        f"['GET'] {path}: must declare ReadDatabaseDependency, or stand in FROM_PRIMARY",
        f"['POST'] {path}: must declare DatabaseDependency",
    ] == wrong_servers(built)


async def test_every_route_wants_a_token_with_its_scope(authenticating, issuer, signing_key):
    """No token, an expired one, another audience's, another issuer's, and one without the scope are refused."""
    refused = {
        "no token": (None, 401, "authentication_required"),
        "expired": ({"exp": 1}, 401, "invalid_token"),
        "another audience": ({"aud": "another"}, 401, "invalid_token"),
        "another issuer": ({"iss": "https://another.example.com"}, 401, "invalid_token"),
        "a scope too few": ({"scope": "another:read"}, 403, "insufficient_scope"),
    }
    faults = []
    asked = set()
    async with opened(authenticating) as client:
        await client.get("/health")  # the routes are fixed now
        for route in authenticating.routes:
            assert isinstance(route, APIRoute)
            scopes = declared_scopes(route.dependant)
            for method in sorted(route.methods or ()):
                if (method == "GET") and route.path in OPEN:
                    continue
                asked.add(f"{method} {route.path}")
                path = PARAMETER.sub("1", route.path)
                body = example(authenticating, route.path, method) if route.body_field else None
                for name, (claims, status, code) in refused.items():
                    token = (
                        None
                        if claims is None
                        else signing_key.token(issuer.url, **{"scope": " ".join(scopes)} | claims)
                    )
                    headers = {"Authorization": f"Bearer {token}"} if token else {}
                    answer = await client.request(method, path, json=body, headers=headers)
                    if (answer.status_code, answer.json()["code"]) != (status, code):
                        faults.append(f"{method} {route.path}: {name}: {answer.status_code}")
                headers = {"Authorization": f"Bearer {signing_key.token(issuer.url, scope=' '.join(scopes))}"}
                good = await client.request(method, path, json=body, headers=headers)
                if good.status_code not in {200, 201, 204, 404, REFUSED.get(route.path)}:
                    faults.append(f"{method} {route.path}: a good token: {good.status_code}")
        assert {401} == {(await client.get(path)).status_code for path in ("/none", "/docs/none", "/samples/1/none")}
        assert {200} == {(await client.get(path)).status_code for path in OPEN}

    assert [] == faults
    assert {"POST /samples", "DELETE /samples/{sample_id}", "PATCH /samples/{sample_id}"} <= asked


async def test_a_route_without_a_scope_ends_the_start(authenticating):
    """Nobody can forget it: neither on a route of the application nor on one of a router."""

    @authenticating.get("/forgotten")
    async def forgotten() -> str:
        return "open"

    with pytest.raises(StartupError, match=r"^/forgotten: the route names no scope"):
        authenticating.build_middleware_stack()


async def test_an_open_path_with_a_scope_ends_the_start(authenticating):
    """It would either be open against what its route says, or closed to everybody."""

    @authenticating.get("/docs", dependencies=[Security(access_token, scopes=["docs:read"])])
    async def docs() -> str:
        return "closed"

    with pytest.raises(StartupError, match=r"^/docs: the route is an open path and names scopes"):
        authenticating.build_middleware_stack()


async def test_a_scope_is_required_wherever_it_is_declared(authenticating, issuer, signing_key):
    """Beside the route, at a parameter, on the router, and below another dependency."""

    async def below(principal: Annotated[Principal, Security(access_token, scopes=["deep"])]) -> Principal:
        return principal

    router = APIRouter(prefix="/declared", dependencies=[Security(access_token, scopes=["router"])])

    @router.get("/beside", dependencies=[Security(access_token, scopes=["beside"])])
    async def beside() -> PlainTextResponse:
        return PlainTextResponse("beside")

    @router.get("/parameter")
    async def parameter(principal: Annotated[Principal, Security(access_token, scopes=["parameter"])]) -> str | None:
        return principal.subject

    @router.get("/below")
    async def deep(principal: Annotated[Principal, Security(below, scopes=["upper"])]) -> str | None:
        return principal.subject

    authenticating.include_router(router)
    async with opened(authenticating) as client:
        for path, scopes in {
            "/declared/beside": {"router", "beside"},
            "/declared/parameter": {"router", "parameter"},
            "/declared/below": {"router", "upper", "deep"},
        }.items():
            for missing in (None, *scopes):
                token = signing_key.token(issuer.url, scope=" ".join(scopes - {missing}))
                answer = await client.get(path, headers={"Authorization": f"Bearer {token}"})
                assert (200 if missing is None else 403) == answer.status_code, (path, missing)
