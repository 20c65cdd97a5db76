"""Spans that the collector does not take are counted, and cost no request anything."""

import asyncio
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from app.tracing import export
from tests.application import opened
from tests.log_lines import reading_lines

pytestmark = pytest.mark.anyio

SOON = {"otel_bsp_schedule_delay": 100, "otel_exporter_otlp_timeout": 300}


async def counted(client):
    """The spans that were exported and dropped, by reason, without zeros."""
    found = {}
    for family in text_string_to_metric_families((await client.get("/metrics")).text):
        for sample in family.samples:
            if sample.name.startswith("tracing_spans") and sample.name.endswith("_total") and sample.value:
                found[sample.labels.get("reason", "exported")] = sample.value
    return found


async def eventually_counted(client, reason, spans):
    """Wait until this many spans were counted for this reason, and return all counts."""
    async with asyncio.timeout(20):
        while (found := await counted(client)).get(reason, 0) < spans:  # noqa: ASYNC110  # it changes by itself
            await asyncio.sleep(0.1)
    return found


async def test_exported_spans_are_counted(traced_settings, collector):
    """They are sent to /v1/traces below the endpoint, with the headers and the compression that are set."""
    given = {"otel_exporter_otlp_headers": SecretStr("x-team=a%20b"), "otel_exporter_otlp_compression": "gzip"}
    async with opened(traced_settings.model_copy(update=SOON | given)) as client:
        await client.get("/samples")
        assert {"exported": 2} == await eventually_counted(client, "exported", 2)

    path, headers = collector.requests[0]
    assert ("/v1/traces", "a b", "gzip") == (path, headers["x-team"], headers["content-encoding"])


@pytest.mark.parametrize("status", [302, 400, 429, 503])
async def test_a_collector_that_refuses(traced_settings, collector, status):
    """One warning a minute names the reason and the cause."""
    collector.status = status
    async with opened(traced_settings.model_copy(update=SOON)) as client:
        with reading_lines() as lines:
            for batch in (1, 2):
                assert 200 == (await client.get("/samples")).status_code
                await eventually_counted(client, "export_failed", 2 * batch)
            logged = lines()

    (line,) = [line for line in logged if line["event"] == "spans_dropped"]
    assert ("warning", "export_failed", 2) == (line["level"], line["reason"], line["spans"])
    assert line["cause"] == f"the collector answers {status}" + ", a redirection" * (status == 302)
    assert not [line for line in logged if line.get("logger", "").startswith("opentelemetry")]


async def test_a_long_answer_is_not_read(traced_settings, collector):
    """It is closed after 64 KiB, and the spans count as exported."""
    collector.answer_bytes = 50_000_000
    async with opened(traced_settings.model_copy(update=SOON)) as client:
        await client.get("/samples")
        assert {"exported": 2} == await eventually_counted(client, "exported", 2)

    assert collector.written_bytes < 50_000_000


async def test_a_collector_that_is_away(traced_settings):
    """Its spans are dropped after OTEL_EXPORTER_OTLP_TIMEOUT."""
    nowhere = {"otel_exporter_otlp_endpoint": "http://127.0.0.1:1"}
    async with opened(traced_settings.model_copy(update=SOON | nowhere)) as client:
        assert 200 == (await client.get("/samples")).status_code
        assert {"export_failed": 2} == await eventually_counted(client, "export_failed", 2)


async def test_a_collector_that_never_ends_its_head(traced_settings, collector):
    """OTEL_EXPORTER_OTLP_TIMEOUT is for the whole of an answer. The connection is closed then."""
    collector.trickles = True
    async with opened(traced_settings.model_copy(update=SOON)) as client:
        with reading_lines() as lines:
            started = time.monotonic()
            await client.get("/samples")
            assert {"export_failed": 2} == await eventually_counted(client, "export_failed", 2)
            assert time.monotonic() - started < 10
            (line,) = [line for line in lines() if line["event"] == "spans_dropped"]
            collector.trickles = False
            await client.get("/samples")
            await eventually_counted(client, "exported", 2)

    assert line["cause"]


async def test_the_cause_of_a_full_queue_is_the_last_failure(traced_settings, collector):
    """Spans that are dropped while the collector refuses say so, and not that there are too many."""
    collector.status = 503
    small = {"otel_bsp_max_queue_size": 4, "otel_bsp_max_export_batch_size": 4, "otel_exporter_otlp_timeout": 60_000}
    async with opened(traced_settings.model_copy(update=SOON | small)) as client:
        with reading_lines() as lines:
            await client.get("/samples")
            while len(collector.requests) < 2:  # noqa: ASYNC110  # the first was answered
                await asyncio.sleep(0.05)
            while not (logged := [line for line in lines() if line["event"] == "spans_dropped"]):
                await client.get("/samples")

    assert [("queue_full", "the collector answers 503")] == [(line["reason"], line["cause"]) for line in logged]


async def test_a_collector_that_never_answers(traced_settings, collector, monkeypatch):
    """No request waits for it. The queue is bounded, and a worker that stops waits for a bounded time."""
    monkeypatch.setattr(export, "FLUSH_SECONDS", 0.5)
    collector.answers.clear()
    small = {"otel_bsp_max_queue_size": 10, "otel_bsp_max_export_batch_size": 4, "otel_bsp_schedule_delay": 100}
    async with opened(traced_settings.model_copy(update=small)) as client:
        with reading_lines() as lines:
            for number in range(20):
                assert 200 == (await client.get("/samples")).status_code
                while number == 1 and not collector.requests:  # noqa: ASYNC110  # the first batch is on its way
                    await asyncio.sleep(0.01)
            dropped = [(line["reason"], line["cause"]) for line in lines() if line["event"] == "spans_dropped"]
        found = await counted(client)
        stopping = time.monotonic()
    assert time.monotonic() - stopping < 8  # OTEL_EXPORTER_OTLP_TIMEOUT is 10 s

    # At most one batch is being sent, and the queue is full.
    assert {"queue_full"} == found.keys()
    assert 40 - 10 - 4 <= found["queue_full"] <= 30
    assert [("queue_full", "the collector has not answered yet")] == dropped
