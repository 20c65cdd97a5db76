"""Compares ways from a path to a handler's response."""

from collections.abc import MutableMapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Header, Request
from starlette.responses import Response
from starlette.types import ASGIApp

from app.http.route import Route
from app.schemas.item import ItemId
from benchmarks.harness.timing import Times, in_turns_async

CALLS = 300

_BODY = b"x" * 160
_HEADERS = {"ETag": '"5-1"'}


async def _database(request: Request) -> object:
    return request.app


DatabaseDependency = Annotated[object, Depends(_database)]
IfNoneMatch = Annotated[list[str] | None, Header()]


async def measure(_url: str, rounds: int) -> Times:
    """Send the same request to each route."""
    included = FastAPI()
    included.include_router(_router(APIRouter(prefix="/items")))
    direct = FastAPI(routes=list(_router(APIRouter(prefix="/items")).routes))
    ours = FastAPI(routes=list(_router(APIRouter(prefix="/items", route_class=Route)).routes))
    return await in_turns_async(
        {
            "FastAPI: include_router, its solver": lambda: _ask(included),
            "FastAPI: routes given to it, its solver": lambda: _ask(direct),
            "here: routes given to it, `Route`": lambda: _ask(ours),
        },
        calls=CALLS,
        rounds=rounds,
    )


def _router(router: APIRouter) -> APIRouter:
    @router.get("/{item_id}")
    async def read_item(item_id: ItemId, database: DatabaseDependency, if_none_match: IfNoneMatch = None) -> Response:  # noqa: ARG001
        return Response(_BODY, media_type="application/json", headers=_HEADERS)

    return router


def scope(path: str) -> MutableMapping[str, Any]:
    """A request as the server passes it to the application."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"localhost:8000"), (b"accept", b"*/*")],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
        "state": {},
    }


async def receive() -> MutableMapping[str, Any]:
    """An empty body."""
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(_message: MutableMapping[str, Any]) -> None:
    """Discard the response."""


async def _ask(application: ASGIApp) -> None:
    await application(scope("/items/5"), receive, send)
