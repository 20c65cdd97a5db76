"""Whether this worker should receive requests. It checks the database by itself, so that no probe has to wait."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Protocol, Self

import structlog

from app.database import Database
from app.database.replicas import Replicas
from app.errors import (
    AuthUnavailableError,
    DatabasePermissionDeniedError,
    DatabaseReadOnlyError,
    DatabaseUnavailableError,
    RequestError,
    StatementTimeoutError,
    root_cause,
)
from app.health.last_report import LastReport
from app.health.schema_state import Revisions, Schema, SchemaState, read_schema

log = structlog.get_logger(__name__)

INTERVAL_SECONDS = 1.0
"""The pause between two checks."""

RETRY_SECONDS = 0.25
"""The pause after a check that has failed: a worker is ready soon after the database is."""

FIRST_SECONDS = 2.0
"""How long a probe waits for the first result. It must be below the timeout of the orchestrator's probe."""

_UNCHECKED: Final = "unchecked"
_FAILED: Final = "check_failed"
_READ_ONLY: Final = "read_only"

_ADVICE: Final = "Check DATABASE_URL, that PostgreSQL runs, and that it accepts connections from this machine."


@dataclass(frozen=True, slots=True, kw_only=True)
class Checks:
    """The results of a check, as codes. The cause of a failure is in the log."""

    database: str
    """`ok`, `read_only` where no write would succeed, the code of the error, `unchecked` before the first result, or
    `check_failed` because of a defect."""

    schema: str
    """A `SchemaState`, or `unknown` while the revision cannot be read."""

    revision_found: str | None = None
    """The database's revision, None if it has none or while it cannot be read."""

    revision_needed: str | None
    """The newest revision of this code."""

    auth_keys: str | None = None
    """`ok`, or `auth_unavailable` while access tokens cannot be verified. None without authentication."""

    by_replica: bool = False
    """Whether the worker is ready only because a replica answers reads: the primary is away or takes no writes."""

    primary_away: bool = False
    """With `by_replica`: whether the primary has not answered at all."""

    @property
    def passed(self) -> bool:
        """Whether requests can be answered, or at least those that read."""
        return self._database_passed and self.auth_keys in {None, "ok"}

    @property
    def _database_passed(self) -> bool:
        return (self.database == "ok" or self.by_replica) and self.schema in (SchemaState.CURRENT, SchemaState.AHEAD)

    def to_dict(self) -> dict[str, Any]:
        """The results by name. Without authentication there is none about it."""
        results = asdict(self)
        del results["by_replica"], results["primary_away"]
        if self.auth_keys is None:
            del results["auth_keys"]
        return results

    @property
    def reachable(self) -> bool:
        """Whether the database has answered, even if the worker may not use it."""
        return not self.primary_away and self.database not in (DatabaseUnavailableError.code, _UNCHECKED, _FAILED)

    @property
    def usable_schema(self) -> str:
        """The state of the schema for the metrics: `unknown` as well if the worker may not use a current schema."""
        return self.schema if self._database_passed or self.schema == SchemaState.BEHIND else "unknown"


class TokenChecks(Protocol):
    """What verifies access tokens."""

    @property
    def is_available(self) -> bool:
        """Whether it can."""


class ReadinessObserver(Protocol):
    """Receives the results of the checks, for the metrics."""

    worker: str
    """The worker's slot."""

    def set_readiness(
        self, *, ready: bool, database_reachable: bool, schema_state: str, read_only: bool = False
    ) -> None:
        """Receive a result; `schema_state` is a `SchemaState`, or `unknown`; `read_only` as `Checks.by_replica`."""


class Readiness:
    """Checks the database and its schema, one check after the other."""

    def __init__(
        self,
        database: Database,
        revisions: Revisions,
        observer: ReadinessObserver,
        last_report: LastReport,
        *,
        tokens: TokenChecks | None = None,
        replicas: Replicas | None = None,
    ) -> None:
        self._database = database
        self._revisions = revisions
        self._observer = observer
        self._last_report = last_report
        self._tokens = tokens
        self._replicas = replicas
        self._checked = asyncio.Event()
        self._checks = self._failed(_UNCHECKED)
        self._report()

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Self]:
        """Check once each INTERVAL_SECONDS until the block ends."""
        task = asyncio.create_task(self._check_repeatedly())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def checks(self) -> Checks:
        """The result of the last check. Only the first result is waited for, at most FIRST_SECONDS."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_SECONDS):
                await self._checked.wait()
        return self._checks

    async def check(self) -> Checks:
        """Check now, and return the result."""
        cause = None
        try:
            result, cause = self._compare(await read_schema(self._database))
        except StatementTimeoutError:
            # The database works and is busy. A worker that is not ready would only
            # move its requests to the other workers.
            result = self._checks
        except RequestError as error:
            code = _READ_ONLY if isinstance(error, DatabaseReadOnlyError) else error.code
            result, cause = self._failed(code), root_cause(error)
        except Exception as error:  # whatever is unknown is not ready
            result, cause = self._failed(_FAILED), type(error).__qualname__
            if result != self._checks:
                log.exception("readiness_check_failed")
        result = self._with_replicas(result)
        if self._tokens is not None:
            result = replace(result, auth_keys="ok" if self._tokens.is_available else AuthUnavailableError.code)
        if result != self._checks:
            self._checks = result
            self._log(cause)
            self._report()
        if result.database != _UNCHECKED:
            self._checked.set()
        return result

    def _with_replicas(self, result: Checks) -> Checks:
        """The result where a replica answers reads, so that the worker has to receive requests: it is `read_only`."""
        if result.database not in (DatabaseUnavailableError.code, _READ_ONLY) or self._replicas is None:
            return result
        if (replica := self._replicas.answering) is None:
            # The result is the last one while the database is busy. A replica may have answered then.
            return replace(result, by_replica=False)
        return replace(
            result,
            database=_READ_ONLY,
            schema=replica.schema_state,
            revision_found=replica.revision,
            by_replica=True,
            primary_away=not result.reachable,
        )

    def _log(self, cause: str | None) -> None:
        """Write a change. The line is at debug if another worker of the instance has reported the same."""
        checks = self._checks
        is_new = self._last_report.replace(repr(checks))
        write = log.debug if not is_new else log.info if checks.passed else log.warning
        advice = {} if checks.reachable else {"advice": _ADVICE}
        write("readiness_changed", slot=self._observer.worker, **checks.to_dict(), cause=cause, **advice)

    async def _check_repeatedly(self) -> None:
        while True:
            checks = await self.check()
            await asyncio.sleep(INTERVAL_SECONDS if checks.passed else RETRY_SECONDS)

    def _report(self) -> None:
        checks = self._checks
        self._observer.set_readiness(
            ready=checks.passed,
            database_reachable=checks.reachable,
            schema_state=checks.usable_schema,
            read_only=checks.by_replica,
        )

    def _compare(self, schema: Schema) -> tuple[Checks, str | None]:
        """The result for this schema, and the cause if it is not ready."""
        database, cause = "ok", None
        state: str = self._revisions.state(schema)
        if schema.missing:
            cause = f"The database lacks {', '.join(schema.missing)}."
        if schema.is_read_only:
            # The primary has become a standby: new connections may lead to the new primary.
            self._database.reconnect()
            database = _READ_ONLY
            cause = "The server takes no writes: it is a standby, or default_transaction_read_only is on."
        elif schema.missing_privileges:
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
