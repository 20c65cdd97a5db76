"""Counts every request by its method, its route's template and its exact status."""

from collections.abc import Callable
from typing import Any

from prometheus_fastapi_instrumentator.metrics import Info
from starlette.requests import Request
from starlette.types import Scope

from app.metrics.instruments import Metrics
from app.state_keys import FAILURE_CODE


class RequestMetrics:
    """Counts and times requests.

    Functions that were written for prometheus-fastapi-instrumentator can be added to `instrumentations`. Each gets the
    library's `Info`, in which `response` is None, as the library allows. The library's own middleware matches the
    path against all routes again, and builds a `Response` for every `Info`.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.instrumentations: list[Callable[[Info], Any]] = []

    def begin(self) -> None:
        """A request begins."""
        self._metrics.in_progress += 1

    def end(self, scope: Scope, status: int, seconds: float) -> None:
        """A request has ended after so long, with this status. Its scope has the route that it was for."""
        self._metrics.in_progress -= 1
        route = scope.get("route")
        handler = "none" if route is None else route.path
        code = "" if status < 400 else scope["state"].get(FAILURE_CODE, "")
        self._metrics.request_answered(scope["method"], handler, status, code, seconds)
        for instrumentation in self.instrumentations:
            instrumentation(
                Info(
                    request=Request(scope),
                    response=None,
                    method=scope["method"],
                    modified_handler=handler,
                    modified_status=str(status),
                    modified_duration=seconds,
                )
            )
