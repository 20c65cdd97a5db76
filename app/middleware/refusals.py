"""The answers to requests that the server refuses before the application can see them."""

from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from app.metrics.instruments import Metrics
from app.middleware.lifecycle import Lifecycle
from app.middleware.request_log import RequestLog
from app.middleware.request_metrics import RequestMetrics
from app.middleware.response_headers import ResponseHeaders


def refusals(metrics: Metrics, resources: Sequence[str]) -> ASGIApp:
    """Return the application that answers them. Each has an id, a log line and a count, as every request has.

    Args:
        metrics: Counts them.
        resources: The paths of the resources' lists, as for `ResponseHeaders`.
    """
    return Lifecycle(
        _raise_refusal,
        log=RequestLog(metrics.worker),
        metrics=RequestMetrics(metrics),
        headers=ResponseHeaders(resources),
    )


async def _raise_refusal(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001  # an ASGI application
    await receive()
