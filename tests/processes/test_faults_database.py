import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial

import asyncpg
import pytest

from app import NAME
from tests.cluster import as_role, execute, processes_stopped, slow_down_creations
from tests.processes.history import History, create
from tests.processes.load import Report, Request, RequestResult, load, send_load
from tests.processes.scrape import fetch, scrape, total
from tests.processes.server import Server, eventually, service
from tests.processes.watch import counting_backends, polling, print_figures
from tests.proxy import Call, Proxy, proxy_beside


def probed(port: int) -> tuple[int, float]:
    """The status of /health, and the time it took."""
    started = time.monotonic()
    return fetch(port, "/health")[0], time.monotonic() - started


def after(report: Report, moment: float) -> list[RequestResult]:
    """The requests that were sent from this moment on."""
    return [result for result in report.results if result.started >= moment]


def succeeded(result: RequestResult) -> bool:
    """Whether the answer is a 2xx."""
    return result.answer is not None and result.answer.status < 300


def counted(report: Report) -> dict[str, int]:
    """The number of answers with each status."""
    return {f"answers_{status}": count for status, count in sorted(report.statuses.items())}


def assert_recovered(server: Server, report: Report, restored: float, *, within: float) -> None:
    """Requests succeed again within this time, none fails after it, and the pool has all connections again."""
    failed_last = max((e.started for e in report.results if not succeeded(e)), default=restored)
    slowest = max(e.seconds for e in report.results)
    print_figures(
        slowest_answer_seconds=slowest, recovered_after_seconds=max(0.0, failed_last - restored), **counted(report)
    )
    assert min(e.started for e in after(report, restored) if succeeded(e)) < restored + within
    late = after(report, restored + within)
    assert len(late) > 20
    assert all(map(succeeded, late)), [e.answer for e in late if not succeeded(e)][:3]
    eventually(lambda: total(scrape(server.port), "database_pool_in_use") == 0, seconds=3, what="all connections free")


def assert_refused_in_time(report: Report, *, within: float) -> None:
    """Every request was answered within this time, and each 503 has a `Retry-After`."""
    assert {None} == {result.failure for result in report.results}, report
    assert set(report.statuses) <= {200, 201, 503, 504}
    for result in report.results:
        assert result.answer
        assert result.seconds < within, result
        if result.answer.status == 503:
            assert result.answer.headers["retry-after"].isdigit()


def assert_all_stored(history: History, *reports: Report, at_least: int) -> None:
    """Each acknowledged write is in the database, and there are at least this many."""
    acknowledged = history.check(*reports)["acknowledged"]
    print_figures(acknowledged=acknowledged)
    assert acknowledged >= at_least


def test_the_service_recovers_from_a_restart_of_the_database(own_cluster):
    """While the database is down for 4 s, requests are 503 within 2 s and /health is 200. It recovers within 3 s."""
    history = History(own_cluster.url)
    with service(own_cluster.url, workers=2) as server:
        server.serving(workers=2)
        workers = server.workers()
        with (
            load(server.port, rate=100, request=history.request) as report,
            polling(lambda: probed(server.port)) as probes,
        ):
            time.sleep(1)
            own_cluster.stop("fast")
            stopped = time.monotonic()
            time.sleep(4)
            assert 503 == fetch(server.port, "/health/ready")[0]
            own_cluster.start()
            restored = time.monotonic()
            time.sleep(5)
        assert_recovered(server, report, restored, within=3)
        assert workers == server.workers()

    assert_refused_in_time(report, within=2)
    assert 503 in {e.answer.status for e in after(report, stopped) if e.answer}
    assert {200} == {status for status, _ in probes}
    assert_all_stored(history, report, at_least=200)


@contextmanager
def proxy_drops_everything(proxy: Proxy, call: Call) -> Iterator[None]:
    """The proxy forwards nothing."""
    call(proxy.freeze)
    yield
    call(proxy.thaw)


@pytest.mark.parametrize("how", ["stopped", "dropped"])
def test_a_frozen_database_blocks_no_request_for_long(own_cluster, how):
    """Each request is answered within the statement timeout plus 2 s. The pool recovers within 4 s."""
    history = History(own_cluster.url)
    with ExitStack() as stack:
        url = own_cluster.url
        frozen: Callable[[], AbstractContextManager[None]] = partial(processes_stopped, own_cluster)
        if how == "dropped":
            proxy, call = stack.enter_context(proxy_beside(own_cluster.url))
            url, frozen = proxy.url, partial(proxy_drops_everything, proxy, call)
        server = stack.enter_context(service(url, workers=2, DATABASE_STATEMENT_SECONDS="1"))
        server.serving(workers=2)
        workers = server.workers()
        with (
            load(server.port, rate=100, kept=40, request=history.request) as report,
            polling(lambda: probed(server.port)) as probes,
        ):
            time.sleep(1)
            with frozen():
                time.sleep(5)
            restored = time.monotonic()
            time.sleep(5)
        assert_recovered(server, report, restored, within=4)
        assert workers == server.workers()
        assert_refused_in_time(report, within=1 + 2)
        assert {503, 504} & set(report.statuses)
        assert {200} == {status for status, _ in probes}
        assert_all_stored(history, report, at_least=200)


def test_terminated_idle_connections_fail_no_request(own_cluster):
    """All backends are terminated between requests."""
    history = History(own_cluster.url)
    report = Report()

    def create_100() -> None:
        sent = len(report.results)
        asyncio.run(
            send_load(server.port, rate=400, count=100, request=lambda n: history.creation(sent + n), report=report)
        )
        assert {201: sent + 100} == report.statuses

    with service(own_cluster.url, workers=2) as server:
        server.serving(workers=2)
        for _ in range(3):
            create_100()
            execute(
                own_cluster.url,
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{NAME}'",
            )
            time.sleep(0.3)
        create_100()
    assert_all_stored(history, report, at_least=400)


def test_a_worker_becomes_ready_when_the_server_has_a_free_connection(own_cluster):
    """While other clients hold `max_connections`, the worker lives and is not ready."""

    async def occupy() -> list[asyncpg.Connection]:
        connections = []
        try:
            while True:
                connections.append(await asyncpg.connect(as_role(own_cluster.url, "items_app")))
        except asyncpg.TooManyConnectionsError:
            return connections

    execute(
        own_cluster.url,
        "CREATE ROLE items_app LOGIN; GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO items_app; "
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO items_app",
    )
    with asyncio.Runner() as runner:
        connections = runner.run(occupy())
        with service(as_role(own_cluster.url, "items_app")) as server:
            server.serving()
            workers = server.workers()
            assert (503, 503) == (fetch(server.port, "/health/ready")[0], fetch(server.port, "/samples")[0])
            time.sleep(1.5)
            for connection in connections:
                runner.run(connection.close())
            eventually(lambda: fetch(server.port, "/health/ready")[0] == 200, seconds=3, what="ready")
            assert 200 == fetch(server.port, "/samples")[0]
            assert workers == server.workers()


def test_writes_recover_from_a_server_that_became_read_only(own_cluster):
    """Writes are 503 on sessions that are read-only. New sessions are opened, and writes succeed within 5 s."""
    history = History(own_cluster.url)
    name, everyone = "postgres", f"application_name = '{NAME}'"
    end_sessions = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {everyone}"
    with service(own_cluster.url, workers=2) as server:
        server.serving(workers=2)
        with load(server.port, rate=100, request=history.request) as report:
            time.sleep(1)
            execute(own_cluster.url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
            execute(own_cluster.url, end_sessions)
            time.sleep(2)
            # A session keeps the value that it started with, so only new sessions can write.
            execute(own_cluster.url.replace("/postgres?", "/template1?"), f"ALTER DATABASE {name} RESET ALL")
            restored = time.monotonic()
            time.sleep(7)
        assert_recovered(server, report, restored, within=5)

    assert_refused_in_time(report, within=2)
    refused = [e for e in report.results if e.answer and e.answer.status == 503]
    assert len(refused) > 10
    assert {"PUT", "POST"} == {e.request.method for e in refused if e.started > restored - 1.5}
    assert_all_stored(history, report, at_least=200)


def test_a_locked_table_does_not_delay_probes_or_later_requests(own_cluster):
    """200 requests of one client, for 3 of 4 connections, are answered 503 in time or 504, and /health is fast.

    The connection budget holds, and after the lock all requests succeed at once.
    """
    history = History(own_cluster.url)
    with ExitStack() as stack:
        settings = {"DATABASE_CONNECTIONS": "4", "DATABASE_STATEMENT_SECONDS": "3"}
        server = stack.enter_context(service(own_cluster.url, workers=1, **settings))
        backends = stack.enter_context(counting_backends(own_cluster.url))
        server.serving()
        before = asyncio.run(send_load(server.port, rate=400, count=200, kept=50, request=history.request))
        lock = stack.enter_context(asyncio.Runner())
        locker = lock.run(asyncpg.connect(own_cluster.url))
        lock.run(locker.execute("BEGIN; LOCK TABLE samples IN ACCESS EXCLUSIVE MODE"))
        with polling(lambda: probed(server.port)) as probes:
            report = asyncio.run(
                send_load(server.port, rate=2_000, count=200, kept=200, request=lambda n: history.request(200 + n))
            )
        lock.run(locker.execute("COMMIT"))
        lock.run(locker.close())
        recovered = asyncio.run(
            send_load(server.port, rate=400, count=200, kept=50, request=lambda n: history.request(400 + n))
        )

    codes = {json.loads(e.answer.body)["code"] for e in report.results if e.answer}
    print_figures(
        slowest_503_seconds=max(e.seconds for e in report.results if e.answer and e.answer.status == 503),
        slowest_probe_seconds=max(seconds for _, seconds in probes),
        most_backends=max(backends),
        **counted(report),
    )
    assert {503: 197, 504: 3} == report.statuses
    assert {"overloaded", "pool_exhausted", "statement_timeout"} == codes
    assert all(e.seconds < 1.3 for e in report.results if e.answer and e.answer.status == 503)
    assert {200} == {status for status, _ in probes}
    assert max(seconds for _, seconds in probes) < 0.1
    assert max(backends) <= 4
    assert {200, 201} == set(before.statuses) == set(recovered.statuses)
    assert {*range(200)} == {e.number for e in recovered.results}
    assert_all_stored(history, before, report, recovered, at_least=200)


def test_acknowledged_creations_are_stored_although_connections_are_terminated(own_cluster):
    """Backends are terminated all the time. A retry with the same key makes no second row."""
    history = History(own_cluster.url)
    end_one = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        f" WHERE application_name = '{NAME}' AND state = 'active' LIMIT 1"
    )
    # Writes are slow, so that connections are terminated during a write.
    slow_down_creations(own_cluster.url)
    with service(own_cluster.url, workers=2) as server:
        server.serving(workers=2)
        with load(server.port, rate=100, request=lambda n: create(n, key=f"key-{n}")) as report:
            for _ in range(60):
                execute(own_cluster.url, end_one)
                time.sleep(0.03)
        failed = [result for result in report.results if not succeeded(result)]
        retried = asyncio.run(send_load(server.port, rate=100, count=len(failed), request=lambda n: failed[n].request))

    assert_refused_in_time(report, within=2)
    assert len(failed) > 10
    assert {201: len(failed)} == retried.statuses
    replayed = [e for e in retried.results if e.answer and "idempotency-replayed" in e.answer.headers]
    print_figures(sent=len(report.results), failed=len(failed), stored_although_failed=len(replayed))
    assert_all_stored(history, report, retried, at_least=len(report.results))


LOST = 10
"""The answers to two creations in this many are lost."""


def creation_of_two_kinds(number: int) -> Request:
    """A creation with or without a key. The name says whether its answer is to be lost."""
    key = f"key-{number}" if number % 2 else None
    return create(number, key=key, name="lost" if number % LOST < 2 else "created")


def stored(url: str) -> Counter[str]:
    """The number of rows with each name, read directly from PostgreSQL."""

    async def names() -> list[str]:
        connection = await asyncpg.connect(url)
        try:
            return [row["name"] for row in await connection.fetch("SELECT name FROM samples WHERE name LIKE 'lost-%'")]
        finally:
            await connection.close()

    return Counter(asyncio.run(names()))


# A connection without an answer is held for 1.5 to 2.5 s. A quarter of the connections would do for a quiet machine.
@pytest.mark.parametrize(("how", "status", "rate"), [("cut", 503, 50), ("silent", 504, 15)])
def test_a_creation_whose_answer_is_lost_is_answered_with_an_error(own_cluster, how, status, rate):
    """It is committed, and then the database connection ends or sends nothing more.

    A retry with the same key gets the first answer. A retry without a key makes a second row.
    """
    history = History(own_cluster.url)
    with ExitStack() as stack:
        proxy, call = stack.enter_context(proxy_beside(own_cluster.url))
        settings = {"DATABASE_STATEMENT_SECONDS": "1", "DATABASE_CONNECTIONS": "60"}
        server = stack.enter_context(service(proxy.url, workers=2, **settings))
        server.serving(workers=2)
        call(lambda: proxy.lose_answers(b"lost-", how))
        with load(server.port, rate=rate, kept=40, request=creation_of_two_kinds) as report:
            time.sleep(4)
        call(proxy.keep_answers)
        lost = sorted((e for e in report.results if b"lost-" in e.request.body), key=lambda e: e.number)
        before_retries = stored(own_cluster.url)
        retried = asyncio.run(send_load(server.port, rate=100, count=len(lost), request=lambda n: lost[n].request))

    print_figures(sent=len(report.results), lost=len(lost), slowest_answer_seconds=max(e.seconds for e in lost))
    assert len(lost) > 10
    assert {status} == {e.answer.status for e in lost if e.answer}
    assert_refused_in_time(report, within=1 + 2)
    assert {201: len(report.results) - len(lost), status: len(lost)} == report.statuses
    # All of them had been committed before their clients got the error.
    assert proxy.answers_lost == len(lost)
    assert before_retries == Counter(json.loads(e.request.body)["name"] for e in lost)
    assert {201: len(lost)} == retried.statuses
    for result in retried.results:
        has_key = lost[result.number].number % 2 == 1
        assert result.answer
        assert result.answer.headers.get("idempotency-replayed") == ("true" if has_key else None)
    rows = stored(own_cluster.url)
    assert {1, 2} == set(rows.values())
    assert all(rows[f"lost-{e.number}"] == (1 if e.number % 2 else 2) for e in lost)
    assert_all_stored(history, report, retried, at_least=len(report.results))
