"""Whether this worker should receive requests. Probes may ask often: one check a second answers them all."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from time import monotonic
from typing import Final, Protocol, Self

import structlog

from app.database import Database
from app.errors import (
    DatabasePermissionDeniedError,
    DatabaseUnavailableError,
    PoolExhaustedError,
    RequestError,
    root_cause,
)
from app.health.schema_state import Revisions, Schema, SchemaState, read_schema

log = structlog.get_logger(__name__)

CHECK_TIMEOUT_SECONDS = 1.0
"""A check that takes longer fails with `timeout`."""

CACHE_SECONDS = 1.0
"""The result of a check is reused for so long."""


_UNREACHABLE: Final = {DatabaseUnavailableError.code, "timeout"}

_ADVICE: Final = "Check DATABASE_URL, that PostgreSQL runs, and that it accepts connections from this machine."


@dataclass(frozen=True, slots=True, kw_only=True)
class Checks:
    """The results of a check, as codes. The cause of a failure is in the log."""

    database: str
    """`ok`, or the code of the error."""

    schema: str
    """A `SchemaState`, or `unknown` while the revision cannot be read."""

    revision_found: str | None = None
    """The database's revision, None if it has none or while it cannot be read."""

    revision_needed: str | None
    """The newest revision of this code."""

    @property
    def passed(self) -> bool:
        """Whether requests can be answered."""
        return self.database == "ok" and self.schema in (SchemaState.CURRENT, SchemaState.AHEAD)

    @property
    def usable_schema(self) -> str:
        """The state of the schema for the metrics: `unknown` as well if the worker may not use a current schema."""
        return self.schema if self.passed or self.schema == SchemaState.BEHIND else "unknown"


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
        self._checks = Checks(database="unchecked", schema="unknown", revision_needed=revisions.head)
        self._checked_at = float("-inf")
        self._running: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def opened(self, *, check_now: bool) -> AsyncIterator[Self]:
        """Check once in the background if `check_now`: the log says at once when the database cannot be used.

        A check that still runs at the end of the block is cancelled.
        """
        if check_now:
            self._running = asyncio.create_task(self._check())
        try:
            yield self
        finally:
            if self._running is not None:
                self._running.cancel()
                await asyncio.gather(self._running, return_exceptions=True)

    async def checks(self) -> Checks:
        """The result of the last check, or of a new one if that is too old. Concurrent callers share one check."""
        if monotonic() - self._checked_at > CACHE_SECONDS:
            if self._running is None or self._running.done():
                self._running = asyncio.create_task(self._check())
            await asyncio.shield(self._running)
        return self._checks

    async def _check(self) -> None:
        cause = None
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
                schema = await read_schema(self._database)
            result, cause = self._compare(schema)
        except PoolExhaustedError:
            # All connections are in use. The database works, and a worker that is not
            # ready would only move its requests to the other workers.
            result = self._checks
        except RequestError as error:
            result, cause = self._failed(error.code), root_cause(error)
        except TimeoutError:
            result = self._failed("timeout")
        if result != self._checks:
            write = log.info if result.passed else log.warning
            advice = {"advice": _ADVICE} if result.database in _UNREACHABLE else {}
            write("readiness_changed", **asdict(result), cause=cause, **advice)
            self._observer.set_schema_state(result.usable_schema)
        self._checks = result
        self._checked_at = monotonic()

    def _compare(self, schema: Schema) -> tuple[Checks, str | None]:
        """The result for this schema, and the cause if it is not ready."""
        database, cause = "ok", None
        state: str = self._revisions.state(schema)
        if schema.missing:
            cause = f"The database lacks {', '.join(schema.missing)}."
        if schema.missing_privileges:
            database = DatabasePermissionDeniedError.code
            cause = f"The role {schema.role} lacks {', '.join(schema.missing_privileges)}: grant it."
            state = state if schema.revision else "unknown"
        checks = Checks(
            database=database,
            schema=state,
            revision_found=schema.revision,
            revision_needed=self._revisions.head,
        )
        return checks, cause

    def _failed(self, code: str) -> Checks:
        return Checks(database=code, schema="unknown", revision_needed=self._revisions.head)
