"""The same handler twice: synchronous, for FastAPI's thread pool, and asynchronous."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from fastapi import FastAPI, Request, status
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool

from app.schemas.item import ItemCreate, ItemRead

CONNECTIONS = 10

_RETURNING = "RETURNING id, name, description, price::float8, is_active, created_at, updated_at"


@asynccontextmanager
async def _with_psycopg(app: FastAPI) -> AsyncIterator[None]:
    with ConnectionPool(
        os.environ["DATABASE_URL"],
        min_size=CONNECTIONS,
        max_size=CONNECTIONS,
        timeout=60,
        kwargs={"autocommit": True, "row_factory": dict_row},
    ) as app.state.pool:
        yield


@asynccontextmanager
async def _with_asyncpg(app: FastAPI) -> AsyncIterator[None]:
    async with asyncpg.create_pool(
        os.environ["DATABASE_URL"], min_size=CONNECTIONS, max_size=CONNECTIONS
    ) as app.state.pool:
        yield


synchronous = FastAPI(lifespan=_with_psycopg)
asynchronous = FastAPI(lifespan=_with_asyncpg)


@synchronous.post("/items", response_model=ItemRead, status_code=status.HTTP_201_CREATED)
def create_in_a_thread(body: ItemCreate, request: Request) -> Any:
    """Store a new item."""
    values = body.name, body.description, body.price, body.is_active
    with request.app.state.pool.connection() as connection:
        return connection.execute(
            f"INSERT INTO items (name, description, price, is_active) VALUES (%s, %s, %s, %s) {_RETURNING}", values
        ).fetchone()


@asynchronous.post("/items", response_model=ItemRead, status_code=status.HTTP_201_CREATED)
async def create_in_the_loop(body: ItemCreate, request: Request) -> Any:
    """Store a new item."""
    values = body.name, body.description, body.price, body.is_active
    return dict(
        await request.app.state.pool.fetchrow(
            f"INSERT INTO items (name, description, price, is_active) VALUES ($1, $2, $3::float8, $4) {_RETURNING}",
            *values,
        )
    )


@synchronous.get("/items/{item_id}")
@asynchronous.get("/items/{item_id}")
async def answer(item_id: int) -> int:
    """Answer the check that the server has started."""
    return item_id
