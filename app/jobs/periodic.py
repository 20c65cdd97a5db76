"""Runs a job again and again in the background."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import uniform

import structlog

from app.errors import (
    DatabasePermissionDeniedError,
    DatabaseSetupError,
    DatabaseUnavailableError,
    RequestError,
    SchemaOutdatedError,
    root_cause,
)

log = structlog.get_logger(__name__)

_REPORTED_BY_READINESS = (
    DatabasePermissionDeniedError,
    DatabaseSetupError,
    DatabaseUnavailableError,
    SchemaOutdatedError,
)
"""Failures of the database itself. `readiness_changed` says them once, with what to check."""


@asynccontextmanager
async def running_periodically(job: Callable[[], Awaitable[None]], *, name: str, seconds: float) -> AsyncIterator[None]:
    """Run a job once in each interval until the block ends, which cancels it.

    The first run is at a random time of the first interval, and each pause is a little shorter or longer than the
    others: workers that start together do not run it together. A failure is logged, and the job runs again.
    """
    task = asyncio.create_task(_repeat(job, name, seconds))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _repeat(job: Callable[[], Awaitable[None]], name: str, seconds: float) -> None:
    await asyncio.sleep(uniform(0, seconds))  # noqa: S311  # nosec B311
    while True:
        try:
            await job()
        except RequestError as error:
            write = log.debug if isinstance(error, _REPORTED_BY_READINESS) else log.warning
            write("job_failed", job=name, code=error.code, cause=root_cause(error))
        except Exception:
            log.exception("job_failed", job=name)
        await asyncio.sleep(seconds * uniform(0.9, 1.1))  # noqa: S311  # nosec B311
