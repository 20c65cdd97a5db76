"""The lifecycle of a request around an application of a test."""

from typing import Any

from starlette.types import ASGIApp

from app.metrics.instruments import Metrics
from app.middleware.lifecycle import Lifecycle
from app.middleware.request_log import RequestLog
from app.middleware.request_metrics import RequestMetrics
from app.middleware.response_headers import ResponseHeaders


def lifecycle(app: ASGIApp, /, **parts: Any) -> Lifecycle:
    """The application with a log, metrics and headers, unless the test has its own, and with the other parts given."""
    needed: dict[str, Any] = {"log": RequestLog(), "metrics": RequestMetrics(Metrics()), "headers": ResponseHeaders(())}
    return Lifecycle(app, **needed | parts)
