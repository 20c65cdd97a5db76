"""One client cannot starve another one: real servers, with connections whose addresses a trusted proxy names."""

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
import pytest

from tests.cluster import as_role, execute
from tests.processes.load import Client, Report, Request, send_load
from tests.processes.server import Server, service, without_coverage
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


async def leave_early(port: int, request: Request, *, after: float) -> None:
    """Send a request, and reset the connection after this many seconds."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request.encode(keep=True))
    await asyncio.sleep(after)
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
