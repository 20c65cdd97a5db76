"""What the methods mean here: HEAD wherever GET works, and a whole `Allow` where one does not."""

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import problems
from app.errors import MethodNotAllowedError, NotFoundError


class HeadAsGet:
    """Answers HEAD as GET, without the body. FastAPI's routes do not know HEAD by themselves."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Show the routes a GET, and everybody else the HEAD that it is."""
        if scope.get("method") != "HEAD":
            await self.app(scope, receive, send)
            return

        async def send_without_body(message: Message) -> None:
            scope["method"] = "HEAD"
            if message["type"] == "http.response.body":
                message["body"] = b""
            await send(message)

        scope["method"] = "GET"
        try:
            await self.app(scope, receive, send_without_body)
        finally:
            scope["method"] = "HEAD"


async def answer_not_found(request: Request, _: Exception) -> Response:
    """404 for a path that nothing answers at."""
    return problems.answer(request.scope, NotFoundError())


async def answer_not_allowed(request: Request, _: Exception) -> Response:
    """405 with the methods of all routes at this path: Starlette names those of one."""
    return problems.answer(request.scope, MethodNotAllowedError(_allowed(request.app, request.scope)))


def _allowed(app: FastAPI, scope: Scope) -> set[str]:
    methods: set[str] = set()
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        asked = {**scope, "method": method}
        if any(route.matches(asked)[0] is Match.FULL for route in app.routes):
            methods.add(method)
    return methods | ({"HEAD"} if "GET" in methods else set())
