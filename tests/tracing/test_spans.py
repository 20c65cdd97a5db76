"""What the spans of a request hold, as a collector receives them, and what its log lines say."""

import asyncio
import os
import subprocess
import sys

import httpx
import pytest
from fastapi import FastAPI
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sqlalchemy import String, bindparam, select, text

from app.database import named
from app.dependencies import DatabaseDependency
from app.settings.tracing import Sampler
from app.tracing import PACKAGES
from tests.application import opened
from tests.log_lines import reading_lines
from tests.paths import ROOT
from tests.sample.app import create_app

pytestmark = pytest.mark.anyio

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
SAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-01"}

NAMED = named("name_teas", select(bindparam("secret", type_=String).label("tea")))
FAILING = named("list_teas", text("SELECT 'hunter2' FROM teas"))


async def test_a_request_has_a_span_below_its_callers(traced_settings, collector):
    """It has the route's template, the method and the status, and no query string."""
    async with opened(traced_settings) as client:
        await client.get("/samples?per_page=5&cursor=hunter2", headers=SAMPLED)

    (span,) = collector.of_kind("server")
    assert ("GET /samples", TRACE, PARENT, "unset") == (span.name, span.trace_id, span.parent_id, span.status)
    assert {
        "http.route": "/samples",
        "http.request.method": "GET",
        "http.response.status_code": 422,
        "url.path": "/samples",
        "url.scheme": "http",
        "server.address": "testserver",
        "server.port": 80,
        "network.protocol.version": "1.1",
    } == span.attributes
    assert [] == span.events


async def test_a_statement_is_a_span_below_the_request(traced_settings, collector):
    """It has the statement's name, and the wait for a connection as an event. It holds no value and no SQL."""
    app = create_app(traced_settings)

    @app.get("/named")
    async def run_named(database: DatabaseDependency) -> None:
        await database.run(NAMED, {"secret": "hunter2"})

    async with app.router.lifespan_context(app), client_of(app) as client:
        assert 200 == (await client.get("/named", headers=SAMPLED)).status_code

    (server,), (statement,) = collector.of_kind("server"), collector.of_kind("client")
    assert ("name_teas", TRACE, server.span_id) == (statement.name, statement.trace_id, statement.parent_id)
    assert {"db.system.name": "postgresql", "db.query.summary": "name_teas"} == statement.attributes
    ((event, attributes),) = statement.events
    assert ("connection_acquired", {"wait_seconds"}) == (event, attributes.keys())
    assert 0 <= attributes["wait_seconds"] <= statement.seconds
    assert "hunter2" not in str(collector.spans)


async def test_log_lines_have_the_ids_of_the_span(traced_settings, collector):
    """Every line inside a request has them, whether it is traced or not. Those of a probe have the caller's trace."""
    caller_does_not_trace = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
    async with opened(traced_settings) as client:
        with reading_lines() as lines:
            for headers in (SAMPLED, {}, caller_does_not_trace):
                await client.post("/samples", json={"name": "Kettle"}, headers=headers)
            await client.get("/health", headers=SAMPLED)
            logged = lines()

    events = [line for line in logged if line["event"] in {"sample_created", "request_served"}]
    called, uncalled, untraced, probe = ids = [(line["trace_id"], line.get("span_id")) for line in events[1::2]] + [
        (events[-1]["trace_id"], events[-1].get("span_id"))
    ]
    assert ids[:3] == [(line["trace_id"], line["span_id"]) for line in events[0:6:2]]
    assert [called, uncalled] == [(span.trace_id, span.span_id) for span in collector.of_kind("server")]
    assert (TRACE, TRACE, (TRACE, None)) == (called[0], untraced[0], probe)
    assert untraced[1] not in {None, PARENT}


async def test_two_traceparents_are_ignored(traced_settings, collector):
    """The trace is a new one, and the log line and the span have the same ids."""
    twice = [("traceparent", f"00-{TRACE}-{parent}-01") for parent in (PARENT, PARENT[::-1])]
    async with opened(traced_settings) as client:
        with reading_lines() as lines:
            await client.get("/samples", headers=twice)
            (line,) = [line for line in lines() if line["event"] == "request_served"]

    (span,) = collector.of_kind("server")
    assert span.trace_id not in {TRACE, None}
    assert (span.trace_id, span.span_id, None) == (line["trace_id"], line["span_id"], span.parent_id or None)


async def test_a_mounted_application_does_not_trace_an_untraced_request(traced_settings, collector):
    """A mounted FastAPI application makes no span either; otherwise it would decide for itself."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    app = create_app(traced_settings.model_copy(update={"otel_traces_sampler": Sampler.PARENTBASED_ALWAYS_ON}))
    app.mount("/mounted", FastAPI(telemetry={"tracer_provider": provider}))
    async with app.router.lifespan_context(app), client_of(app) as client:
        await client.get("/mounted/docs", headers={"traceparent": f"00-{TRACE}-{PARENT}-00"})

    assert () == exporter.get_finished_spans()
    assert [] == collector.spans


async def test_probes_are_not_traced(traced_settings, collector):
    """A probe has no span, whatever the caller's `traceparent` says."""
    async with opened(traced_settings) as client:
        for path in ("/health", "/health/ready", "/metrics"):
            await client.get(path, headers=SAMPLED)

    assert [] == collector.spans


async def test_a_failure_is_an_error_without_its_message(traced_settings, collector):
    """The span of the request names the status, that of the statement the code of the answer."""
    app = create_app(traced_settings)

    @app.get("/crash")
    async def crash() -> None:
        raise RuntimeError("hunter2")

    @app.get("/fail")
    async def fail(database: DatabaseDependency) -> None:
        await database.run(FAILING, {})

    async with app.router.lifespan_context(app), client_of(app) as client:
        statuses = [(await client.get(path)).status_code for path in ("/crash", "/fail", "/samples/999")]

    crash_span, fail_span, missing_span = collector.of_kind("server")
    assert (
        [500, 503, 404] == statuses == [s.attributes["http.response.status_code"] for s in collector.of_kind("server")]
    )
    assert ("error", "500", "/crash") == facts(crash_span)
    assert ("error", "503", "/fail") == facts(fail_span)
    assert ("unset", None, "/samples/{sample_id}") == facts(missing_span)
    assert [("list_teas", "error", "schema_outdated"), ("other", "unset", None)] == [
        (span.name, span.status, span.attributes.get("error.type")) for span in collector.of_kind("client")
    ]
    assert "hunter2" not in str(collector.spans)


async def test_an_unknown_path_has_no_route(traced_settings, collector):
    """The name of the span is the method, so that clients cannot make names."""
    async with opened(traced_settings) as client:
        await client.get("/nowhere")

    (span,) = collector.of_kind("server")
    assert ("GET", 404, False) == (
        span.name,
        span.attributes["http.response.status_code"],
        "http.route" in span.attributes,
    )


async def test_a_long_value_is_shortened(traced_settings, collector):
    """A client chooses the path, and spans wait in memory."""
    async with opened(traced_settings) as client:
        await client.get("/" + "a" * 10_000)

    assert 1024 == len(collector.of_kind("server")[0].attributes["url.path"])


async def test_a_transaction_is_one_span(traced_settings, collector):
    """Each of its statements is an event with its name and its duration."""
    app = create_app(traced_settings)

    @app.get("/two")
    async def two(database: DatabaseDependency) -> None:
        async with database.transaction() as transaction:
            await transaction.run(text("SELECT 1"), {})
            await transaction.run(text("SELECT 2"), {})

    async with app.router.lifespan_context(app), client_of(app) as client:
        await client.get("/two")

    (span,) = collector.of_kind("client")
    assert "transaction" == span.name
    assert ["connection_acquired", "statement_ran", "statement_ran"] == [name for name, _ in span.events]


async def test_a_part_of_the_requests_is_traced(traced_settings, collector):
    """The others leave no span, not even of their statements."""
    sampled = {"otel_traces_sampler": "parentbased_traceidratio", "otel_traces_sampler_arg": 0.0}
    async with opened(traced_settings.model_copy(update=sampled)) as client:
        await asyncio.gather(*(client.get("/samples") for _ in range(20)))
        await client.get("/samples", headers=SAMPLED)

    assert {TRACE} == {span.trace_id for span in collector.spans}
    assert 1 == len(collector.of_kind("server"))


async def test_the_spans_say_who_has_made_them(traced_settings, collector):
    """By OpenTelemetry's variables. Two workers are two instances, also if the host has an id."""
    given = {
        "otel_service_name": "tea",
        "otel_resource_attributes": "service.name=coffee,service.instance.id=host-1,team=a%2Cb",
        "build_version": "1.2.3",
    }
    for _ in range(2):
        async with opened(traced_settings.model_copy(update=given)) as client:
            await client.get("/samples")

    resources = [span.resource for span in collector.of_kind("server")]
    assert [("tea", "1.2.3", "a,b")] * 2 == [
        (resource["service.name"], resource["service.version"], resource["team"]) for resource in resources
    ]
    instances = {resource["service.instance.id"] for resource in resources}
    assert 2 == len(instances)
    assert all(instance.startswith("host-1/") for instance in instances)


def client_of(app):
    """A client of this application."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver")


def facts(span):
    """How a request ended."""
    return span.status, span.attributes.get("error.type"), span.attributes["http.route"]


def test_switched_off_no_package_of_tracing_is_imported():
    """The memory of a worker and its start are as without them."""
    code = f"import sys, app.main; app.main.create_app(); print({{*sys.modules}} & {{*{(*PACKAGES, 'requests')}}})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )

    assert "set()\n" == done.stdout
