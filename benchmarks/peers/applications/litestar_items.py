"""Litestar with its own request log (structlog), rate limit and metrics, and with asyncpg's pool.

The rate limit counts by the second. Its middleware keeps the time of each request of the window in a list, and
writes and reads that list for each request: with a window of a minute a request costs more than the one before.
"""

import json
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated

import asyncpg
import structlog
from litestar import Litestar, get, post
from litestar.datastructures import MutableScopeHeaders, State
from litestar.exceptions import NotFoundException
from litestar.middleware import ASGIMiddleware
from litestar.middleware.logging import LoggingMiddlewareConfig
from litestar.middleware.rate_limit import RateLimitConfig
from litestar.params import Parameter
from litestar.plugins.prometheus import PrometheusConfig, PrometheusController
from litestar.plugins.structlog import StructlogConfig, StructlogPlugin
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from msgspec import Meta, Struct

CONNECTIONS = 10
STATEMENTS = json.loads(Path(__file__).with_name("statements.json").read_text())


class ItemCreate(Struct):
    """A new item."""

    name: Annotated[str, Meta(min_length=1, max_length=255)]
    description: Annotated[str, Meta(max_length=10_000)] | None = None
    price: Annotated[float, Meta(ge=0, le=9_999_999_999.99)] | None = None
    is_active: bool = True


class Item(Struct):
    """An item."""

    id: int
    name: str
    description: str | None
    price: float | None
    is_active: bool
    created_at: datetime
    updated_at: datetime


class ItemPage(Struct):
    """A page of items."""

    items: list[Item]
    page: int
    per_page: int
    total: int
    pages: int


class RequestId(ASGIMiddleware):
    """Gives each request an id, in its log line and in the answer."""

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Pass the request on with its id."""
        request_id = next((value for name, value in scope["headers"] if name == b"x-request-id"), None)
        text = request_id.decode("latin-1") if request_id else uuid.uuid4().hex
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(method=scope["method"], path=scope["path"], request_id=text)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableScopeHeaders(message)["X-Request-ID"] = text
            await send(message)

        await next_app(scope, receive, send_with_id)


@get("/items/{item_id:int}")
async def read_item(state: State, item_id: int) -> Item:
    """One item."""
    row = await state.pool.fetchrow(STATEMENTS["read"], item_id)
    if row is None:
        raise NotFoundException(detail="Item not found")
    return Item(*row)


@get("/items")
async def list_items(
    state: State,
    page: Annotated[int, Parameter(ge=1)] = 1,
    per_page: Annotated[int, Parameter(ge=1, le=100)] = 20,
) -> ItemPage:
    """A page of items, and how many there are."""
    rows = await state.pool.fetch(STATEMENTS["page"], per_page, (page - 1) * per_page)
    total = rows[0]["total"]
    items = [Item(*row[1:]) for row in rows if row["id"] is not None]
    return ItemPage(items=items, page=page, per_page=per_page, total=total, pages=-(-total // per_page))


@post("/items")
async def create_item(state: State, data: ItemCreate) -> Item:
    """Store a new item."""
    return Item(
        *await state.pool.fetchrow(STATEMENTS["create"], data.name, data.description, data.price, data.is_active)
    )


@asynccontextmanager
async def lifespan(app: Litestar) -> AsyncIterator[None]:
    """Keep the connections open."""
    async with asyncpg.create_pool(
        os.environ["DATABASE_URL"], min_size=CONNECTIONS, max_size=CONNECTIONS
    ) as app.state.pool:
        yield


rate_limit = RateLimitConfig(rate_limit=("second", int(os.environ["RATE_LIMIT"])), exclude=["/metrics"])
# One line for each request: the middleware writes one for the request and one for the response.
request_log = LoggingMiddlewareConfig(
    request_log_fields=(), response_log_fields=("status_code",), response_log_message="request_served"
)
metrics = PrometheusConfig(group_path=True)

app = Litestar(
    route_handlers=[read_item, list_items, create_item, PrometheusController],
    lifespan=[lifespan],
    middleware=[RequestId(), request_log.middleware, metrics.middleware, rate_limit.middleware],
    plugins=[StructlogPlugin(StructlogConfig(enable_middleware_logging=False))],
    openapi_config=None,
)
