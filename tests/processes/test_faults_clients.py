import asyncio
import json
import random
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import asyncpg
import psutil
import pytest

from tests.processes.history import History
from tests.processes.load import Request, load
from tests.processes.raw import AMBIGUOUS, connect, read, statuses, talk
from tests.processes.scrape import fetch, scrape, total
from tests.processes.server import Server, eventually, service
from tests.processes.watch import measured

HEAD = b"POST /items HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"


@pytest.fixture
def server(database_url: str) -> Iterator[Server]:
    """The real service of two workers, which waits for 3 s."""
    with service(database_url, workers=2, REQUEST_RECEIVE_SECONDS="3") as running:
        yield running.serving(workers=2)


def test_clients_that_vanish_leave_whole_rows(server, database_url):
    """1,000 clients reset in the middle of a creation: each row is whole or absent, and nobody else notices."""
    choose = random.Random(7)
    with load(server.port, rate=50, kept=5, fresh=5, request=lambda _: Request(target="/items?per_page=1")) as report:
        for number in range(1_000):
            body = json.dumps({"name": f"vanished-{number}", "description": f"{number}" * 500}).encode()
            sent = HEAD + f"Content-Length: {len(body)}\r\n\r\n".encode() + body
            # Half of them have sent everything and do not wait for the answer.
            sent = sent[: choose.randrange(len(sent))] if number % 2 else sent
            with connect(server) as client:
                client.sendall(sent)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        time.sleep(0.5)
    eventually(lambda: total(scrape(server.port), "database_pool_in_use") == 0, seconds=3, what="all connections free")

    assert [] == report.failures()
    answered = scrape(server.port)
    assert 0 == sum(total(answered, "http_requests_total", {"status": str(status)}) for status in (500, 502, 503, 504))
    rows = asyncio.run(stored(database_url))
    measured(vanished=1_000, rows=len(rows), requests_of_others=len(report.exchanges), failed=len(report.failures()))
    assert len(rows) > 0
    for row in rows:
        number = row["name"].removeprefix("vanished-")
        assert row["description"] == number * 500


async def stored(url: str) -> list[asyncpg.Record]:
    """All items."""
    connection = await asyncpg.connect(url, user="postgres")
    try:
        return await connection.fetch("SELECT name, description FROM items")
    finally:
        await connection.close()


def memory(server: Server) -> int:
    """The bytes of all workers."""
    return sum(psutil.Process(pid).memory_info().rss for pid in server.workers())


@pytest.mark.slow
@pytest.mark.parametrize("sent", [HEAD[:30], HEAD + b'Content-Length: 100\r\n\r\n{"name'], ids=["head", "body"])
def test_slow_clients_are_sent_away(database_url, sent):
    """1,500 of them are closed within 15 s; of the good traffic 99.5 % succeeds, and memory is bounded."""
    history = History(database_url)
    with service(database_url, workers=2) as server, ExitStack() as stack:
        server.serving(workers=2)
        before = memory(server)
        with load(server.port, rate=100, kept=10, fresh=10, request=history.request) as report:
            began = time.monotonic()
            slow = [stack.enter_context(connect(server)) for _ in range(1_500)]
            for client in slow:
                client.settimeout(20)
                client.sendall(sent)
            held = memory(server)
            received = [read(client) for client in slow]
            seconds = time.monotonic() - began
    assert 1_500 == sum(statuses(answer) == [408] for answer in received)
    assert seconds < 15
    good = [e for e in report.exchanges if e.answer and e.answer.status < 300]
    measured(
        closed_after_seconds=seconds,
        good_part=len(good) / len(report.exchanges),
        kib_a_connection=(held - before) / 1024 / 1_500,
    )
    assert len(good) >= 0.995 * len(report.exchanges)
    assert held - before < 1_500 * 32 * 1024
    history.check(report)


def test_an_endless_body_is_refused(server):
    """Chunks without an end are 413 after 64 KiB, and the connection closes."""
    with connect(server) as client:
        client.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        with suppress(OSError):
            for _ in range(10_000):
                client.sendall(b"400\r\n" + b" " * 1024 + b"\r\n")
        received = read(client)
    assert statuses(received) in ([413], [])
    assert 200 == fetch(server.port, "/items")[0]


HOSTILE = {
    "gzip": (HEAD + b"Content-Encoding: gzip\r\nConnection: close\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00", 415),
    "two hosts": (b"GET /items HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n", 400),
    "no host": (b"GET /items HTTP/1.1\r\nConnection: close\r\n\r\n", 400),
    "1 MB of headers": (b"GET /items HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 1_000_000 + b"\r\n\r\n", 431),
    "declared too long": (HEAD + b"Content-Length: 99999999\r\nConnection: close\r\n\r\n{}", 413),
}


def test_a_hostile_request_is_refused_by_its_name(server):
    """Each has the status that says what is wrong with it."""
    found = {name: statuses(talk(server, sent)) for name, (sent, _) in HOSTILE.items()}

    assert {name: [status] for name, (_, status) in HOSTILE.items()} == found


def test_nothing_is_smuggled_past_the_head(server):
    """What two readers could read in two ways is refused as a whole: what follows it makes no item."""
    body = b'{"name":"smuggled"}'
    follower = HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    for name, sent in AMBIGUOUS.items():
        found = statuses(talk(server, sent.replace(b"POST / ", b"POST /items ") + follower))
        assert len(found) == 1, name
        assert 400 <= found[0] < 500, name
    assert b"smuggled" not in fetch(server.port, "/items?q=smuggled")[1].replace(b"q=smuggled", b"")
