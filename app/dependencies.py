"""The dependencies that a handler can declare."""

from typing import Annotated

from fastapi import Depends, Request

from app.database import Database
from app.health.readiness import Readiness


async def get_database(request: Request) -> Database:
    """Return the database of this worker."""
    database: Database = request.app.state.database
    return database


async def get_readiness(request: Request) -> Readiness:
    """Return the readiness checks of this worker."""
    readiness: Readiness = request.app.state.readiness
    return readiness


DatabaseDependency = Annotated[Database, Depends(get_database)]
"""The database of this worker."""

ReadinessDependency = Annotated[Readiness, Depends(get_readiness)]
"""The readiness checks of this worker."""
