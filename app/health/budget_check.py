"""Checks that the server has enough connections for all instances, once the database can be reached."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

import structlog
from sqlalchemy import text

from app.connection_budget import Budget
from app.database import Database, named
from app.errors import RequestError
from app.health.last_report import LastReport
from app.settings import DatabasePooler, Settings

log = structlog.get_logger(__name__)

RETRY_SECONDS = 5.0

_limits = named(
    "read_connection_limits",
    text("""
SELECT
    current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
        - coalesce(current_setting('reserved_connections', true)::int, 0) AS server,
    (SELECT nullif(rolconnlimit, -1) FROM pg_roles WHERE rolname = current_user) AS role,
    (SELECT nullif(datconnlimit, -1) FROM pg_database WHERE datname = current_database()) AS database
"""),
)


class BudgetObserver(Protocol):
    """Receives the connection budget, for the metrics."""

    def set_connection_budget(self, *, instance: int, wanted: int, available: int) -> None:
        """Receive the budget, in connections."""


@asynccontextmanager
async def checking_budget(
    database: Database, settings: Settings, observer: BudgetObserver, last_report: LastReport
) -> AsyncIterator[None]:
    """Check the budget in the background while the block runs."""
    task = asyncio.create_task(_check(database, settings, observer, last_report))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _check(database: Database, settings: Settings, observer: BudgetObserver, last_report: LastReport) -> None:
    if settings.database_pooler is not DatabasePooler.NONE:
        return  # The pooler's limits apply, and the server does not know them.
    while True:
        try:
            rows = await database.run(_limits, {})
        except RequestError:
            await asyncio.sleep(RETRY_SECONDS)
        else:
            break
    budget = Budget(
        instances=settings.instances,
        connections_per_instance=settings.database_connections,
        server_connections=rows[0]["server"],
        role_connections=rows[0]["role"],
        database_connections=rows[0]["database"],
    )
    observer.set_connection_budget(
        instance=budget.connections_per_instance, wanted=budget.wanted, available=budget.available
    )
    if last_report.replace(repr(budget)):
        _log(budget)


def _log(budget: Budget) -> None:
    write = log.info if budget.fits else log.warning
    write(
        "connection_budget_checked",
        fits=budget.fits,
        instances=budget.instances,
        connections_per_instance=budget.connections_per_instance,
        migrator_connections=budget.migrator_connections,
        wanted=budget.wanted,
        available=budget.available,
        server_connections=budget.server_connections,
        role_connections=budget.role_connections,
        database_connections=budget.database_connections,
    )
