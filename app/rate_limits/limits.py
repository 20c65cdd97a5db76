"""The service's limits: declared with the application, opened with a worker."""

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from math import ceil
from pathlib import Path
from typing import Final, NoReturn, Protocol

import structlog
from slowapi.errors import RateLimitExceeded
from starlette.requests import Request

from app.errors import RateLimitedError
from app.rate_limits.buckets import Bucket
from app.rate_limits.clients import client_of
from app.rate_limits.limiter import limiter
from app.rate_limits.shared_memory import SharedMemory
from app.rate_limits.window import Decision
from app.settings import Settings

READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})

log = structlog.get_logger(__name__)


class Observer(Protocol):
    """Who wants to know what the limits do, for the metrics."""

    def decided(self, bucket: str, outcome: str) -> None:
        """Tell what became of a request: `admitted`, `refused`, or `uncounted`, which was let in all the same."""

    def degraded(self, degraded: bool) -> None:
        """Tell whether requests are counted less widely than the settings ask for."""


class Unobserved:
    """An observer that does nothing."""

    def decided(self, bucket: str, outcome: str) -> None:
        """Ignore it."""

    def degraded(self, degraded: bool) -> None:
        """Ignore it."""


class RateLimits:
    """What a client may send: one bucket over all reading requests and one over all writing ones."""

    def __init__(self, settings: Settings, observer: Observer | None = None) -> None:
        """Declare the limits; nothing is opened.

        Raises:
            StartupError: RATE_LIMIT_STORAGE_URI is malformed.
        """
        self.enabled = settings.rate_limit_enabled
        self._read = Bucket("read", settings.rate_limit_read)
        self._write = Bucket("write", settings.rate_limit_write)
        self._observer = observer or Unobserved()
        self._host = SharedMemory()
        self._failing = False
        self._uncounting = False
        self._across = None
        if self.enabled and settings.rate_limit_storage_uri is not None:
            # Only here: the client costs a worker 7 MB and most of them can do without.
            from app.rate_limits.across_hosts import AcrossHosts  # noqa: PLC0415

            self._across = AcrossHosts(settings.rate_limit_storage_uri.get_secret_value(), self._redis_changed)

    @asynccontextmanager
    async def opened(self, directory: Path | None = None) -> AsyncIterator[None]:
        """Open the counters of this worker; requests that come before fail.

        Args:
            directory: A folder that all workers of this service on this host share, and nobody
                else. Without one this process counts for itself.
        """
        if not self.enabled:
            with limiter.counting_in(self._host, enabled=False):
                yield
            return
        self._open_host(directory)
        try:
            async with AsyncExitStack() as stack:
                stack.enter_context(limiter.counting_in(self._host, enabled=self._host.is_open))
                if self._across is not None:
                    await stack.enter_async_context(self._across.opened())
                yield
        finally:
            self._host.close()

    def bucket(self, method: str) -> Bucket:
        """What a request with this method is counted in."""
        return self._read if method in READING else self._write

    async def hit(self, bucket: Bucket, client: tuple[str, int] | None) -> Decision | None:
        """Count a request, or refuse it. None when it cannot be counted, and is to be let in."""
        key = bucket.key(client_of(client))
        decision = self._hit_host(key, bucket)
        if self._across is not None and (decision is None or decision.admitted):
            across = await self._across.hit(key, bucket.limit, bucket.window_seconds)
            decision = self._reconcile(key, decision, across)
        outcome = "uncounted" if decision is None else "admitted" if decision.admitted else "refused"
        self._observer.decided(bucket.name, outcome)
        return decision

    async def refuse(self, request: Request, error: Exception) -> NoReturn:
        """Answer slowapi's exception, of a limit that a route has of its own, like every other refusal.

        Raises:
            RateLimitedError: Always.
        """
        if not isinstance(error, RateLimitExceeded):
            raise error
        self._observer.decided("route", "refused")
        item, identifiers = request.state.view_rate_limit
        reset = limiter.limiter.get_window_stats(item, *identifiers).reset_time
        raise RateLimitedError(max(1, ceil(reset - time.time())))

    def _open_host(self, directory: Path | None) -> None:
        """Share the counters with the other workers if that can be; never keep the worker from serving."""
        for folder in dict.fromkeys((directory, None)):
            try:
                self._host.open(folder)
            except self._host.errors:
                self._host.close()
                log.exception("rate_limit_storage_refused", directory=str(folder))
                self._observer.degraded(True)
            else:
                return
        self._uncounting = True

    def _hit_host(self, key: bytes, bucket: Bucket) -> Decision | None:
        if self._uncounting:
            return None
        try:
            decision = self._host.hit(key, bucket.limit, bucket.window_seconds)
        except self._host.errors:
            if not self._failing:
                log.exception("rate_limit_counting_failed")
            self._failing = True
            return None
        self._failing = False
        return decision

    def _reconcile(self, key: bytes, host: Decision | None, across: Decision | None) -> Decision | None:
        """Let Redis decide, where it can.

        This host has counted the request already: its own counters know everything when Redis goes,
        and hold when Redis comes back without its memory.
        """
        if across is None or host is None:
            return across or host
        if not across.admitted:
            with suppress(*self._host.errors):
                self._host.take_back(key)
            return across
        return min(host, across, key=lambda decision: decision.remaining)

    def _redis_changed(self, away: bool, reason: str) -> None:
        """Every worker finds out by itself; the first of the host to do so tells it."""
        self._observer.degraded(away)
        first = True
        with suppress(*self._host.errors):
            first = not self._host.is_open or self._host.mark("redis_away", away)
        if not first:
            return
        if away:
            log.warning("rate_limit_storage_lost", reason=reason)
        else:
            log.info("rate_limit_storage_restored")
