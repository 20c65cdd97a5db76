import asyncio
from contextlib import AsyncExitStack

import pytest

from app.jobs import idempotency_purge
from app.jobs.idempotency_purge import purging_keys
from app.metrics.instruments import Metrics
from tests.databases import PoolEvents, connected
from tests.sample.app import create_app

EXPIRED = """
INSERT INTO idempotency_keys (key, fingerprint, answer, created_at)
SELECT 'key ' || number, 'f', '{}', now() - interval '25 hours' FROM generate_series(1, 30) AS number
"""

STATEMENT_SECONDS = 100.0
"""Of which a purge has a fifth. On a busy machine it may take longer than the 0.2 s that tests have otherwise."""


@pytest.fixture
def metrics(monkeypatch):
    """Metrics of a purge that runs every 10 ms."""
    monkeypatch.setattr(idempotency_purge, "SECONDS", 0.01)
    return Metrics()


def purged(metrics: Metrics) -> float:
    """How many keys the metrics show as deleted."""
    return metrics.registry.get_sample_value("idempotency_keys_purged_total") or 0


async def until_purged(metrics: Metrics, keys: int) -> None:
    """Wait until the metrics show this many keys."""
    async with asyncio.timeout(20):
        while purged(metrics) < keys:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_expired_keys_are_deleted_in_the_background(database_url, sql, metrics, monkeypatch):
    """Several runs delete all expired keys, and the metrics show how many and when."""
    monkeypatch.setattr(idempotency_purge, "MAX_KEYS", 7)
    await sql.execute(EXPIRED)

    async with (
        connected(database_url, statement_seconds=STATEMENT_SECONDS) as database,
        purging_keys(database, metrics, workers=1),
    ):
        await until_purged(metrics, 30)

    assert 0 == await sql.fetchval("SELECT count(*) FROM idempotency_keys")
    assert 30 == purged(metrics)
    assert metrics.registry.get_sample_value("idempotency_purge_last_run_timestamp_seconds") > 1_000_000_000


async def test_the_purge_leaves_a_busy_database_alone(database_url, sql, metrics):
    """While all connections are in use it does not even ask for one; then it runs."""
    await sql.execute(EXPIRED)
    events = PoolEvents()
    limits = {"connections": 1, "wait_seconds": 0.01, "statement_seconds": STATEMENT_SECONDS, "observer": events}

    async with connected(database_url, **limits) as database, AsyncExitStack() as busy:
        await busy.enter_async_context(database.transaction())
        async with purging_keys(database, metrics, workers=1):
            await asyncio.sleep(0.5)
            assert {} == events.shed
            assert 0 == purged(metrics)
            await busy.aclose()
            await until_purged(metrics, 30)


async def test_the_lifespan_purges(settings, sql, metrics):
    """The application deletes expired keys while it runs."""
    await sql.execute(EXPIRED)
    app = create_app(settings.model_copy(update={"web_concurrency": 1}))
    async with app.router.lifespan_context(app):
        await until_purged(app.state.metrics, 30)
