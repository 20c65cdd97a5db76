import asyncio
import os
import signal
import time

import pytest

from tests.processes.load import Report, Request, load, send_load
from tests.processes.scrape import scrape, total
from tests.processes.server import eventually, service
from tests.processes.watch import counters_never_fall, counting_backends
from tests.redis_server import redis_server

JSON = (("Content-Type", "application/json"),)

CREATION = Request(method="POST", target="/samples", headers=JSON, body=b'{"name":"served"}')


def send(port: int, count: int, *, connections: int, request: Request, rate: float = 1_000) -> Report:
    """Send `count` requests over kept connections, and wait for all answers."""
    return asyncio.run(send_load(port, rate=rate, count=count, kept=connections, request=lambda _: request))


def mixed(number: int) -> Request:
    """Reading and writing requests."""
    if number % 4 == 0:
        return CREATION
    return Request(target="/samples?per_page=5" if number % 4 == 1 else "/samples/1")


def served(port: int) -> float:
    """The number of requests that the counters show, without scrapes."""
    return total(scrape(port), "http_requests_total") - total(
        scrape(port), "http_requests_total", {"handler": "/metrics"}
    )


def test_a_scrape_shows_the_counters_of_all_workers(database_url):
    """After 300 requests each of three workers shows 300, while the other two are stopped."""
    with service(database_url, workers=3) as server:
        server.serving(workers=3)
        report = send(server.port, 300, connections=30, request=Request(target="/samples"), rate=600)
        assert {200: 300} == report.statuses
        workers = server.workers()
        for asked in workers:
            others = [pid for pid in workers if pid != asked]
            for pid in others:
                os.kill(pid, signal.SIGSTOP)
            # A request is counted once its answer has been sent.
            time.sleep(0.1)
            samples = scrape(server.port)
            for pid in others:
                os.kill(pid, signal.SIGCONT)
            assert 300 == total(
                samples, "http_requests_total", {"handler": "/samples", "method": "GET", "status": "200"}
            )
            assert 300 == total(samples, "http_request_duration_seconds_count", {"handler": "/samples"})


def test_counters_never_decrease(database_url, tmp_path):
    """During 2 kills and 6 reloads under load counters only grow, no count is lost, and the files stay few."""
    folder = tmp_path / "metrics"
    settings = {"METRICS_DIRECTORY": str(folder), "DATABASE_CONNECTIONS": "8"}
    with service(database_url, workers=3, **settings) as server:
        server.serving(workers=3)
        with load(server.port, rate=100, request=mixed) as report, counters_never_fall(server.port) as scrapes:
            for number in range(6):
                if number in {1, 4}:
                    server.kill_worker()
                server.reload()
        time.sleep(0.2)
        counted = served(server.port)

        answered = sum(report.statuses.values())
        assert len(scrapes) > 20
        assert answered > 500
        # A worker may be killed between an answer and its counting, or its counting and the answer.
        assert answered - 20 <= counted <= len(report.results) + 20
        files = list(folder.rglob("*"))
        slots = {file.stem.rsplit("_", 1)[1] for file in folder.glob("*.db")}
        assert slots <= {"0", "1", "2", "3"}
        assert len(files) <= 4 * len(slots) + 8


def assert_refusals(report: Report) -> None:
    """Each 429 has a `Retry-After` in whole seconds."""
    refused = [e.answer for e in report.results if e.answer and e.answer.status == 429]
    assert all(1 <= int(answer.headers["retry-after"]) <= 60 for answer in refused)
    assert all(answer.headers["content-type"] == "application/problem+json" for answer in refused)


def test_a_limit_is_exact_over_all_workers(database_url):
    """A limit of 100 a minute admits 100 of 400 requests over 40 connections to 4 workers."""
    with service(database_url, workers=4, RATE_LIMIT_READ="100/minute") as server:
        server.serving(workers=4)
        assert {201: 1} == send(server.port, 1, connections=1, request=CREATION).statuses
        report = send(server.port, 400, connections=40, request=Request(target="/samples/1"))
        assert {200: 100, 429: 300} == report.statuses
        assert_refusals(report)
        time.sleep(0.1)
        samples = scrape(server.port)

    labels = {"method": "GET", "handler": "/samples/{sample_id}"}
    assert 100 == total(samples, "http_requests_total", labels | {"status": "200"})
    assert 300 == total(samples, "http_requests_total", labels | {"status": "429"})
    assert 300 == total(samples, "rate_limit_decisions_total", {"bucket": "read", "outcome": "refused"})


async def send_to_both(ports: list[int], count: int) -> list[Report]:
    """Send `count` reading requests to each, at the same time."""
    request = Request(target="/samples/1")
    return await asyncio.gather(
        *(send_load(port, rate=500, count=count, kept=20, request=lambda _: request) for port in ports)
    )


@pytest.mark.needs("redis-server")
def test_a_limit_is_exact_over_two_instances(database_url, tmp_path):
    """Two instances with two workers each and one Redis together admit 100 of 400 requests."""
    with redis_server(tmp_path) as redis:
        settings = {"RATE_LIMIT_READ": "100/minute", "RATE_LIMIT_STORAGE_URI": redis.uri}
        with service(database_url, workers=2, **settings) as one, service(database_url, workers=2, **settings) as two:
            one.serving(workers=2)
            two.serving(workers=2)
            assert {201: 1} == send(one.port, 1, connections=1, request=CREATION).statuses
            reports = asyncio.run(send_to_both([one.port, two.port], 200))

    statuses = sum((report.statuses for report in reports), reports[0].statuses - reports[0].statuses)
    assert {200: 100, 429: 300} == statuses
    for report in reports:
        assert report.statuses[200] > 0
        assert_refusals(report)


@pytest.mark.needs("redis-server")
def test_a_frozen_redis_fails_no_request(database_url, tmp_path):
    """While Redis does not answer, 99 % of requests take less than 100 ms longer, and a metric shows it."""
    with redis_server(tmp_path) as redis:
        settings = {"RATE_LIMIT_STORAGE_URI": redis.uri, "RATE_LIMIT_READ": "100000/minute"}
        with service(database_url, workers=2, **settings, RATE_LIMIT_WRITE="100000/minute") as server:
            server.serving(workers=2)
            with load(server.port, rate=150, kept=10, fresh=5, request=mixed) as before:
                time.sleep(2)
            redis.freeze()
            with load(server.port, rate=150, kept=10, fresh=5, request=mixed) as frozen:
                time.sleep(4)
            degraded = total(scrape(server.port), "rate_limit_storage_degraded")
            redis.thaw()
            eventually(
                lambda: total(scrape(server.port), "rate_limit_storage_degraded") == 0,
                seconds=5,
                what="Redis in use again",
            )
            lines = server.output()

    assert [] == before.failures()
    assert [] == frozen.failures()
    assert set(frozen.statuses) <= {200, 201}
    assert len(frozen.results) > 400
    assert frozen.seconds(0.99) - before.seconds(0.5) < 0.1
    assert 1 == degraded
    assert 1 == lines.count('"rate_limit_storage_lost"')


def test_reloads_hold_the_budget(database_url):
    """Four reloads under 300 requests a second lose no request and open no connection beyond the budget."""
    settings = {"DATABASE_CONNECTIONS": "6"}
    with service(database_url, workers=2, **settings) as server, counting_backends(database_url) as backends:
        server.serving(workers=2)
        assert {201: 1} == send(server.port, 1, connections=1, request=CREATION).statuses
        with load(server.port, rate=300, request=mixed) as report:
            for _ in range(4):
                server.reload()
                time.sleep(0.2)

    assert [] == report.failures()
    assert set(report.statuses) == {200, 201}
    assert len(report.results) > 500
    assert 3 <= max(backends) <= 6


def test_the_smallest_budget_is_enough_for_a_reload(database_url):
    """It has one connection for each worker, and one for the worker that replaces another."""
    settings = {"DATABASE_CONNECTIONS": "3"}
    with service(database_url, workers=2, **settings) as server, counting_backends(database_url) as backends:
        server.serving(workers=2)
        with load(server.port, rate=50, request=lambda _: CREATION) as report:
            server.reload()

    assert [] == report.failures()
    assert max(backends) <= 3
