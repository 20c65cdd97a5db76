"""slowapi's limiter, for limits of single routes, on this service's counters."""

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from limits.strategies import MovingWindowRateLimiter
from slowapi import Limiter

from app.rate_limits.clients import client_of_request
from app.rate_limits.host_counters import HostCounters
from app.rate_limits.storage import HostStorage
from app.settings.values import parse_limits


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
        # It would log each refusal, with the client's address in the event. `request_served` has both.
        self.logger.setLevel(logging.ERROR)
        self._limits: Mapping[str, str] = {}
        self._limited: dict[int, list[Callable[..., Any]]] = {}

    def limit(self, limit_value: Any, *args: Any, **options: Any) -> Callable[..., Any]:
        """Limit a route, as slowapi documents it.

        Raises:
            ValueError: The limit is malformed. slowapi would log it, and limit nothing.
        """
        return self._remembering(super().limit(_parsed(limit_value), *args, **options))

    def shared_limit(self, limit_value: Any, *args: Any, **options: Any) -> Callable[..., Any]:
        """Limit several routes together, as slowapi documents it.

        Raises:
            ValueError: The limit is malformed.
        """
        return self._remembering(super().shared_limit(_parsed(limit_value), *args, **options))

    def _remembering(self, limit: Callable[..., Any]) -> Callable[..., Any]:
        def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
            limited: Callable[..., Any] = limit(function)
            self._limited.setdefault(id(function), []).append(limited)
            return limited

        return decorate

    def limited_forms(self, function: Callable[..., Any] | None) -> list[Callable[..., Any]]:
        """What the decorators of this limiter have made of a function. Only calls of these count, not its own."""
        return self._limited.get(id(function), [])

    def get_app_config(self, key: str, default_value: Any = None) -> Any:  # noqa: ARG002 -- slowapi's signature
        """Ignore RATELIMIT_* variables and `.env`: the service's settings are the only configuration."""
        return default_value

    def setting(self, name: str) -> Callable[[], str]:
        """The limit that the settings give for this name. It is looked up with each request that is counted."""
        return lambda: self._limits[name]

    @contextmanager
    def using(self, counters: HostCounters, limits: Mapping[str, str], *, enabled: bool) -> Iterator[None]:
        """Count in these counters until the context ends.

        Args:
            counters: The counters of this host.
            limits: The limits of the settings, by the names that `setting` takes.
            enabled: Whether requests are counted at all.
        """
        storage = HostStorage(counters=counters)
        before = self.enabled, self._storage, self._limiter, self._limits
        self.enabled, self._storage, self._limiter = enabled, storage, MovingWindowRateLimiter(storage)
        self._limits = limits
        try:
            yield
        finally:
            self.enabled, self._storage, self._limiter, self._limits = before


def _parsed(limit_value: Any) -> Any:
    """The limit itself, if it is no malformed text. A function is called with each request."""
    if isinstance(limit_value, str):
        parse_limits(limit_value)
    return limit_value


limiter = RouteLimiter()
"""For routers: `@limiter.limit("10/minute")` below the route's decorator, on a handler with a
parameter `request`, adds a limit for that route, counted on each host separately. With
`@limiter.limit(limiter.setting("export"))` the limit is the setting RATE_LIMIT_EXPORT.
Importing it opens nothing; the lifespan opens its counters."""
