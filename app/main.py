"""Builds the application: routes, middleware and error responses. Opens nothing."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.telemetry import TelemetryConfig
from slowapi.errors import RateLimitExceeded
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from app import TITLE, __version__
from app.auth.access_tokens import AccessTokens
from app.errors import RequestError
from app.health import paths
from app.health.last_report import LastReport
from app.http.application import Application
from app.http.openapi import TAGS
from app.http.streams import Streams
from app.http.unmatched import method_not_allowed, not_found
from app.lifespan import lifespan
from app.metrics.exposition import Exposition
from app.metrics.instruments import Metrics
from app.middleware import problems
from app.middleware.authentication import OPEN_PATHS, Authentication
from app.middleware.cors import CrossOrigin, Preflights
from app.middleware.forwarded import Forwarded
from app.middleware.hosts import HostCheck, OpsPort
from app.middleware.lifecycle import Lifecycle
from app.middleware.rate_limit import RateLimit
from app.middleware.request_log import RequestLog
from app.middleware.request_metrics import RequestMetrics
from app.middleware.response_headers import ResponseHeaders
from app.middleware.root_path import RootPath
from app.middleware.target import check_target
from app.rate_limits import RateLimits, limiter
from app.routers import docs, item, system
from app.settings import Settings
from app.tracing import Tracing, create_tracing

RESOURCES: Sequence[APIRouter] = (item.router,)
"""The routers of this service's own resources. The index at `/` links to the prefix of each."""


def create_app(settings: Settings | None = None, *, resources: Sequence[APIRouter] = RESOURCES) -> FastAPI:
    """Return the application of one worker.

    Args:
        settings: Read from the environment if it is None.
        resources: The routers besides those of the platform.

    Raises:
        StartupError: A setting is missing, malformed or contradictory.
    """
    settings = settings or Settings.load()
    metrics = Metrics(version=settings.build_version or __version__, revision=settings.build_revision or "")
    rate_limits = RateLimits(settings, metrics)
    access_tokens = _access_tokens(settings, metrics)
    tracing = create_tracing(settings, metrics, untraced=paths.PROBES)
    app = Application(
        title=TITLE,
        version=__version__,
        description="Create, read, search, change and delete items.",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        telemetry=_telemetry(tracing),
        is_untraced=tracing.is_untraced if tracing else None,
        openapi_tags=TAGS,
        generate_unique_id_function=lambda route: route.name,
        max_body_bytes=settings.max_body_bytes,
        open_paths=OPEN_PATHS if access_tokens else None,
        middleware=_middleware(settings, metrics, rate_limits, access_tokens, [router.prefix for router in resources]),
        exception_handlers={
            404: not_found,
            405: method_not_allowed,
            HTTPException: problems.handle,
            RequestError: problems.handle,
            RequestValidationError: problems.handle,
            RateLimitExceeded: rate_limits.refuse,
        },
    )
    for router in (*resources, system.router, docs.router):
        app.include_router(router)
    app.state.settings = settings
    app.state.resources = [router.prefix for router in resources]
    app.state.metrics = metrics
    app.state.streams = Streams()
    app.state.exposition = Exposition(metrics)
    app.state.rate_limits = rate_limits
    app.state.access_tokens = access_tokens
    app.state.tracing = tracing
    app.state.limiter = limiter  # slowapi's decorators look for it here
    return app


def _telemetry(tracing: Tracing | None) -> TelemetryConfig:
    """What FastAPI observes itself: spans of requests at most. Logs and metrics of this service are in `middleware`."""
    # FastAPI's own configuration would read the environment.
    none = TelemetryConfig(tracing=False, metrics=False, logs=False, operation_spans=False, auto_configure=False)
    if tracing is None:
        return none
    return {**none, "tracing": True, "tracer_provider": tracing.provider}


def _access_tokens(settings: Settings, metrics: Metrics) -> AccessTokens | None:
    if settings.auth_issuer is None or settings.auth_audience is None:
        return None
    # Imported only here: these libraries take several megabytes in each worker.
    from app.auth.authenticator import Authenticator  # noqa: PLC0415

    return Authenticator(
        issuer=settings.auth_issuer,
        audience=settings.auth_audience,
        jwks_url=settings.auth_jwks_url,
        observer=metrics,
        shared_folder=metrics.folder,
        keys_report=LastReport(metrics.folder, "auth-keys"),
        fetch_report=LastReport(metrics.folder, "auth-keys-fetch"),
    )


def _middleware(
    settings: Settings,
    metrics: Metrics,
    rate_limits: RateLimits,
    access_tokens: AccessTokens | None,
    resources: Sequence[str],
) -> list[Middleware]:
    """Return the middleware, outermost first. What is refused outside of the rate limit is counted by it as well."""
    cors, preflights = [], []
    if settings.cors_allow_origins:
        policy: dict[str, Any] = {"origins": settings.cors_allow_origins, "headers": settings.cors_allow_headers}
        cors, preflights = [Middleware(CrossOrigin, **policy)], [Middleware(Preflights, **policy)]
    authentication = None
    if access_tokens:
        authentication = partial(
            Authentication,
            access_tokens=access_tokens,
            limits=rate_limits,
            open_paths=OPEN_PATHS,
            answers_preflights=bool(preflights),
        )
    checks = [check_target, HostCheck(settings.allowed_hosts).check]
    if settings.ops_port:
        checks.append(OpsPort(settings.ops_port).check)
    root_path = [Middleware(RootPath, prefix=settings.root_path)] if settings.root_path else []
    lifecycle = Middleware(
        Lifecycle,
        log=RequestLog(metrics.worker),
        metrics=RequestMetrics(metrics),
        headers=ResponseHeaders(resources),
        forwarded=Forwarded(settings.forwarded_allow_ips, metrics),
        authentication=authentication,
        rate_limit=RateLimit(rate_limits, settings.ops_port),
        checks=checks,
    )
    return [*cors, lifecycle, *preflights, *root_path]
