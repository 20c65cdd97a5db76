"""slowapi's limiter, for limits of single routes, on this service's counters."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from limits.strategies import MovingWindowRateLimiter
from slowapi import Limiter

from app.rate_limits.clients import client_of_request
from app.rate_limits.host_counters import HostCounters
from app.rate_limits.storage import HostStorage


class RouteLimiter(Limiter):
    """A limiter that reads no environment and uses the counters that the lifespan opens."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            # slowapi reads `.env` unless another file is named, and warns when that file does not exist.
            warnings.simplefilter("ignore")
            super().__init__(
                key_func=client_of_request,
                storage_uri="host://",
                strategy="moving-window",
                # The default key style counts each path separately: /items/1 and /items/2 would not share a limit.
                key_style="endpoint",
                config_filename=os.devnull,
            )

    def get_app_config(self, key: str, default_value: Any = None) -> Any:  # noqa: ARG002 -- slowapi's signature
        """Ignore RATELIMIT_* variables and `.env`: the service's settings are the only configuration."""
        return default_value

    @contextmanager
    def using(self, counters: HostCounters, *, enabled: bool) -> Iterator[None]:
        """Count in these counters until the context ends."""
        storage = HostStorage(counters=counters)
        before = self.enabled, self._storage, self._limiter
        self.enabled, self._storage, self._limiter = enabled, storage, MovingWindowRateLimiter(storage)
        try:
            yield
        finally:
            self.enabled, self._storage, self._limiter = before


limiter = RouteLimiter()
"""For routers: `@limiter.limit("10/minute")` below the route's decorator, on a handler with a
parameter `request`, adds a limit for that route, counted on each host separately.
Importing it opens nothing; the lifespan opens its counters."""
