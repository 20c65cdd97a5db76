"""slowapi's limiter, for limits that a route has of its own, on this service's counters."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from limits.strategies import MovingWindowRateLimiter
from slowapi import Limiter

from app.rate_limits.clients import client_of_request
from app.rate_limits.shared_memory import SharedMemory
from app.rate_limits.storage import SharedMemoryStorage


class SharedLimiter(Limiter):
    """A limiter that reads no environment, and counts where the lifespan says."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            # slowapi reads `.env` unless another file is named, and warns when that is none.
            warnings.simplefilter("ignore")
            super().__init__(
                key_func=client_of_request,
                storage_uri="lmdb://",
                strategy="moving-window",
                # By default every path would have a bucket, and /items/1 another one than /items/2.
                key_style="endpoint",
                config_filename=os.devnull,
            )

    def get_app_config(self, key: str, default_value: Any = None) -> Any:  # noqa: ARG002 -- as slowapi calls it
        """Settings are the only configuration: RATELIMIT_* and .env are not asked."""
        return default_value

    @contextmanager
    def counting_in(self, counters: SharedMemory, *, enabled: bool) -> Iterator[None]:
        """Count there for as long as the application is open."""
        storage = SharedMemoryStorage(counters=counters)
        before = self.enabled, self._storage, self._limiter
        self.enabled, self._storage, self._limiter = enabled, storage, MovingWindowRateLimiter(storage)
        try:
            yield
        finally:
            self.enabled, self._storage, self._limiter = before


limiter = SharedLimiter()
"""For routers: `@limiter.limit("10/minute")` under the route's decorator, on a handler with a
parameter `request`, counts that route besides the service's limits, on each host by itself.
It is declared here so that it can be imported, and holds nothing until the lifespan opens."""
