"""Responses to requests that match no route: 404 and 405."""

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

from app.errors import MethodNotAllowedError, NotFoundError
from app.middleware import problems


async def not_found(request: Request, _: Exception) -> Response:
    """Return 404: no such path."""
    return problems.answer(request.scope, NotFoundError())


async def method_not_allowed(request: Request, _: Exception) -> Response:
    """Return 405. `Allow` names the methods of all routes at this path; Starlette would name those of one route."""
    return problems.answer(request.scope, MethodNotAllowedError(_allowed_methods(request.app, request.scope)))


def _allowed_methods(app: FastAPI, scope: Scope) -> set[str]:
    methods: set[str] = set()
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        candidate = {**scope, "method": method}
        if any(route.matches(candidate)[0] is Match.FULL for route in app.routes):
            methods.add(method)
    return methods | ({"HEAD"} if "GET" in methods else set())
