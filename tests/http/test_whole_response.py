"""A response in one message reaches only who takes it, whatever stands between the route and the server."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import main
from app.settings import Settings
from app.state_keys import WHOLE_RESPONSE

TEXT = b"tea " * 50


class PassOn:
    """A middleware that passes `send` on as it is."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application."""
        await self.app(scope, receive, send)


class Wrapped:
    """A middleware that wraps `send`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application. The response is sent when its body has come."""
        messages: list[Message] = []

        async def collect(message: Message) -> None:
            messages.append(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                for kept in messages:
                    await send(kept)

        await self.app(scope, receive, collect)


async def forward(request: Any, call_next: Any) -> Any:
    """What a function of `BaseHTTPMiddleware` does."""
    return await call_next(request)


def create(**settings: Any) -> FastAPI:
    """The application with a route of its own, without a database."""
    router = APIRouter()

    @router.get("/teas")
    async def teas() -> Response:
        return Response(TEXT, media_type="text/plain")

    return main.create_app(
        Settings.load(database_url="postgresql://a@b/c", rate_limit_enabled=False, _env_file=None, **settings),
        resources=(router,),
    )


async def ask(app: ASGIApp, method: str = "GET", *headers: tuple[bytes, bytes]) -> list[Message]:
    """What the application sends to a server that takes a whole response in one message."""
    messages: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        messages.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": "/teas", "raw_path": b"/teas", "query_string": b"", "root_path": "", "client": ("127.0.0.1", 1),
        "headers": [(b"host", b"testserver"), *headers], "server": ("127.0.0.1", 80), "state": {WHOLE_RESPONSE: send},
    }  # fmt: skip
    await app(scope, receive, send)
    return messages


def body_of(messages: list[Message]) -> bytes:
    """The body of a response that is complete."""
    assert "http.response.start" == messages[0]["type"]
    assert "body" in messages[0] or (not messages[-1].get("more_body", False) and len(messages) > 1)
    return b"".join(message.get("body", b"") for message in messages)


async def test_a_response_is_one_message_to_the_server():
    """Two messages would be two calls of each function on the way."""
    (message,) = await ask(create())

    assert (200, TEXT) == (message["status"], message["body"])
    assert b"x-request-id" in dict(message["headers"])


@pytest.mark.parametrize("classes", [(GZipMiddleware,), (Wrapped,), (PassOn,), (PassOn, Wrapped)])
@pytest.mark.parametrize("place", ["outside of all", "first of the list", "last of the list", "added"])
async def test_a_middleware_gets_the_messages_that_it_knows(monkeypatch, place, classes):
    """Wherever it stands, and whether it wraps `send` or not, the response is complete."""
    listed: Callable[..., list[Middleware]] = main._middleware
    more = [Middleware(entry) for entry in classes]
    if place == "first of the list":
        monkeypatch.setattr(main, "_middleware", lambda *settings: [*more, *listed(*settings)])
    elif place == "last of the list":
        monkeypatch.setattr(main, "_middleware", lambda *settings: [*listed(*settings), *more])
    app: ASGIApp = create()
    for entry in classes:
        if place == "outside of all":
            app = entry(app)
        elif place == "added":
            app.add_middleware(entry)  # type: ignore[attr-defined]

    assert TEXT == body_of(await ask(app))


async def test_a_function_as_middleware_gets_the_messages_that_it_knows(monkeypatch):
    """`BaseHTTPMiddleware` waits for the body in a message of its own."""
    listed: Callable[..., list[Middleware]] = main._middleware
    more = Middleware(BaseHTTPMiddleware, dispatch=forward)
    monkeypatch.setattr(main, "_middleware", lambda *settings: [*listed(*settings), more])

    assert TEXT == body_of(await ask(create()))


async def test_head_and_cors_get_complete_responses():
    """The parts of this service that wrap `send` themselves."""
    app = create(cors_allow_origins="https://example.com")

    assert b"" == body_of(await ask(app, "HEAD"))
    messages = await ask(app, "GET", (b"origin", b"https://example.com"))
    assert TEXT == body_of(messages)
    assert b"https://example.com" == dict(messages[0]["headers"])[b"access-control-allow-origin"]
