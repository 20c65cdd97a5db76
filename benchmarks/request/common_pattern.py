"""The common pattern, with the same controls as the service.

It is what current tutorials and templates recommend, without mistakes of its own: one engine, async
throughout, `expire_on_commit=False`, a dataclass between the layers, structlog for one line a request.
"""

import os
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

import structlog
from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response, status
from prometheus_fastapi_instrumentator import Instrumentator
from pydantic import BaseModel, Field
from slowapi import Limiter, _rate_limit_exceeded_handler
from slowapi.errors import RateLimitExceeded
from slowapi.middleware import SlowAPIMiddleware
from slowapi.util import get_remote_address
from sqlalchemy import BigInteger, DateTime, Numeric, Text, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint

structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
        structlog.processors.JSONRenderer(),
    ],
    logger_factory=structlog.PrintLoggerFactory(),
    cache_logger_on_first_use=True,
)
log = structlog.get_logger()

engine = create_async_engine(
    os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+asyncpg://", 1),
    pool_pre_ping=True,
    pool_size=10,
    max_overflow=0,
)
sessions = async_sessionmaker(engine, expire_on_commit=False)


class Base(DeclarativeBase):
    """All tables."""


class ItemRow(Base):
    """The table of items."""

    __tablename__ = "items"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    description: Mapped[str | None] = mapped_column(Text)
    price: Mapped[Decimal | None] = mapped_column(Numeric(12, 2))
    is_active: Mapped[bool] = mapped_column(server_default=text("true"))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


@dataclass
class Item:
    """An item between the layers."""

    id: int
    name: str
    description: str | None
    price: Decimal | None
    is_active: bool
    created_at: datetime
    updated_at: datetime


class ItemCreate(BaseModel):
    """A new item."""

    name: str = Field(min_length=1, max_length=255)
    description: str | None = Field(default=None, max_length=10_000)
    price: float | None = Field(default=None, ge=0, le=9_999_999_999.99)
    is_active: bool = True


class ItemRead(BaseModel):
    """An item."""

    id: int
    name: str
    description: str | None
    price: float | None
    is_active: bool
    created_at: datetime
    updated_at: datetime


class ItemList(BaseModel):
    """A page of items."""

    items: list[ItemRead]
    page: int
    per_page: int
    total: int
    pages: int


async def get_session() -> AsyncIterator[AsyncSession]:
    """Open a session for one request."""
    async with sessions() as session:
        yield session


Session = Annotated[AsyncSession, Depends(get_session)]


class RequestLog(BaseHTTPMiddleware):
    """Gives each request an id, and writes one line for it."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Pass the request on, then write the line."""
        request_id = request.headers.get("X-Request-ID") or str(uuid.uuid4())
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        started = time.perf_counter()
        response = await call_next(request)
        response.headers["X-Request-ID"] = request_id
        log.info(
            "request_served",
            method=request.method,
            path=request.url.path,
            status=response.status_code,
            duration_seconds=time.perf_counter() - started,
            client=request.client.host if request.client else None,
        )
        return response


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Close the engine at the end."""
    yield
    await engine.dispose()


app = FastAPI(lifespan=lifespan)
limiter = Limiter(key_func=get_remote_address, default_limits=[os.environ.get("RATE_LIMIT", "1000000000/minute")])
app.state.limiter = limiter
app.add_exception_handler(RateLimitExceeded, _rate_limit_exceeded_handler)  # type: ignore[arg-type]
app.add_middleware(SlowAPIMiddleware)
app.add_middleware(RequestLog)
Instrumentator().instrument(app).expose(app)


# The routes are declared on the application: slowapi's middleware ignores those of an included router.


@app.get("/items/{item_id}", response_model=ItemRead)
async def read_item(item_id: int, session: Session) -> dict[str, Any]:
    """One item."""
    row = await session.get(ItemRow, item_id)
    if row is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, "Item not found")
    return asdict(_to_item(row))


@app.get("/items", response_model=ItemList)
async def list_items(
    session: Session, page: Annotated[int, Query(ge=1)] = 1, per_page: Annotated[int, Query(ge=1, le=100)] = 20
) -> dict[str, Any]:
    """A page of items, and how many there are."""
    total = await session.scalar(select(func.count()).select_from(ItemRow)) or 0
    found = await session.scalars(select(ItemRow).order_by(ItemRow.id).offset((page - 1) * per_page).limit(per_page))
    return {
        "items": [asdict(_to_item(row)) for row in found],
        "page": page,
        "per_page": per_page,
        "total": total,
        "pages": -(-total // per_page),
    }


@app.post("/items", response_model=ItemRead, status_code=status.HTTP_201_CREATED)
async def create_item(body: ItemCreate, session: Session) -> dict[str, Any]:
    """Store a new item."""
    row = ItemRow(**body.model_dump())
    session.add(row)
    await session.commit()
    await session.refresh(row)
    return asdict(_to_item(row))


def _to_item(row: ItemRow) -> Item:
    return Item(
        id=row.id,
        name=row.name,
        description=row.description,
        price=row.price,
        is_active=row.is_active,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
