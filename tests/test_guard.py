"""No route goes without its controls: all of them are walked and asked, and only those named here are excepted."""

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from prometheus_client.parser import text_string_to_metric_families
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from app import logs
from app.main import create_app
from app.settings import Settings
from tests.log_lines import Lines, reading_lines

NOT_LIMITED = {"/health", "/health/ready", "/metrics"}
"""Whoever watches over the service must get through when its clients do not."""

NOT_DOCUMENTED = {"/docs", "/docs/start.js", "/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css", "/openapi.json"}
"""The documentation does not document itself."""

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")

BODIES = {"/items": {"name": "guarded"}, "/items/{item_id}": {"name": "guarded"}}
"""A body that is right, for each path that takes one."""

MALFORMED = [(b"{", 400), (b"[]", 422)]


class Guard:
    """Asks every route what it should and what it should not be asked, and says what was wrong with the answers."""

    def __init__(self, app: FastAPI, client: httpx.AsyncClient, lines: Lines) -> None:
        self.app = app
        self.client = client
        self.lines = lines
        self.faults: list[str] = []
        self.answers: list[tuple[str, str, httpx.Response]] = []
        self.counted: Counter[tuple[str, str, str]] = Counter()
        self.documented = app.openapi()["paths"]

    async def walk(self) -> list[str]:
        """All that is wrong with this application's routes."""
        made = await self.ask("POST", "/items", "/items", json=BODIES["/items"])
        ids = {"item_id": made.json()["id"]}
        for route in self.app.routes:
            if not isinstance(route, Route):
                self.faults.append(f"{route}: not a route that can be walked")
                continue
            path = route.path.format(**ids)
            for method in sorted((route.methods or set()) - {"HEAD"}):
                await self.ask_rightly(route, method, path)
                await self.ask_wrongly(route, method, path)
            await self.ask_by_a_wrong_method(route.path, path)
        self.check_lines()
        await self.check_counts()
        return self.faults

    async def ask(self, method: str, template: str, path: str, **request: Any) -> httpx.Response:
        """Ask, and keep the answer; what every answer must carry is checked at once."""
        response = await self.client.request(method, path, **request)
        self.answers.append((method, template, response))
        self.counted[method, template, str(response.status_code)] += 1
        limited = {"ratelimit", "ratelimit-policy"} <= set(response.headers)
        self.expect(limited == (template not in NOT_LIMITED), method, template, "limited as it should be", response)
        self.expect("x-request-id" in response.headers, method, template, "an id", response)
        return response

    async def ask_rightly(self, route: Route, method: str, path: str) -> None:
        """A request that is right is served, and documented."""
        takes_body = isinstance(route, APIRoute) and route.body_field is not None
        response = await self.ask(method, route.path, path, json=BODIES[route.path] if takes_body else None)
        self.expect(response.status_code < 300, method, route.path, "success", response)
        documented = method.lower() in self.documented.get(route.path, {})
        expected = route.path not in NOT_DOCUMENTED
        self.expect(documented == expected, method, route.path, "documented as it should be", response)
        if method == "GET":
            head = await self.ask("HEAD", route.path, path)
            self.expect(head.status_code == response.status_code, "HEAD", route.path, "GET's status", head)

    async def ask_wrongly(self, route: Route, method: str, path: str) -> None:
        """A request that is wrong in one part of it is answered with a problem."""
        if not isinstance(route, APIRoute):
            return
        right = {"json": BODIES[route.path]} if route.body_field else {}
        for parameter in route.dependant.path_params:
            wrong = route.path.replace(f"{{{parameter.alias}}}", "x")
            self.expect_problem(422, method, route.path, await self.ask(method, route.path, wrong, **right))
        for parameter in route.dependant.query_params:
            response = await self.ask(method, route.path, path, params={parameter.alias: "\0"}, **right)
            self.expect_problem(422, method, route.path, response)
        if route.body_field:
            plain = await self.ask(method, route.path, path, content=b"{}", headers={"Content-Type": "text/plain"})
            self.expect_problem(415, method, route.path, plain)
            for content, status in MALFORMED:
                declared = {"Content-Type": "application/json"}
                response = await self.ask(method, route.path, path, content=content, headers=declared)
                self.expect_problem(status, method, route.path, response)

    async def ask_by_a_wrong_method(self, template: str, path: str) -> None:
        """A method that no route at this path has is answered with a problem that names those they have."""
        here = [route for route in self.app.routes if isinstance(route, Route) and route.path == template]
        right = {method for route in here for method in route.methods or ()}
        method = next(method for method in METHODS if method not in right)
        response = await self.ask(method, template, path)
        self.expect_problem(405, method, template, response)
        allowed = set(response.headers.get("allow", "").split(", "))
        self.expect(right <= allowed, method, template, "a whole Allow", response)

    def expect_problem(self, status: int, method: str, template: str, response: httpx.Response) -> None:
        """Whether it is a problem answer with this status."""
        is_problem = response.headers.get("content-type") == "application/problem+json"
        found = is_problem and response.json().get("request_id") == response.headers.get("x-request-id")
        self.expect(found and response.status_code == status, method, template, f"a {status} problem", response)

    def expect(self, fine: bool, method: str, template: str, what: str, response: httpx.Response) -> None:
        """Keep what is not fine."""
        if not fine:
            self.faults.append(f"{method} {template}: not {what} ({response.status_code})")

    def check_lines(self) -> None:
        """Each request has left one line, which names its route."""
        served = [line for line in self.lines() if line["event"] == "request_served"]
        for method, template, response in self.answers:
            found = [
                (line["method"], line["route"], line["status"])
                for line in served
                if line["request_id"] == response.headers.get("x-request-id")
            ]
            self.expect([(method, template, response.status_code)] == found, method, template, "logged", response)

    async def check_counts(self) -> None:
        """Each request was counted once, under its route."""
        scraped = (await self.client.get("/metrics")).text
        samples = [sample for family in text_string_to_metric_families(scraped) for sample in family.samples]
        counted = {
            (sample.labels["method"], sample.labels["handler"], sample.labels["status"]): int(sample.value)
            for sample in samples
            if sample.name == "http_requests_total"
        }
        self.faults += [
            f"{key}: counted {counted.get(key, 0)} times, asked {self.counted[key]} times"
            for key in sorted(counted.keys() | self.counted.keys())
            if counted.get(key, 0) != self.counted[key]
        ]


@pytest.fixture
def lines() -> Iterator[Lines]:
    """Gives what this process has logged since the last call."""
    with reading_lines() as read:
        yield read


@pytest.fixture
def built(database_url: str) -> FastAPI:
    """The application with all its controls, not yet open."""
    return create_app(Settings.load(database_url=database_url, _env_file=None))


@asynccontextmanager
async def opened(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application. What it raises is answered 500, as a server would do."""
    descriptor = logs.output.descriptor
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://testserver") as client,
    ):
        # The lifespan has configured the service's own output.
        logs.configure("debug", "json", descriptor)
        yield client


async def test_every_route_has_every_control(built, lines):
    """Each is limited, counted and logged under its template, documented, and answers errors as problems."""
    async with opened(built) as client:
        assert [] == await Guard(built, client, lines).walk()


CONTROLS = {
    "RequestLog": "logged",
    "RequestMetrics": "counted 0 times",
    "Problems": "a 422 problem",
    "RateLimit": "limited as it should be",
    "HeadAsGet": "GET's status",
}
"""The middleware that keeps a control, and what the guard says without it."""


@pytest.mark.parametrize("control", CONTROLS)
async def test_a_control_cannot_go_unnoticed(built, lines, control):
    """Without one of them the guard says what is missing."""
    kept = [middleware for middleware in built.user_middleware if getattr(middleware.cls, "__name__", "") != control]
    assert len(kept) == len(built.user_middleware) - 1
    built.user_middleware = kept

    async with opened(built) as client:
        assert any(CONTROLS[control] in fault for fault in await Guard(built, client, lines).walk())


async def answer_plainly(*_: object) -> PlainTextResponse:
    """Answer something."""
    return PlainTextResponse("")


@pytest.mark.parametrize(
    ("added", "said"),
    [
        (APIRoute("/hidden", answer_plainly, include_in_schema=False), "GET /hidden: not documented"),
        (Mount("/mounted", routes=[Route("/page", answer_plainly)]), "not a route that can be walked"),
    ],
    ids=["hidden", "mounted"],
)
async def test_a_route_cannot_be_added_past_the_guard(built, lines, added, said):
    """One that is not documented is found, and so is a whole application that the walk cannot see into."""
    built.router.routes.append(added)

    async with opened(built) as client:
        assert any(said in fault for fault in await Guard(built, client, lines).walk())
