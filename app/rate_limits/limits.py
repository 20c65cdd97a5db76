"""The service's rate limits: declared with the application, opened with a worker."""

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final, NoReturn, Protocol

import structlog
from slowapi.errors import RateLimitExceeded
from starlette.requests import Request
from starlette.types import Scope

from app.errors import QuotaTooSmallError, RateLimitedError
from app.rate_limits.clients import client_of_scope
from app.rate_limits.host_counters import HostCounters
from app.rate_limits.limiter import limiter
from app.rate_limits.quotas import Headers, Quota
from app.rate_limits.slices import Slices
from app.rate_limits.window import Decision
from app.settings import Settings

READ_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})

log = structlog.get_logger(__name__)


class RateLimitMetrics(Protocol):
    """Receives rate limit metrics."""

    def rate_limit_decided(self, quota: str, outcome: str) -> None:
        """A request was `admitted` or `refused`."""

    def rate_limit_degraded(self, degraded: bool) -> None:
        """Requests are counted over fewer workers or hosts than the settings ask for, or no longer are so."""


class NoMetrics:
    """Discards rate limit metrics."""

    def rate_limit_decided(self, quota: str, outcome: str) -> None:
        """Discard it."""

    def rate_limit_degraded(self, degraded: bool) -> None:
        """Discard it."""


class RateLimits:
    """The quotas of each client: one for all reading requests and one for all writing requests."""

    def __init__(self, settings: Settings, metrics: RateLimitMetrics | None = None) -> None:
        """Declare the limits; nothing is opened.

        Raises:
            StartupError: RATE_LIMIT_STORAGE_URI is malformed.
        """
        self.enabled = settings.rate_limit_enabled
        self._read = Quota("read", settings.rate_limit_read)
        self._write = Quota("write", settings.rate_limit_write)
        self._of_routes = {"export": settings.rate_limit_export}
        self._metrics = metrics or NoMetrics()
        self._host = HostCounters(lambda degraded: self._set_degraded("host", degraded))
        self._workers = settings.web_concurrency
        self._slices = Slices(self._host, self._workers)
        self._degraded = set[str]()
        self._redis = None
        if self.enabled and settings.rate_limit_storage_uri is not None:
            # Imported only here: the client takes 7 MB in each worker, and most deployments do not use it.
            from app.rate_limits.redis_counters import RedisCounters  # noqa: PLC0415

            self._redis = RedisCounters(settings.rate_limit_storage_uri.get_secret_value(), self._redis_changed)

    @asynccontextmanager
    async def opened(self, directory: Path | None = None) -> AsyncIterator[None]:
        """Open the counters of this worker. Requests before that fail.

        Args:
            directory: A folder that all workers of this instance share, and no other process uses.
                Without it this worker counts alone.
        """
        if not self.enabled:
            with limiter.using(self._host, self._of_routes, enabled=False):
                yield
            return
        self._host.open(directory)
        # With Redis, which counts for all workers, the host's counters only stand in for it.
        if directory is None and self._workers > 1 and self._redis is None:
            self._set_degraded("folder", True)
        try:
            async with AsyncExitStack() as stack:
                stack.enter_context(limiter.using(self._host, self._of_routes, enabled=True))
                if self._redis is not None:
                    await stack.enter_async_context(self._redis.opened())
                yield
        finally:
            self._slices.give_back_all()
            self._host.close()

    def quota(self, method: str) -> Quota:
        """The quota that a request with this method uses."""
        return self._read if method in READ_METHODS else self._write

    def admit_from_slice(self, quota: Quota, client: str) -> Headers | None:
        """Admit a request that was counted in advance, and return its headers. None if `hit` has to count it."""
        spent = self._slices.spend(quota.key(client))
        if spent is None:
            return None
        self._metrics.rate_limit_decided(quota.name, "admitted")
        return quota.headers(*spent)

    def hit_at_once(self, quota: Quota, client: str) -> Decision | None:
        """Count a request of a client, as `client_of` names it, or refuse it. None if Redis has to be asked."""
        if self._redis is not None:
            return None
        decision = self._slices.hit(quota.key(client), quota.limit, quota.window_seconds)
        self._metrics.rate_limit_decided(quota.name, "admitted" if decision.admitted else "refused")
        return decision

    async def hit(self, quota: Quota, client: str) -> Decision:
        """Count a request of a client, or refuse it, and ask Redis if it is used."""
        decision = self.hit_at_once(quota, client)
        if decision is None:
            decision = await self._count(quota, client)
            self._metrics.rate_limit_decided(quota.name, "admitted" if decision.admitted else "refused")
        return decision

    async def count_as(self, scope: Scope, cost: int) -> None:
        """Let the request that is being handled count as several: it has counted as one when it arrived.

        All of them are counted, or none. Call it before anything else is done for the request, so that nothing of a
        request that is refused has been executed.

        Raises:
            QuotaTooSmallError: The quota never admits so many.
            RateLimitedError: The quota does not admit so many now. The request still counts as one.
        """
        quota = self.quota(scope["method"])
        if not self.enabled or cost == 1:
            return
        if cost > quota.limit:
            raise QuotaTooSmallError(cost, quota.text)
        decision = await self._count(quota, client_of_scope(scope), cost, counted=1)
        scope["state"]["rate_limit_headers"] = quota.headers(decision.remaining, decision.reset_seconds)
        if not decision.admitted:
            self._metrics.rate_limit_decided(quota.name, "refused")
            raise RateLimitedError(quota.retry_seconds(decision))

    async def _count(self, quota: Quota, client: str, cost: int = 1, *, counted: int = 0) -> Decision:
        key = quota.key(client)
        if self._redis is None:
            return self._slices.hit(key, quota.limit, quota.window_seconds, cost, counted=counted)
        decision = self._host.hit(key, quota.limit, quota.window_seconds, cost, counted=counted)
        if decision.admitted:
            from_redis = await self._redis.hit(key, quota.limit, quota.window_seconds, cost, counted=counted)
            decision = self._combine(key, decision, from_redis, cost - counted)
        return decision

    def refusal(self, quota: Quota, client: str) -> Decision | None:
        """The refusal of a request, if this host has counted all that the quota allows. Else nothing is counted."""
        age, count = self._host.read(quota.key(client)) or (0.0, 0)
        if count < quota.limit:
            return None
        self._metrics.rate_limit_decided(quota.name, "refused")
        wait = max(0.0, quota.window_seconds - age)
        return Decision(False, 0, wait, wait)

    def hit_on_host(self, quota: Quota, client: str) -> Decision:
        """Count a request of a client on this host only, or refuse it."""
        decision = self._host.hit(quota.key(client), quota.limit, quota.window_seconds, ahead=0)
        self._metrics.rate_limit_decided(quota.name, "admitted" if decision.admitted else "refused")
        return decision

    async def refuse(self, request: Request, error: Exception) -> NoReturn:
        """Answer slowapi's exception, raised by a route's own limit, like every other refusal.

        Raises:
            RateLimitedError: Always.
        """
        if not isinstance(error, RateLimitExceeded):
            raise error
        self._metrics.rate_limit_decided("route", "refused")
        entry, identifiers = request.state.view_rate_limit
        reset = limiter.limiter.get_window_stats(entry, *identifiers).reset_time
        seconds = reset - time.time()
        quota, decision = Quota("route", str(entry)), Decision(False, 0, seconds, seconds)
        request.scope["state"]["rate_limit_headers"] = quota.headers(decision.remaining, decision.reset_seconds)
        raise RateLimitedError(quota.retry_seconds(decision))

    def _set_degraded(self, cause: str, degraded: bool) -> None:
        """Add or remove one cause; the metric is 1 while there is any."""
        self._slices.clear()
        if degraded:
            self._degraded.add(cause)
        else:
            self._degraded.discard(cause)
        self._metrics.rate_limit_degraded(bool(self._degraded))

    def _combine(self, key: bytes, from_host: Decision, from_redis: Decision | None, cost: int) -> Decision:
        """The decision of Redis, or that of the host where Redis has none.

        The host has already counted the request, so its counters are complete when Redis becomes
        unreachable, and still hold when Redis returns without its data.
        """
        if from_redis is None:
            return from_host
        if not from_redis.admitted:
            self._host.undo_hit(key, cost)
            return from_redis
        return min(from_host, from_redis, key=lambda decision: decision.remaining)

    def _redis_changed(self, circuit_open: bool, reason: str) -> None:
        """Set this worker's metric, and log the change once for each host: by the first worker that sees it."""
        self._set_degraded("redis", circuit_open)
        if not self._host.set_flag("redis_circuit_open", circuit_open):
            return
        if circuit_open:
            log.warning("rate_limit_storage_lost", reason=reason)
        else:
            log.info("rate_limit_storage_restored")
