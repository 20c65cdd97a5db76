"""One client cannot starve another one: real servers, with connections whose addresses a trusted proxy names."""

import asyncio
import json
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
import pytest

from app import NAME
from tests.cluster import as_role, execute
from tests.processes.load import Client, Report, Request, send_load
from tests.processes.scrape import scrape, total
from tests.processes.server import Server, eventually, service, without_coverage
from tests.processes.watch import print_figures

ATTACKER = (("X-Forwarded-For", "198.51.100.9"),)
OTHER = (("X-Forwarded-For", "203.0.113.7"),)
JSON = (("Content-Type", "application/json"),)

SLOW_SEARCHES = """
CREATE FUNCTION pause() RETURNS boolean LANGUAGE plpgsql AS
    'BEGIN IF current_query() LIKE ''%LIKE%'' THEN PERFORM pg_sleep(0.4); END IF; RETURN true; END';
ALTER TABLE items ENABLE ROW LEVEL SECURITY;
CREATE POLICY pause ON items USING (pause());
INSERT INTO items (name) VALUES ('Kettle');
"""
"""Each row that a search reads takes 0.4 s on the server, without using its CPU. Other statements are not slower."""


STATEMENTS = f"""
SELECT count(*) FILTER (WHERE state = 'active'), count(*) FROM pg_stat_activity
WHERE application_name = '{NAME}' AND datname = current_database()
"""


@pytest.fixture
def server(database_url: str) -> Iterator[Server]:
    """The service with default settings and two workers, behind a trusted proxy. Searches are slow."""
    execute(as_role(database_url, "postgres"), SLOW_SEARCHES)
    with without_coverage(service(database_url, workers=2, FORWARDED_ALLOW_IPS="127.0.0.1")) as running:
        yield running.serving(workers=2)


def other_client(number: int) -> Request:
    """What the other client sends: reads by id, creations, and pages."""
    if number % 3 == 0:
        return Request(target="/items/1", headers=OTHER)
    if number % 3 == 1:
        body = json.dumps({"name": f"Kettle {number}"}).encode()
        return Request(method="POST", target="/items", headers=OTHER + JSON, body=body)
    return Request(target="/items?per_page=20", headers=OTHER)


async def send_all(request: Request, port: int, connections: int, end: float) -> list[int]:
    """Send the same request on many connections, without pauses."""
    statuses = []

    async def send() -> None:
        client = Client(port)
        while time.monotonic() < end:
            result = await client.send(0, request)
            assert result.answer, result.failure
            statuses.append(result.answer.status)
        client.close()

    await asyncio.gather(*(send() for _ in range(connections)))
    return statuses


async def search(port: int, connections: int, end: float) -> list[int]:
    """Search on many connections."""
    return await send_all(Request(target="/items?q=e%20z", headers=ATTACKER), port, connections, end)


async def change_a_locked_item(port: int, connections: int, end: float) -> list[int]:
    """Change, on many connections, an item that another transaction has locked."""
    body = json.dumps({"price": 1}).encode()
    request = Request(method="PATCH", target="/items/1", headers=ATTACKER + JSON, body=body)
    return await send_all(request, port, connections, end)


async def search_and_leave(port: int, connections: int, end: float) -> list[int]:
    """Search on many connections, and reset each of them before the answer, 60 times a second in all."""

    async def send() -> None:
        while time.monotonic() < end:
            await leave_early(port, Request(target="/items?q=e%20z", headers=ATTACKER), after=connections / 60)

    await asyncio.gather(*(send() for _ in range(connections)))
    return []


async def leave_early(port: int, request: Request, *, after: float, reset: bool = True) -> None:
    """Send a request, and reset the connection after this many seconds, or close it."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request.encode(keep=True))
    await asyncio.sleep(after)
    if reset:
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


@contextmanager
def locked(url: str, statement: str) -> Iterator[None]:
    """Hold the locks of this statement."""
    loop = asyncio.new_event_loop()
    connection = loop.run_until_complete(asyncpg.connect(url))
    try:
        loop.run_until_complete(connection.execute(f"BEGIN; {statement}"))
        yield
    finally:
        loop.run_until_complete(connection.close())
        loop.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("attack", "connections"), [(search, 12), (search, 60), (change_a_locked_item, 60), (search_and_leave, 60)]
)
def test_one_client_cannot_starve_another(server, database_url, attack, connections):
    """While one client holds all that it may, another one gets each answer, and soon."""

    async def attacked() -> tuple[Report, list[int]]:
        end = time.monotonic() + 5
        attacking = asyncio.create_task(attack(server.port, connections, end))
        await asyncio.sleep(1)
        report = await send_load(server.port, rate=40, seconds=3.5, kept=10, request=other_client)
        return report, await attacking

    with locked(as_role(database_url, "postgres"), "UPDATE items SET price = 2 WHERE id = 1"):
        report, attacker = asyncio.run(attacked())

    print_figures(
        sent=len(report.results),
        half_seconds=report.seconds(0.5),
        most_seconds=report.seconds(0.99),
        attacker=len(attacker),
        attacker_refused=attacker.count(503),
    )
    assert {200, 201} == set(report.statuses), report
    assert len(report.results) == report.statuses.total() > 50
    assert report.seconds(0.9) < 0.1
    assert report.seconds(0.99) < 0.3


@pytest.mark.parametrize("reset", [True, False])
def test_the_statement_of_a_client_that_is_gone_is_cancelled(database_url, reset):
    """Soon neither the server runs it nor a request waits for it, and no connection is opened in its place."""
    administrator = as_role(database_url, "postgres")
    execute(administrator, "INSERT INTO items (name) VALUES ('Kettle')")
    long = {"DATABASE_WAIT_SECONDS": "20", "DATABASE_STATEMENT_SECONDS": "20"}

    async def statements() -> list[int]:
        """Statements that run, and connections of the service."""
        connection = await asyncpg.connect(administrator)
        try:
            return [*(await connection.fetchrow(STATEMENTS) or ())]
        finally:
            await connection.close()

    async def leave(port: int) -> list[int]:
        read = Request(target="/items/1")
        gone = [asyncio.create_task(leave_early(port, read, after=2, reset=reset)) for _ in range(40)]
        await asyncio.sleep(1)
        during = await statements()
        await asyncio.gather(*gone)
        return during

    with without_coverage(service(database_url, workers=2, **long)) as server:
        server.serving(workers=2)
        with locked(administrator, "LOCK TABLE items"):
            during = asyncio.run(leave(server.port))
            left = time.monotonic()
            eventually(
                lambda: asyncio.run(statements())[0] == 0, seconds=5, what="no statement of a client that is gone"
            )
            ended = time.monotonic() - left
            eventually(lambda: pool(server) == (0, 0), seconds=5, what="no connection in use and no request that waits")
            _, connections = asyncio.run(statements())
        report = asyncio.run(send_load(server.port, rate=100, count=60, kept=10, request=other_client))
        shed = total(scrape(server.port), "requests_shed_total")

    print_figures(during=during[0], ended_after_seconds=ended)
    assert during[0] >= 5
    assert connections <= 20
    assert {200: 40, 201: 20} == report.statuses, report
    assert 0 == shed


def pool(server: Server) -> tuple[float, float]:
    """Connections in use, and requests that wait for one."""
    found = scrape(server.port)
    return total(found, "database_pool_in_use"), total(found, "database_pool_waiting")
