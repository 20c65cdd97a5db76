"""Whether this worker should receive requests. Probes may ask often: one check a second answers them all."""

import asyncio
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

import structlog

from app.database import Database
from app.errors import PoolExhaustedError, RequestError, root_cause
from app.health.schema_state import Revisions, SchemaState, current_revision

log = structlog.get_logger(__name__)

CHECK_TIMEOUT_SECONDS = 1.0
"""A check that takes longer fails with `timeout`."""

CACHE_SECONDS = 1.0
"""The result of a check is reused for so long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checks:
    """The results of a check, as codes. The cause of a failure is in the log."""

    database: str
    """`ok`, or the code of the error."""

    schema: str
    """A `SchemaState`, or `unknown` while the database cannot be reached."""

    @property
    def passed(self) -> bool:
        """Whether requests can be answered."""
        return self.database == "ok" and self.schema in (SchemaState.CURRENT, SchemaState.AHEAD)


class SchemaObserver(Protocol):
    """Receives the state of the schema, for the metrics."""

    def set_schema_state(self, state: str) -> None:
        """Receive a `SchemaState`, or `unknown`."""


class Readiness:
    """Checks the database and its schema. At most one check runs at a time."""

    def __init__(self, database: Database, revisions: Revisions, observer: SchemaObserver) -> None:
        self._database = database
        self._revisions = revisions
        self._observer = observer
        self._checks = Checks(database="unchecked", schema="unknown")
        self._checked_at = float("-inf")
        self._running: asyncio.Task[None] | None = None

    async def checks(self) -> Checks:
        """The result of the last check, or of a new one if that is too old. Concurrent callers share one check."""
        if monotonic() - self._checked_at > CACHE_SECONDS:
            if self._running is None or self._running.done():
                self._running = asyncio.create_task(self._check())
            await asyncio.shield(self._running)
        return self._checks

    async def _check(self) -> None:
        schema, cause = "unknown", None
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
                schema = self._revisions.state(await current_revision(self._database))
            database = "ok"
        except PoolExhaustedError:
            # All connections are in use. The database works, and a worker that is not
            # ready would only move its requests to the other workers.
            database, schema = self._checks.database, self._checks.schema
        except RequestError as error:
            database, cause = error.code, root_cause(error)
        except TimeoutError:
            database = "timeout"
        result = Checks(database=database, schema=schema)
        if result != self._checks:
            write = log.info if result.passed else log.warning
            write("readiness_changed", database=result.database, schema=result.schema, cause=cause)
            self._observer.set_schema_state(result.schema)
        self._checks = result
        self._checked_at = monotonic()
