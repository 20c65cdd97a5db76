import contextlib
import os
import re
import socket
import struct
import threading
import time

import psutil
import pytest

from tests.processes.load import load
from tests.processes.raw import AMBIGUOUS, CHUNKED, POST, connect, read, statuses, talk
from tests.processes.server import PLAIN, Server, eventually

GET = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n"


def read_answer(client: socket.socket) -> bytes:
    """One answer on a connection that stays."""
    received = client.recv(65536)
    while b"headers=" not in received:
        received += client.recv(65536)
    return received


@pytest.mark.parametrize("sent", AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
def test_what_could_be_read_in_two_ways_is_refused(impatient, sent):
    """It is answered 400, once, and nothing that follows on the connection is taken for a request."""
    received = talk(impatient, sent + GET)

    assert [400] == statuses(received)
    assert b"connection: close" in received
    assert b"evil" not in received


@pytest.mark.parametrize("version", [b"HTTP/0.9", b"HTTP/2.0"])
def test_other_versions_are_refused(impatient, version):
    """Only HTTP/1.0 and HTTP/1.1 are spoken here."""
    assert [505] == statuses(talk(impatient, b"GET / " + version + b"\r\nHost: a\r\n\r\n"))


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"X: " + b"x" * 1_000_000, 431),
        (b"X: " + b"x" * 70_000, 431),
        (b"\r\n".join(b"X-%d: x" % n for n in range(20_000)), 431),
        (b"\r\n".join(b"X-%d: x" % n for n in range(100)), 431),
        (b"\r\n".join(b"X-%d: x" % n for n in range(98)), 200),
        (b"X: " + b"x" * 60_000, 200),
    ],
    ids=["1 MB", "70 kB", "20,000", "101", "99", "60 kB"],
)
def test_a_head_is_bounded(impatient, head, status):
    """Past 64 KiB or 100 fields the answer is 431, and it reaches a client that is still sending."""
    received = talk(impatient, b"GET / HTTP/1.1\r\nHost: a\r\n" + head + b"\r\n\r\n")

    assert [status] == statuses(received)


def test_a_target_is_bounded(impatient):
    """Past 8 KiB the answer is 414."""
    assert [414] == statuses(talk(impatient, b"GET /" + b"x" * 9_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n"))
    assert [414] == statuses(talk(impatient, b"GET /" + b"x" * 900_000))
    assert [200] == statuses(talk(impatient, b"GET /" + b"x" * 8_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n"))


@pytest.mark.parametrize(
    "sent",
    [
        b"G",
        b"GET / HTTP/1.1\r\nHost: a\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ],
    ids=["letter", "half a head", "half a body", "half the chunks"],
)
def test_a_request_must_arrive_in_time(impatient, sent):
    """Half a request is answered 408 when its time is over, and its application is told that the client left."""
    began = time.monotonic()
    received = talk(impatient, sent)

    assert [408] == statuses(received)
    assert 0.9 < time.monotonic() - began < 2


def test_a_trickle_does_not_extend_the_time(impatient):
    """One more byte now and then is no reason to wait longer."""
    with connect(impatient) as client:
        began = time.monotonic()
        with contextlib.suppress(OSError):
            for letter in b"GET / HTTP/1.1\r\nHost: " + b"a" * 100:
                client.sendall(bytes([letter]))
                time.sleep(0.1)
                if time.monotonic() - began > 2.2:
                    break
        assert [408] == statuses(read(client))


@pytest.mark.parametrize("sent", [b"", b"\r\n\r\n"])
def test_a_new_connection_must_begin_a_request(impatient, sent):
    """One on which none begins is closed without a word."""
    began = time.monotonic()

    assert b"" == talk(impatient, sent)
    assert 0.9 < time.monotonic() - began < 2


def test_an_idle_connection_has_a_life(impatient):
    """After an answer it is kept for KEEP_ALIVE_SECONDS, then closed."""
    began = time.monotonic()

    assert [200] == statuses(talk(impatient, GET))
    assert 0.4 < time.monotonic() - began < 1.5


def test_slow_clients_do_not_hinder_others(impatient):
    """300 of them are sent away in time while good traffic is answered."""
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(connect(impatient)) for _ in range(300)]
        for client in slow:
            client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
        with load(impatient.port, rate=200, kept=5, fresh=5) as report:
            time.sleep(1)
            received = [read(client) for client in slow]

    assert [] == report.failures()
    assert 300 == sum(statuses(answer) == [408] for answer in received)


def test_pipelined_requests_are_answered_in_order(impatient):
    """Several requests in one packet have their answers in the same order."""
    sent = b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % n for n in range(10))

    assert [f"/{n}".encode() for n in range(10)] == re.findall(rb"path=(/\d+)", talk(impatient, sent))


def test_pipelined_requests_are_bounded(impatient):
    """Past the bound the connection ends after the answers that came before."""
    received = statuses(talk(impatient, GET * 1_000))

    assert [200] * (len(received) - 1) + [429] == received
    assert len(received) < 30


def test_a_refusal_waits_for_the_answers_before_it(impatient):
    """Garbage behind a slow request must not be answered in its place."""
    received = talk(impatient, b"GET /?sleep=0.3 HTTP/1.1\r\nHost: a\r\n\r\nGARBAGE\r\n\r\n")

    assert [200, 400] == statuses(received)


def test_a_trailer_is_no_header(impatient):
    """What follows a chunked body is dropped: no proxy has checked it."""
    sent = POST + CHUNKED + b"\r\n1\r\nx\r\n0\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n"

    assert b"headers=2" in talk(impatient, sent)


def test_endless_framing_is_refused(impatient):
    """A chunked body of nothing but extensions or trailers ends at a bound of its own."""
    with connect(impatient) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ")
        with contextlib.suppress(OSError):
            for _ in range(100):
                client.sendall(b"x" * 65536)
        assert set(statuses(read(client))) <= {413}
    assert [200] == statuses(talk(impatient, GET))


def test_an_upgrade_that_is_not_offered_here_is_ignored(impatient):
    """The request is answered as it stands, and its body is not taken for a second request."""
    head = (
        b"POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAAA\r\n"
    )
    received = talk(impatient, head + b"Content-Length: %d\r\n\r\n" % len(GET) + GET)

    assert [200] == statuses(received)
    assert b"body=%d\n" % len(GET) in received
    assert b"path=/\n" in received


def test_an_early_answer_reaches_a_client_that_is_still_sending(impatient):
    """The rest of the body is read and dropped, on a connection that stays and on one that does not."""
    for connection in (b"keep-alive", b"close"):
        head = b"POST /?early=1 HTTP/1.1\r\nHost: a\r\nConnection: %s\r\nContent-Length: 900000\r\n\r\n" % connection
        with connect(impatient) as client:
            client.sendall(head)
            time.sleep(0.2)
            client.sendall(b"x" * 900_000 + (GET if connection == b"keep-alive" else b""))
            received = statuses(read(client))
        assert ([413, 200] if connection == b"keep-alive" else [413]) == received


def test_a_body_that_nobody_wants_is_bounded(impatient):
    """After its answer at most a mebibyte more is read."""
    with connect(impatient) as client:
        client.sendall(b"POST /?early=1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        sent = 0
        with contextlib.suppress(OSError):
            while sent < 200_000_000:
                client.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
                sent += 65536
    assert sent < 50_000_000


def test_a_client_that_does_not_read_is_cut_off(impatient):
    """An answer of which nothing is taken for REQUEST_RECEIVE_SECONDS is given up, and its memory is free again."""
    (pid,) = impatient.workers()
    with connect(impatient) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(b"GET /?size=50000000 HTTP/1.1\r\nHost: a\r\n\r\n")
        port = client.getsockname()[1]

        def held() -> bool:
            return any(port in c.raddr for c in psutil.Process(pid).net_connections("tcp"))

        eventually(held, seconds=1, what="a connection")
        eventually(lambda: not held(), seconds=5, what="no connection")


def test_a_slow_reader_gets_its_whole_answer(impatient):
    """As long as it takes something, however long the whole takes."""
    with connect(impatient) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.sendall(b"GET /?size=8000000 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        received = 0
        while taken := len(client.recv(65536)):
            received += taken
            time.sleep(0.02)
    assert received > 8_000_000


def test_clients_that_vanish_do_no_harm(impatient):
    """200 clients that reset their connection at once, before or after their request, leave no trace in the log."""
    before = impatient.output()
    for number in range(200):
        with connect(impatient) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if number % 2:
                client.sendall(GET)
    assert [200] == statuses(talk(impatient, GET))
    assert before == impatient.output()


def test_a_drain_is_visible_and_says_goodbye():
    """On a kept connection the next answer of a draining worker says `close`, and its application knows why."""
    with Server(app=PLAIN, environment={"WEB_CONCURRENCY": "1"}) as server:
        server.serving()
        with connect(server) as idle, connect(server) as fresh:
            idle.sendall(GET)
            assert b"draining=False" in read_answer(idle)
            threading.Timer(0.5, lambda: idle.sendall(GET)).start()
            threading.Timer(0.5, lambda: fresh.sendall(GET)).start()
            began = time.monotonic()
            os.kill(server.process.pid, 15)
            for received in (read(idle), read(fresh)):
                assert b"draining=True" in received
                assert b"connection: close" in received
        assert 0 == server.wait(seconds=3)
        assert time.monotonic() - began < 2


def test_a_drain_ends_although_connections_stay_idle():
    """A client that never uses its connection again holds the end up for two seconds."""
    with Server(app=PLAIN, environment={"WEB_CONCURRENCY": "1"}) as server:
        server.serving()
        with connect(server) as idle:
            idle.sendall(GET)
            read_answer(idle)
            began = time.monotonic()
            assert 0 == server.stop()
        assert time.monotonic() - began < 4
