"""The floor: the lowest cost of this stack, without any of the controls that a service needs.

A bare ASGI application with asyncpg's own pool and orjson. It has no validation, no rate limit,
no log, no metrics and no request id.
"""

import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import asyncpg
import orjson

Message = MutableMapping[str, Any]

_COLUMNS = "id, name, description, price::float8, is_active, created_at, updated_at"
_GET = f"SELECT {_COLUMNS} FROM items WHERE id = $1"
_PAGE = f"SELECT {_COLUMNS} FROM items ORDER BY id LIMIT 20"
_CREATE = (
    f"INSERT INTO items (name, description, price, is_active) VALUES ($1, $2, $3::float8, $4) RETURNING {_COLUMNS}"
)

CONNECTIONS = 10
"""The same number on each side of the comparison."""


class Floor:
    """Answers like the service, without its headers and the paging fields."""

    def __init__(self, *, resets: bool) -> None:
        """Choose whether asyncpg's pool resets a connection after each use, which is its default."""
        self._resets = resets
        self._pool: Any = None

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Answer one request, or run the lifespan."""
        if scope["type"] == "lifespan":
            await self._run_lifespan(receive, send)
            return
        path, status = scope["path"], 200
        answer: Any
        if scope["method"] == "POST":
            content = orjson.loads(await _body(receive))
            values = content["name"], content.get("description"), content.get("price"), content.get("is_active", True)
            answer = dict(await self._pool.fetchrow(_CREATE, *values))
            status = 201
        elif path == "/items":
            answer = [dict(row) for row in await self._pool.fetch(_PAGE)]
        else:
            answer = dict(await self._pool.fetchrow(_GET, int(path[7:])))
        body = orjson.dumps(answer)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _run_lifespan(
        self, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        options: dict[str, Any] = {} if self._resets else {"reset": _do_not_reset}
        await receive()
        self._pool = await asyncpg.create_pool(
            os.environ["DATABASE_URL"], min_size=CONNECTIONS, max_size=CONNECTIONS, **options
        )
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._pool.close()
        await send({"type": "lifespan.shutdown.complete"})


async def _do_not_reset(_connection: Any) -> None:
    """Do nothing."""


async def _body(receive: Callable[[], Awaitable[Message]]) -> bytes:
    message = await receive()
    body: bytes = message["body"]
    while message["more_body"]:
        message = await receive()
        body += message["body"]
    return body


with_reset = Floor(resets=True)
without_reset = Floor(resets=False)
