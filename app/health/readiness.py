"""Whether this worker should get requests: asked often, answered from one check a second."""

import asyncio
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

import structlog

from app.database import Database
from app.errors import PoolExhaustedError, RequestError, root_cause
from app.health.schema_state import Revisions, SchemaState, current_revision

log = structlog.get_logger(__name__)

CHECK_SECONDS = 1.0
"""How long one check may take, and how long its result is believed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checks:
    """What was found. The values are codes; the details stand in the log."""

    database: str
    """`ok`, or the code of the error."""

    schema: str
    """A `SchemaState`, or `unknown` while the database is out of reach."""

    @property
    def passed(self) -> bool:
        """Whether requests can be answered."""
        return self.database == "ok" and self.schema in (SchemaState.CURRENT, SchemaState.AHEAD)


class SchemaObserver(Protocol):
    """Who wants to know the schema's state, for the metrics."""

    def schema_is(self, state: str) -> None:
        """Take a `SchemaState`, or `unknown`."""


class Readiness:
    """Checks the database and its schema, at most one check at a time."""

    def __init__(self, database: Database, revisions: Revisions, observer: SchemaObserver) -> None:
        self._database = database
        self._revisions = revisions
        self._observer = observer
        self._checks = Checks(database="unchecked", schema="unknown")
        self._checked_at = float("-inf")
        self._running: asyncio.Task[None] | None = None

    async def checks(self) -> Checks:
        """The result of a check that is at most a second old. All who ask meanwhile share it."""
        if monotonic() - self._checked_at > CHECK_SECONDS:
            if self._running is None or self._running.done():
                self._running = asyncio.create_task(self._check())
            await asyncio.shield(self._running)
        return self._checks

    async def _check(self) -> None:
        schema, cause = "unknown", None
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                schema = self._revisions.state(await current_revision(self._database))
            database = "ok"
        except PoolExhaustedError:
            # Every connection is at work: busy is not broken, and taking this worker out
            # of service would only put its load on the others.
            database, schema = self._checks.database, self._checks.schema
        except RequestError as error:
            database, cause = error.code, root_cause(error)
        except TimeoutError:
            database = "timeout"
        found = Checks(database=database, schema=schema)
        if found != self._checks:
            write = log.info if found.passed else log.warning
            write("readiness_changed", database=found.database, schema=found.schema, cause=cause)
            self._observer.schema_is(found.schema)
        self._checks = found
        self._checked_at = monotonic()
