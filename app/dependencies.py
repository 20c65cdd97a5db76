"""The dependencies that a handler can declare. They read `app.state` by key, which is faster than by attribute."""

from typing import Annotated

from fastapi import Depends, Request

from app.database import Database, ReadDatabase
from app.database.replicas import Replicas
from app.health.readiness import Readiness
from app.rate_limits import RateLimits


async def get_database(request: Request) -> Database:
    """Return the database of this worker."""
    database: Database = request.app.state["database"]
    return database


async def get_read_database(request: Request) -> ReadDatabase:
    """Return what answers reads: this worker's database, or a replica where that is as good."""
    state = request.app.state
    replicas: Replicas | None = state["replicas"]
    if replicas is None:
        database: Database = state["database"]
        return database
    headers = request.headers
    return replicas.reader(headers.getlist("cache-control"), headers.getlist("if-none-match"))


async def get_readiness(request: Request) -> Readiness:
    """Return the readiness checks of this worker."""
    readiness: Readiness = request.app.state["readiness"]
    return readiness


async def get_rate_limits(request: Request) -> RateLimits:
    """Return the rate limits."""
    rate_limits: RateLimits = request.app.state["rate_limits"]
    return rate_limits


DatabaseDependency = Annotated[Database, Depends(get_database)]
"""The database of this worker. A handler that writes declares it."""

ReadDatabaseDependency = Annotated[ReadDatabase, Depends(get_read_database)]
"""What answers the reads of this worker: a replica where there is one. A handler that only reads declares it."""

RateLimitsDependency = Annotated[RateLimits, Depends(get_rate_limits)]
"""The rate limits, for a handler whose request counts as several: see `RateLimits.count_as`."""

ReadinessDependency = Annotated[Readiness, Depends(get_readiness)]
"""The readiness checks of this worker."""
