import asyncio
import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from queue import SimpleQueue

import asyncpg
import psutil
import pytest

from app import NAME
from app.embedded_postgres.cluster import Cluster
from tests.cluster import as_role, execute, slow_down_creations
from tests.processes.history import History, create
from tests.processes.load import Exchange, Report, Request, load, send_load
from tests.processes.scrape import fetch, scrape, total
from tests.processes.server import Server, eventually, service
from tests.processes.watch import counting_backends, measured, watching
from tests.proxy import Proxy, proxied

Call = Callable[[Callable[[], None]], object]


def probed(port: int) -> tuple[int, float]:
    """The status of /health, and how long it took."""
    started = time.monotonic()
    return fetch(port, "/health")[0], time.monotonic() - started


def after(report: Report, moment: float) -> list[Exchange]:
    """What was asked from this moment on."""
    return [exchange for exchange in report.exchanges if exchange.started >= moment]


def succeeded(exchange: Exchange) -> bool:
    """Whether it was answered with a 2xx."""
    return exchange.answer is not None and exchange.answer.status < 300


def counted(report: Report) -> dict[str, int]:
    """How many answers had which status."""
    return {f"answers_{status}": count for status, count in sorted(report.statuses.items())}


def assert_well_again(server: Server, report: Report, restored: float, *, within: float) -> None:
    """Requests succeed again within this time, none fails after it, and no connection is lost to the pool."""
    failed_last = max((e.started for e in report.exchanges if not succeeded(e)), default=restored)
    slowest = max(e.seconds for e in report.exchanges)
    measured(slowest_answer_seconds=slowest, well_after_seconds=max(0.0, failed_last - restored), **counted(report))
    assert min(e.started for e in after(report, restored) if succeeded(e)) < restored + within
    late = after(report, restored + within)
    assert len(late) > 20
    assert all(map(succeeded, late)), [e.answer for e in late if not succeeded(e)][:3]
    eventually(lambda: total(scrape(server.port), "database_pool_in_use") == 0, seconds=3, what="all connections free")


def assert_refused_in_time(report: Report, *, within: float) -> None:
    """Every request was answered; a refusal says when to come again, and no answer took longer than that."""
    assert {None} == {exchange.failure for exchange in report.exchanges}, report
    assert set(report.statuses) <= {200, 201, 503, 504}
    for exchange in report.exchanges:
        assert exchange.answer
        assert exchange.seconds < within, exchange
        if exchange.answer.status == 503:
            assert exchange.answer.headers["retry-after"].isdigit()


def assert_all_stored(history: History, *reports: Report, at_least: int) -> None:
    """Each acknowledged write is in the database, and so many there are."""
    acknowledged = history.check(*reports)["acknowledged"]
    measured(acknowledged=acknowledged)
    assert acknowledged >= at_least


def test_a_restart_of_the_database_is_survived(own_cluster):
    """It is away for 4 s: each request is 503 within 2 s, /health stays 200, and all is well within 3 s."""
    history = History(own_cluster.url)
    with service(own_cluster.url, workers=2) as server:
        server.serving(workers=2)
        workers = server.workers()
        with (
            load(server.port, rate=100, request=history.request) as report,
            watching(lambda: probed(server.port)) as probes,
        ):
            time.sleep(1)
            own_cluster.stop("fast")
            away = time.monotonic()
            time.sleep(4)
            assert 503 == fetch(server.port, "/health/ready")[0]
            own_cluster.start()
            restored = time.monotonic()
            time.sleep(5)
        assert_well_again(server, report, restored, within=3)
        assert workers == server.workers()

    assert_refused_in_time(report, within=2)
    assert 503 in {e.answer.status for e in after(report, away) if e.answer}
    assert {200} == {status for status, _ in probes}
    assert_all_stored(history, report, at_least=200)


@contextmanager
def processes_stopped(cluster: Cluster) -> Iterator[None]:
    """Every process of the server stands still."""
    postmaster = psutil.Process(int(Path(cluster.data, "postmaster.pid").read_text().split()[0]))
    family = [postmaster, *postmaster.children(recursive=True)]
    for process in family:
        os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in family:
            os.kill(process.pid, signal.SIGCONT)


@contextmanager
def proxy_beside(url: str) -> Iterator[tuple[Proxy, Call]]:
    """A proxy to the database in a thread of its own, and what calls a function there."""
    loop, stop = asyncio.new_event_loop(), asyncio.Event()
    started: SimpleQueue[Proxy] = SimpleQueue()

    async def run() -> None:
        async with proxied(url) as proxy:
            started.put(proxy)
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()), daemon=True)
    thread.start()
    try:
        yield started.get(timeout=10), loop.call_soon_threadsafe
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


@contextmanager
def swallowing(proxy: Proxy, call: Call) -> Iterator[None]:
    """The proxy passes nothing on."""
    call(proxy.freeze)
    yield
    call(proxy.thaw)


@pytest.mark.parametrize("how", ["stopped", "swallowed"])
def test_a_frozen_database_holds_nobody_for_long(own_cluster, how):
    """Each request is answered within the statement's time and 2 s; the pool is whole within 4 s of the thaw."""
    history = History(own_cluster.url)
    with ExitStack() as stack:
        url = own_cluster.url
        frozen: Callable[[], AbstractContextManager[None]] = partial(processes_stopped, own_cluster)
        if how == "swallowed":
            proxy, call = stack.enter_context(proxy_beside(own_cluster.url))
            url, frozen = proxy.url, partial(swallowing, proxy, call)
        server = stack.enter_context(service(url, workers=2, DATABASE_STATEMENT_SECONDS="1"))
        server.serving(workers=2)
        workers = server.workers()
        with (
            load(server.port, rate=100, kept=40, request=history.request) as report,
            watching(lambda: probed(server.port)) as probes,
        ):
            time.sleep(1)
            with frozen():
                time.sleep(5)
            restored = time.monotonic()
            time.sleep(5)
        assert_well_again(server, report, restored, within=4)
        assert workers == server.workers()
        assert_refused_in_time(report, within=1 + 2)
        assert {503, 504} & set(report.statuses)
        assert {200} == {status for status, _ in probes}
        assert_all_stored(history, report, at_least=200)


def test_connections_that_were_ended_while_idle_are_not_missed(own_cluster):
    """All backends are terminated between requests: none fails."""
    history = History(own_cluster.url)
    report = Report()

    def create_100() -> None:
        sent = len(report.exchanges)
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


def test_a_server_without_a_free_connection_is_waited_for(own_cluster):
    """`max_connections` is reached by others: the worker lives, is not ready, and is ready once one is free."""

    async def occupy() -> list[asyncpg.Connection]:
        taken = []
        try:
            while True:
                taken.append(await asyncpg.connect(as_role(own_cluster.url, "items_app")))
        except asyncpg.TooManyConnectionsError:
            return taken

    execute(
        own_cluster.url, "CREATE ROLE items_app LOGIN; GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA public TO items_app"
    )
    with asyncio.Runner() as runner:
        taken = runner.run(occupy())
        with service(as_role(own_cluster.url, "items_app")) as server:
            server.serving()
            workers = server.workers()
            assert (503, 503) == (fetch(server.port, "/health/ready")[0], fetch(server.port, "/items")[0])
            time.sleep(1.5)
            for connection in taken:
                runner.run(connection.close())
            eventually(lambda: fetch(server.port, "/health/ready")[0] == 200, seconds=3, what="ready")
            assert 200 == fetch(server.port, "/items")[0]
            assert workers == server.workers()


def test_writes_leave_a_server_that_has_become_read_only(own_cluster):
    """Sessions on what has become a replica are 503 for writes; new ones are opened, and writes resume within 5 s."""
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
            # A session keeps what it began with: only new ones can write.
            execute(own_cluster.url.replace("/postgres?", "/template1?"), f"ALTER DATABASE {name} RESET ALL")
            restored = time.monotonic()
            time.sleep(7)
        assert_well_again(server, report, restored, within=5)

    assert_refused_in_time(report, within=2)
    refused = [e for e in report.exchanges if e.answer and e.answer.status == 503]
    assert len(refused) > 10
    assert {"PUT", "POST"} == {e.request.method for e in refused if e.started > restored - 1.5}
    assert_all_stored(history, report, at_least=200)


def test_a_locked_table_holds_neither_probes_nor_the_future(own_cluster):
    """200 requests at once on 4 connections: 503 in time or 504, and /health is quick.

    The budget holds, and when the lock has gone all is well at once.
    """
    history = History(own_cluster.url)
    with ExitStack() as stack:
        settings = {"DATABASE_CONNECTIONS": "8", "DATABASE_STATEMENT_SECONDS": "3"}
        server = stack.enter_context(service(own_cluster.url, workers=1, **settings))
        backends = stack.enter_context(counting_backends(own_cluster.url))
        server.serving()
        before = asyncio.run(send_load(server.port, rate=400, count=200, kept=50, request=history.request))
        lock = stack.enter_context(asyncio.Runner())
        locker = lock.run(asyncpg.connect(own_cluster.url))
        lock.run(locker.execute("BEGIN; LOCK TABLE items IN ACCESS EXCLUSIVE MODE"))
        with watching(lambda: probed(server.port)) as probes:
            report = asyncio.run(
                send_load(server.port, rate=2_000, count=200, kept=200, request=lambda n: history.request(200 + n))
            )
        lock.run(locker.execute("COMMIT"))
        lock.run(locker.close())
        well = asyncio.run(
            send_load(server.port, rate=400, count=200, kept=50, request=lambda n: history.request(400 + n))
        )

    codes = {json.loads(e.answer.body)["code"] for e in report.exchanges if e.answer}
    measured(
        slowest_503_seconds=max(e.seconds for e in report.exchanges if e.answer and e.answer.status == 503),
        slowest_probe_seconds=max(seconds for _, seconds in probes),
        most_backends=max(backends),
        **counted(report),
    )
    assert {503: 196, 504: 4} == report.statuses
    assert {"overloaded", "pool_exhausted", "statement_timeout"} == codes
    assert all(e.seconds < 1.3 for e in report.exchanges if e.answer and e.answer.status == 503)
    assert {200} == {status for status, _ in probes}
    assert max(seconds for _, seconds in probes) < 0.1
    assert max(backends) <= 4
    assert {200, 201} == set(before.statuses) == set(well.statuses)
    assert {*range(200)} == {e.number for e in well.exchanges}
    assert_all_stored(history, before, report, well, at_least=200)


def test_a_connection_that_dies_during_a_create_tells_no_lie(own_cluster):
    """Backends are ended all the time: what was acknowledged is stored, and retries with the key make one row each."""
    history = History(own_cluster.url)
    end_one = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        f" WHERE application_name = '{NAME}' AND state = 'active' LIMIT 1"
    )
    # A slow write, so that connections die in the middle of one.
    slow_down_creations(own_cluster.url)
    with service(own_cluster.url, workers=2) as server:
        server.serving(workers=2)
        with load(server.port, rate=100, request=lambda n: create(n, key=f"key-{n}")) as report:
            for _ in range(60):
                execute(own_cluster.url, end_one)
                time.sleep(0.03)
        failed = [exchange for exchange in report.exchanges if not succeeded(exchange)]
        retried = asyncio.run(send_load(server.port, rate=100, count=len(failed), request=lambda n: failed[n].request))

    assert_refused_in_time(report, within=2)
    assert len(failed) > 10
    assert {201: len(failed)} == retried.statuses
    replayed = [e for e in retried.exchanges if e.answer and "idempotency-replayed" in e.answer.headers]
    measured(sent=len(report.exchanges), failed=len(failed), of_them_stored=len(replayed))
    assert_all_stored(history, report, retried, at_least=len(report.exchanges))


LOST = 10
"""The answer to one creation in so many is lost."""


def creation_of_two_kinds(number: int) -> Request:
    """With a key or without one; those whose answers are to be lost have another name."""
    key = f"key-{number}" if number % 2 else None
    return create(number, key=key, name="lost" if number % LOST < 2 else "created")


def stored(url: str) -> Counter[str]:
    """How many rows have which name, as PostgreSQL itself tells."""

    async def names() -> list[str]:
        connection = await asyncpg.connect(url)
        try:
            return [row["name"] for row in await connection.fetch("SELECT name FROM items WHERE name LIKE 'lost-%'")]
        finally:
            await connection.close()

    return Counter(asyncio.run(names()))


# One that says nothing keeps its connection for 1.5 s: more of them would use up the pool.
@pytest.mark.parametrize(("how", "status", "rate"), [("cut", 503, 50), ("silent", 504, 25)])
def test_a_create_whose_answer_is_lost_is_no_success(own_cluster, how, status, rate):
    """It is committed, and then the connection ends or says nothing more: an error, whatever is stored.

    A retry with the key gets the first answer again. Without a key nobody can tell that it is a
    retry, and the row stands twice.
    """
    history = History(own_cluster.url)
    with ExitStack() as stack:
        proxy, call = stack.enter_context(proxy_beside(own_cluster.url))
        server = stack.enter_context(service(proxy.url, workers=2, DATABASE_STATEMENT_SECONDS="1"))
        server.serving(workers=2)
        call(lambda: proxy.lose_answers(b"lost-", how))
        with load(server.port, rate=rate, kept=40, request=creation_of_two_kinds) as report:
            time.sleep(4)
        call(proxy.keep_answers)
        lost = sorted((e for e in report.exchanges if b"lost-" in e.request.body), key=lambda e: e.number)
        before_retries = stored(own_cluster.url)
        retried = asyncio.run(send_load(server.port, rate=100, count=len(lost), request=lambda n: lost[n].request))

    measured(sent=len(report.exchanges), lost=len(lost), slowest_answer_seconds=max(e.seconds for e in lost))
    assert len(lost) > 10
    assert {status} == {e.answer.status for e in lost if e.answer}
    assert_refused_in_time(report, within=1 + 2)
    assert {201: len(report.exchanges) - len(lost), status: len(lost)} == report.statuses
    # All of them were committed before anybody was told that they failed.
    assert proxy.answers_lost == len(lost)
    assert before_retries == Counter(json.loads(e.request.body)["name"] for e in lost)
    assert {201: len(lost)} == retried.statuses
    for exchange in retried.exchanges:
        has_key = lost[exchange.number].number % 2 == 1
        assert exchange.answer
        assert exchange.answer.headers.get("idempotency-replayed") == ("true" if has_key else None)
    rows = stored(own_cluster.url)
    assert {1, 2} == set(rows.values())
    assert all(rows[f"lost-{e.number}"] == (1 if e.number % 2 else 2) for e in lost)
    assert_all_stored(history, report, retried, at_least=len(report.exchanges))
