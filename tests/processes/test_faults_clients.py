import random
import select
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import psutil
import pytest

from tests.processes.history import History, create
from tests.processes.load import Report, RequestResult, load
from tests.processes.raw import AMBIGUOUS, connect, read, send_and_read, statuses
from tests.processes.scrape import scrape, total
from tests.processes.server import Server, eventually, service
from tests.processes.watch import print_figures

HEAD = b"POST /samples HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"


@pytest.fixture
def server(database_url: str) -> Iterator[Server]:
    """The real service with two workers and a receive timeout of 3 s."""
    with service(database_url, workers=2, REQUEST_RECEIVE_SECONDS="3") as running:
        yield running.serving(workers=2)


@pytest.fixture
def history(database_url: str) -> History:
    """The writes that the service is asked for."""
    return History(database_url)


@contextmanager
def normal_requests(server: Server, history: History) -> Iterator[None]:
    """Requests of other clients while the block runs: none fails, and each write is stored once."""
    with load(server.port, rate=100, kept=10, fresh=5, request=history.request) as report:
        yield
    assert [] == report.failures()
    acknowledged = history.check(report)["acknowledged"]
    print_figures(requests_of_others=len(report.results), acknowledged=acknowledged)
    assert acknowledged > 40


def repeat_for(seconds: float = 1) -> Iterator[None]:
    """Repeat the loop's body for this time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield


def test_a_creation_whose_client_resets_is_stored_completely_or_not_at_all(server, history):
    """1,000 clients reset their connection during a creation. The requests of other clients do not fail."""
    choose = random.Random(7)
    aborted = Report()
    with load(server.port, rate=100, kept=5, fresh=5, request=history.request) as report:
        for number in range(1_000):
            request = create(number, name="aborted", description=f"{number}" * 500)
            sent = request.encode(keep=True)
            if number % 2:
                sent = sent[: choose.randrange(len(sent))]
            else:
                # Everything was sent, but the client does not wait for the answer.
                aborted.results.append(
                    RequestResult(
                        number=number, request=request, kept=False, started=time.monotonic(), seconds=0, answer=None,
                        failure="aborted",
                    )
                )  # fmt: skip
            with connect(server) as client:
                client.sendall(sent)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        time.sleep(0.5)
    eventually(lambda: total(scrape(server.port), "database_pool_in_use") == 0, seconds=3, what="all connections free")

    assert [] == report.failures()
    answered = scrape(server.port)
    assert 0 == sum(total(answered, "http_requests_total", {"status": str(status)}) for status in (500, 502, 503, 504))
    counts = history.check(report, aborted)
    print_figures(
        aborted=1_000, rows=counts["stored"], requests_of_others=len(report.results),
        acknowledged=counts["acknowledged"],
    )  # fmt: skip
    assert counts["stored"] > 0
    assert counts["acknowledged"] > 20


def memory(server: Server) -> int:
    """The resident memory of all workers, in bytes."""
    return sum(psutil.Process(pid).memory_info().rss for pid in server.workers())


@pytest.mark.slow
@pytest.mark.parametrize("sent", [HEAD[:30], HEAD + b'Content-Length: 100\r\n\r\n{"name'], ids=["head", "body"])
def test_1500_slow_clients_are_disconnected(database_url, sent):
    """They are answered 408 within 15 s. Of the other requests 99.5 % succeed, and memory is bounded."""
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
    good = [e for e in report.results if e.answer and e.answer.status < 300]
    print_figures(
        closed_after_seconds=seconds,
        good_part=len(good) / len(report.results),
        kib_a_connection=(held - before) / 1024 / 1_500,
    )
    assert len(good) >= 0.995 * len(report.results)
    assert held - before < 1_500 * 32 * 1024
    acknowledged = history.check(report)["acknowledged"]
    print_figures(acknowledged=acknowledged)
    assert acknowledged > 500


def test_an_endless_body_is_refused(server, history):
    """A chunked body without an end is answered 413 after 64 KiB, and the connection is closed."""
    with normal_requests(server, history):
        for _ in repeat_for():
            with connect(server) as client:
                client.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
                with suppress(OSError):
                    for _ in range(10_000):
                        if select.select([client], [], [], 0)[0]:
                            break
                        client.sendall(b"400\r\n" + b" " * 1024 + b"\r\n")
                assert [413] == statuses(read(client))


HOSTILE = {
    "gzip": (HEAD + b"Content-Encoding: gzip\r\nConnection: close\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00", 415),
    "two hosts": (b"GET /samples HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n", 400),
    "no host": (b"GET /samples HTTP/1.1\r\nConnection: close\r\n\r\n", 400),
    "1 MB of headers": (b"GET /samples HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 1_000_000 + b"\r\n\r\n", 431),
    "declared too long": (HEAD + b"Content-Length: 99999999\r\nConnection: close\r\n\r\n{}", 413),
}


def test_a_hostile_request_gets_the_status_for_its_fault(server, history):
    """415, 400, 431 or 413."""
    with normal_requests(server, history):
        for _ in repeat_for():
            found = {name: statuses(send_and_read(server, sent)) for name, (sent, _) in HOSTILE.items()}
            assert {name: [status] for name, (_, status) in HOSTILE.items()} == found


def test_an_ambiguous_request_smuggles_no_second_request(server, history):
    """It is refused, and the creation that follows it on the connection is not carried out."""
    body = b'{"name":"smuggled"}'
    follower = HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    # A sample of that name would be a row that no request wrote, and fail the history's check.
    with normal_requests(server, history):
        for _ in repeat_for():
            for name, sent in AMBIGUOUS.items():
                found = statuses(send_and_read(server, sent.replace(b"POST / ", b"POST /samples ") + follower))
                assert len(found) == 1, name
                assert 400 <= found[0] < 500, name
