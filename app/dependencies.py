"""The dependencies that a handler can declare."""

from typing import Annotated

from fastapi import Depends, Request

from app.database import Database
from app.health.readiness import Readiness


async def _database(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


async def _readiness(request: Request) -> Readiness:
    readiness: Readiness = request.app.state.readiness
    return readiness


DatabaseDependency = Annotated[Database, Depends(_database)]
"""The database of this worker."""

ReadinessDependency = Annotated[Readiness, Depends(_readiness)]
"""The readiness checks of this worker."""
