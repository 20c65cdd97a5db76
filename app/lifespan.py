"""What one worker opens, in order, and closes in reverse order."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from functools import partial
from typing import Any

import structlog
from fastapi import FastAPI

from app import connection_leases, database, logs
from app.database import Database, replicas
from app.database.traced import TracedDatabase
from app.database_url import DatabaseUrl
from app.errors import RequestRefusedError
from app.health.budget_check import checking_budget
from app.health.last_report import LastReport
from app.health.readiness import Readiness
from app.health.replica_check import checking_replicas
from app.health.schema_state import Revisions
from app.http.etags import newest_named
from app.jobs.idempotency_purge import purging_keys
from app.metrics.instruments import Metrics
from app.metrics.sampling import sampling
from app.middleware.refusals import refusals
from app.settings import DatabasePooler, Settings
from app.state_keys import ANSWER_REFUSED, CLIENTS_OBSERVER, HEARTBEAT, REFUSAL
from app.tracing import Tracing

_ALONE = (
    "Its limits and metrics are its own. Start the service by gunicorn with its gunicorn.conf.py. If it is started so, "
    "the event metrics_directory_unusable or metrics_files_unusable says why."
)

log = structlog.get_logger(__name__)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    """Open the parts of one worker in the order they depend on each other.

    None of them requires the database: without it a worker starts and is not ready.
    """
    settings: Settings = app.state.settings
    metrics: Metrics = app.state.metrics
    tracing: Tracing | None = app.state.tracing
    logs.configure(settings.log_level, settings.log_format)
    logs.capture_loop_failures(asyncio.get_running_loop())
    revisions = Revisions()

    def connect(read_url: Callable[[], DatabaseUrl], server: int = 0) -> AbstractAsyncContextManager[Database]:
        connections = connection_leases.worker_connections(
            budget=settings.database_connections,
            workers=settings.web_concurrency,
            slot=int(metrics.worker),
            server=server,
        )
        return database.connect(
            read_url,
            connections=connections,
            wait_seconds=settings.database_wait_seconds,
            statement_seconds=settings.database_statement_seconds,
            connection_seconds=settings.database_connection_seconds,
            through_pgbouncer=settings.database_pooler is not DatabasePooler.NONE,
            prepared_statements=settings.database_pooler is not DatabasePooler.PGBOUNCER,
            observer=metrics,
            create=partial(TracedDatabase, tracer=tracing.tracer, may_be_traced=tracing.may_be_traced)
            if tracing
            else Database,
        )

    async with (
        tracing.opened() if tracing else nullcontext(),
        connect(settings.read_database_url) as app.state.database,
        replicas.opened(
            connect,
            settings.read_database_replica_url,
            app.state.database,
            lag_seconds=settings.database_replica_lag_seconds,
            observer=metrics,
            named_versions=newest_named,
        ) as app.state.replicas,
        checking_replicas(app.state.replicas, revisions, metrics.folder),
        app.state.rate_limits.opened(metrics.folder and metrics.folder / "rate-limits"),
        app.state.access_tokens.opened() if app.state.access_tokens else nullcontext(),
        sampling(
            metrics,
            pool=lambda: app.state.database.state,
            replica_pools=lambda: app.state.replicas.pools if app.state.replicas else {},
            lines_dropped=logs.lines_dropped,
            log_backlog_bytes=logs.backlog_bytes,
        ),
        checking_budget(app.state.database, settings, metrics, LastReport(metrics.folder, "budget")),
        purging_keys(app.state.database, metrics, workers=settings.instances * settings.web_concurrency),
        Readiness(
            app.state.database,
            revisions,
            observer=metrics,
            last_report=LastReport(metrics.folder, "readiness"),
            tokens=app.state.access_tokens,
            replicas=app.state.replicas,
        ).opened() as app.state.readiness,
    ):
        log.info(
            "worker_started",
            slot=metrics.worker,
            database_connections=app.state.database.state.size,
            version=settings.build_version,
            revision=settings.build_revision,
        )
        if metrics.folder is None:
            log.warning("worker_counts_alone", advice=_ALONE)
        yield {
            ANSWER_REFUSED: refusals(metrics, app.state.resources),
            REFUSAL: RequestRefusedError,
            HEARTBEAT: metrics.heartbeat,
            CLIENTS_OBSERVER: metrics,
        }
    log.info("worker_stopped", slot=metrics.worker)
