"""Counts each request against the quota of its client, before anything else is done for it."""

from collections.abc import Awaitable

from starlette.types import Scope

from app.database import current_client
from app.errors import RateLimitedError
from app.health import paths
from app.middleware.hosts import at_port
from app.rate_limits.clients import client_of_scope
from app.rate_limits.limits import RateLimits
from app.rate_limits.quotas import Quota
from app.rate_limits.window import Decision


class RateLimit:
    """Counts every request against its client, and refuses it past the limit, before its body is read.

    Only middleware that answers nothing by itself is outside of this one. Reading a probe is not counted.

    Not slowapi's middleware: it lets every route of an included router pass (laurentS/slowapi#281).
    Not slowapi's decorators: they count only requests that reach a handler, so refused bodies
    and unknown paths would not be limited.
    """

    def __init__(self, limits: RateLimits, ops_port: int | None = None) -> None:
        self._limits = limits
        self._ops_port = ops_port

    def count(self, scope: Scope) -> Awaitable[None] | None:
        """Count the request. `scope["state"]["rate_limit_headers"]` has the headers for its response.

        Returns:
            What to await, if Redis is asked.

        Raises:
            RateLimitedError: The client has used up its quota.
        """
        if scope["path"] in paths.PROBES and self._is_probe(scope):
            return None
        # The database shares its connections between the clients, also if their requests are not limited.
        client = client_of_scope(scope)
        current_client.set(client)
        if not self._limits.enabled:
            return None
        quota = self._limits.quota(scope["method"])
        headers = self._limits.admit_from_slice(quota, client)
        if headers is not None:
            scope["state"]["rate_limit_headers"] = headers
            return None
        decision = self._limits.hit_at_once(quota, client)
        if decision is None:
            return self._wait(scope, quota, client)
        self._apply(scope, quota, decision)
        return None

    async def _wait(self, scope: Scope, quota: Quota, client: str) -> None:
        self._apply(scope, quota, await self._limits.hit(quota, client))

    @staticmethod
    def _apply(scope: Scope, quota: Quota, decision: Decision) -> None:
        scope["state"]["rate_limit_headers"] = quota.headers(decision.remaining, decision.reset_seconds)
        if not decision.admitted:
            raise RateLimitedError(quota.retry_seconds(decision))

    def _is_probe(self, scope: Scope) -> bool:
        """Whether the request for the path of a probe reads it, at a port where it is served."""
        if scope["method"] not in {"GET", "HEAD"}:
            return False
        return self._ops_port is None or scope["path"] == paths.LIVE or at_port(scope, self._ops_port)
