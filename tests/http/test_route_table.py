"""The table of routes finds what the router finds, or nothing."""

import re
from itertools import permutations
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from starlette.responses import Response
from starlette.routing import Match, Mount

from app.http.application import Application
from app.http.route import Route
from app.http.route_table import RouteTable
from app.main import create_app
from app.settings import Settings

PATHS = (
    "/teas", "/teas/", "/teas/1", "/teas/all", "/teas/all\n", "/teas/1\n", "/teas/1/2", "/teas/1/cups",
    "/teas/all/cups", "/teas//cups", "/", "", "//", "/cups", "/cups/1", "/other/all", "/other/1", "/files/a/b",
)  # fmt: skip


async def respond() -> Response:
    """An endpoint of the simple form."""
    return Response()


async def serialize() -> str:
    """An endpoint that FastAPI's own handler calls."""
    return ""


async def one(tea_id: str) -> Response:
    """An endpoint with a parameter."""
    return Response(tea_id)


def routes_of(*declared: tuple[str, str, Any]) -> list[Any]:
    """The routes of an application with these declarations, as they are at the start."""
    router = APIRouter()
    for method, path, endpoint in declared:
        router.add_api_route(path, endpoint, methods=[method])
    app = Application(middleware=[], max_body_bytes=1)
    app.include_router(router)
    app.build_middleware_stack()
    return app.routes


def by_router(routes: list[Any], method: str, path: str) -> tuple[Any, dict[str, str]] | None:
    """The first route that matches, and its parameters."""
    for route in routes:
        match, child = route.matches({"type": "http", "method": method, "path": path})
        if match is Match.FULL:
            return route, child["path_params"]
    return None


@pytest.mark.parametrize(
    "more",
    [
        ("GET", "/{kind}/all", respond),
        ("GET", "/teas/{tea_id}/cups", one),
        ("GET", "/teas/all", serialize),
        ("GET", "/teas/{tea_id:path}", one),
        ("POST", "/{kind}/{number:int}", respond),
    ],
)
def test_the_table_finds_what_the_router_finds(more):
    """In every order of the declarations, for paths that are close to each other."""
    declared = [("GET", "/teas", respond), ("GET", "/teas/{tea_id}", one), ("POST", "/teas/all", respond), more]
    found = 0
    for order in permutations(declared):
        routes = routes_of(*order)
        table = RouteTable(routes)
        for method in ("GET", "POST", "PUT"):
            for path in PATHS:
                entry = table.find(method, path)
                assert entry is None or entry == by_router(routes, method, path), (order, method, path)
                found += entry is not None
    assert found


def test_simple_routes_are_found():
    """Those without a parameter, and with one at the end, whatever stands before them for other paths or methods."""
    table = RouteTable(
        routes_of(
            ("GET", "/teas/{tea_id}/cups/{cup_id}", respond), ("DELETE", "/{kind}/all", respond),
            ("GET", "/teas/all", respond),
            ("GET", "/teas", respond), ("POST", "/teas/all", respond), ("GET", "/teas/{tea_id}", one),
        )
    )  # fmt: skip

    for method, path, parameters in [
        ("GET", "/teas", {}), ("GET", "/teas/7", {"tea_id": "7"}), ("POST", "/teas/all", {}), ("GET", "/teas/all", {})
    ]:  # fmt: skip
        found = table.find(method, path)
        assert found is not None
        assert parameters == found[1]


def test_every_route_of_this_service_is_found():
    """Each is of the simple form, so none waits for the router to compare its path with those before it."""
    app = create_app(Settings(_env_file=None))
    app.build_middleware_stack()
    table = RouteTable(app.routes)

    for route in (route for route in app.routes if isinstance(route, Route)):
        for method in route.methods or ():
            assert table.find(method, re.sub("{.*?}", "7", route.path)), route


@pytest.mark.parametrize(
    "before", [Mount("/", app=FastAPI()), Mount("/teas", app=FastAPI()), Route("/{rest:path}", respond)]
)
def test_a_route_behind_one_that_takes_all_paths_is_left_to_the_router(before):
    """The router would not reach it."""
    assert RouteTable([before, *routes_of(("GET", "/teas", respond))]).find("GET", "/teas") is None


@pytest.mark.parametrize("hides_first", [True, False])
def test_a_route_that_matches_by_rules_of_its_own_is_left_to_the_router(hides_first):
    """Whether it may take the request is known only when it is asked, also for the routes behind it."""

    class Hidden(Route):
        def matches(self, scope: Any) -> tuple[Match, Any]:
            return Match.NONE, {}

    router = APIRouter()
    kinds = (Hidden, Route) if hides_first else (Route, Hidden)
    for kind in kinds:
        router.routes.append(kind("/teas", respond, methods=["GET"]))
    app = Application(middleware=[], max_body_bytes=1)
    app.include_router(router)
    app.build_middleware_stack()

    found = RouteTable(app.routes).find("GET", "/teas")

    assert hides_first is (found is None)
    assert found is None or type(found[0]) is Route
