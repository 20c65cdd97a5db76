"""Traces of the real server: its workers, its reload, and a collector that does not answer."""

import os
import subprocess
import sys

import httpx
import pytest

from tests.paths import ROOT
from tests.processes.load import Request, load
from tests.processes.scrape import scrape, total
from tests.processes.server import eventually, service
from tests.tracing.collector import collecting

LATE = "60000"
"""Milliseconds: spans are sent because a worker stops, or not at all."""


def test_a_reload_sends_the_spans_of_each_worker(database_url):
    """The spans of two workers name two instances, and none is lost."""
    with collecting() as collector:
        settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": LATE}
        with service(database_url, workers=2, **settings) as server:
            server.serving(workers=2)

            def spread() -> bool:
                for _ in range(20):
                    httpx.get(f"http://127.0.0.1:{server.port}/samples")
                pids = {line.partition('"pid":')[2].partition(",")[0] for line in server.output().splitlines()}
                return len(pids - {""}) == 2

            eventually(spread, seconds=20, what="both workers serve requests")
            assert [] == collector.spans
            server.reload()
            requests = server.output().count('"path":"/samples"')

            assert requests == len(collector.of_kind("server")) == len(collector.of_kind("client"))
            assert 2 == len({span.resource["service.instance.id"] for span in collector.spans})
            samples = scrape(server.port)
            assert 2 * requests == total(samples, "tracing_spans_exported_total")
            assert 0 == total(samples, "tracing_spans_dropped_total")


def test_a_collector_that_never_answers_costs_no_request(database_url):
    """All requests are served, the spans are counted as dropped, and the server stops in its time."""
    with collecting() as collector:
        collector.answers.clear()
        settings = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_BSP_MAX_QUEUE_SIZE": "50",
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "10",
            "GRACEFUL_SECONDS": "1",
        }
        with service(database_url, workers=1, **settings) as server:
            server.serving()
            with load(server.port, rate=200, request=lambda _: Request(target="/samples")) as report:
                eventually(lambda: len(report.results) >= 500, seconds=60, what="500 requests")

            assert {200} == set(report.statuses)
            assert [] == report.failures()
            assert collector.requests
            dropped = total(scrape(server.port), "tracing_spans_dropped_total", {"reason": "queue_full"})
            assert dropped >= 2 * 500 - 50 - 10
            assert 0 == server.stop(seconds=20)
            assert "worker_stopped" in server.output()
            assert "worker_timed_out" not in server.output()


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "OTEL_EXPORTER_OTLP_PROTOCOL must be http/protobuf"),
        ("OTEL_PROPAGATORS", "b3", "OTEL_PROPAGATORS must be tracecontext,baggage"),
        ("OTEL_BSP_EXPORT_TIMEOUT", "5", "OTEL_BSP_EXPORT_TIMEOUT is not supported: leave it out."),
    ],
)
def test_what_cannot_work_is_refused_at_the_start(name, value, sentence):
    """In one sentence."""
    environment = {"PATH": os.environ["PATH"], "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing"}
    environment |= {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318", name: value}
    done = subprocess.run(
        [sys.executable, "-m", "gunicorn", "--check-config"],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode != 0
    assert done.stderr.startswith(f"Error: {sentence}")
    assert 1 == len(done.stderr.splitlines())
