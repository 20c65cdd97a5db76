"""What one worker opens, in order, and closes in reverse order."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from typing import Any

import structlog
from fastapi import FastAPI

from app import connection_leases, database, logs
from app.database import Database
from app.database.traced import TracedDatabase
from app.errors import RequestRefusedError
from app.health.budget_check import checking_budget
from app.health.last_report import LastReport
from app.health.readiness import Readiness
from app.health.schema_state import Revisions
from app.jobs.idempotency_purge import purging_keys
from app.metrics.instruments import Metrics
from app.metrics.sampling import sampling
from app.middleware.refusals import refusals
from app.settings import DatabasePooler, Settings
from app.state_keys import ANSWER_REFUSED, CLIENTS_OBSERVER, HEARTBEAT, REFUSAL
from app.tracing import Tracing

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
    connections = connection_leases.worker_connections(
        budget=settings.database_connections, workers=settings.web_concurrency, slot=int(metrics.worker)
    )
    async with (
        tracing.opened() if tracing else nullcontext(),
        database.connect(
            settings.read_database_url,
            connections=connections,
            wait_seconds=settings.database_wait_seconds,
            statement_seconds=settings.database_statement_seconds,
            connection_seconds=settings.database_connection_seconds,
            through_pgbouncer=settings.database_pooler is not DatabasePooler.NONE,
            prepared_statements=settings.database_pooler is not DatabasePooler.PGBOUNCER,
            observer=metrics,
            create=partial(TracedDatabase, tracer=tracing.tracer) if tracing else Database,
        ) as app.state.database,
        app.state.rate_limits.opened(metrics.folder and metrics.folder / "rate-limits"),
        app.state.access_tokens.opened() if app.state.access_tokens else nullcontext(),
        sampling(
            metrics,
            pool=lambda: app.state.database.state,
            lines_dropped=logs.lines_dropped,
            log_backlog_bytes=logs.backlog_bytes,
        ),
        checking_budget(app.state.database, settings, metrics, LastReport(metrics.folder, "budget")),
        purging_keys(app.state.database, metrics, workers=settings.instances * settings.web_concurrency),
        Readiness(
            app.state.database,
            Revisions(),
            observer=metrics,
            last_report=LastReport(metrics.folder, "readiness"),
            tokens=app.state.access_tokens,
        ).opened() as app.state.readiness,
    ):
        log.info(
            "worker_started",
            slot=metrics.worker,
            database_connections=app.state.database.state.size,
            version=settings.build_version,
            revision=settings.build_revision,
        )
        yield {
            ANSWER_REFUSED: refusals(metrics),
            REFUSAL: RequestRefusedError,
            HEARTBEAT: metrics.heartbeat,
            CLIENTS_OBSERVER: metrics,
        }
    log.info("worker_stopped", slot=metrics.worker)
