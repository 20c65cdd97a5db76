"""Measures each middleware alone."""

import os
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi._body_limit import AppBodyLimitMiddleware
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from fastapi.telemetry._asgi import ExceptionTelemetryMiddleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app import logs
from app.metrics.instruments import Metrics
from app.middleware.hosts import HostCheck
from app.middleware.lifecycle import Lifecycle
from app.middleware.rate_limit import RateLimit
from app.middleware.request_log import RequestLog
from app.middleware.request_metrics import RequestMetrics
from app.middleware.response_headers import ResponseHeaders
from app.middleware.target import check_target
from app.rate_limits import RateLimits
from app.settings import Settings
from benchmarks.harness.timing import Times, in_turns_async
from benchmarks.steps.routes import receive, scope, send

CALLS = 500


class _NoOperation(BaseHTTPMiddleware):
    """Does nothing, in the form that tutorials use."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)


async def measure(url: str, rounds: int) -> Times:
    """Measure each layer around the same application, and subtract the time of the application alone."""
    settings = Settings.load(database_url=url, rate_limit_read="1000000000/minute", _env_file=None)
    logs.configure("info", "json")
    null_device = os.open(os.devnull, os.O_WRONLY)
    logs.output.descriptor = null_device
    metrics = Metrics()
    limits = RateLimits(settings, metrics)
    with tempfile.TemporaryDirectory() as folder:
        async with limits.opened(Path(folder)):
            layers: dict[str, ASGIApp] = {
                "a `BaseHTTPMiddleware` that does nothing": _NoOperation(answer),
                "Starlette's ServerErrorMiddleware": ServerErrorMiddleware(answer),
                "FastAPI's telemetry": ExceptionTelemetryMiddleware(answer),
                "FastAPI's body limit": AppBodyLimitMiddleware(answer, max_body_size=None),
                "Starlette's ExceptionMiddleware": ExceptionMiddleware(answer, handlers={}),
                "FastAPI's exit stack": AsyncExitStackMiddleware(answer),
                "here: the lifecycle without rate limit": _lifecycle(settings, metrics, None),
                "here: the lifecycle": _lifecycle(settings, metrics, RateLimit(limits)),
            }
            bare = _requesting(answer)
            times = await in_turns_async(
                {name: _requesting(layer) for name, layer in layers.items()} | {"nothing": bare},
                calls=CALLS,
                rounds=rounds,
            )
    logs.flush()
    os.close(null_device)
    nothing = times.pop("nothing")
    return {name: [whole - part for whole, part in zip(values, nothing, strict=True)] for name, values in times.items()}


def _lifecycle(settings: Settings, metrics: Metrics, rate_limit: RateLimit | None) -> ASGIApp:
    return Lifecycle(
        answer,
        log=RequestLog(),
        metrics=RequestMetrics(metrics),
        headers=ResponseHeaders(()),
        rate_limit=rate_limit,
        checks=[check_target, HostCheck(settings.allowed_hosts).check],
    )


def _requesting(layer: ASGIApp) -> Callable[[], Awaitable[None]]:
    async def send_request() -> None:
        request = scope("/items/5")
        request["state"]["request_id"] = "a"
        await layer(request, receive, send)

    return send_request


async def answer(_scope: Scope, _receive: Receive, send: Send) -> None:
    """An application that answers at once."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"{}"})
