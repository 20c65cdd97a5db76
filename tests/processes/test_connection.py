import contextlib
import os
import re
import select
import socket
import struct
import threading
import time

import psutil
import pytest

from tests.processes.load import load
from tests.processes.raw import AMBIGUOUS, CHUNKED, POST, connect, read, send_and_read, statuses
from tests.processes.server import PLAIN, Server, eventually

GET = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n"


def read_answer(client: socket.socket) -> bytes:
    """One answer on a connection that is kept."""
    received = client.recv(65536)
    while b"headers=" not in received:
        received += client.recv(65536)
    return received


@pytest.mark.parametrize("sent", AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
def test_an_ambiguous_request_is_refused(short_timeouts, sent):
    """It gets one answer, 400, and what follows on the connection is not handled as a request."""
    received = send_and_read(short_timeouts, sent + GET)

    assert [400] == statuses(received)
    assert b"connection: close" in received
    assert b"evil" not in received


@pytest.mark.parametrize("version", [b"HTTP/0.9", b"HTTP/2.0", b"HTTP/3.0", b"HTTP/9.9"])
def test_other_versions_than_1_0_and_1_1_are_refused(short_timeouts, version):
    """The answer is 505."""
    assert [505] == statuses(send_and_read(short_timeouts, b"GET / " + version + b"\r\nHost: a\r\n\r\n"))


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
def test_a_head_of_more_than_64_kib_or_100_fields_is_refused(short_timeouts, head, status):
    """The answer is 431, and a client that is still sending receives it."""
    received = send_and_read(short_timeouts, b"GET / HTTP/1.1\r\nHost: a\r\n" + head + b"\r\n\r\n")

    assert [status] == statuses(received)


def test_a_target_of_more_than_8_kib_is_refused(short_timeouts):
    """The answer is 414."""
    assert [414] == statuses(send_and_read(short_timeouts, b"GET /" + b"x" * 9_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n"))
    assert [414] == statuses(send_and_read(short_timeouts, b"GET /" + b"x" * 900_000))
    assert [200] == statuses(send_and_read(short_timeouts, b"GET /" + b"x" * 8_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n"))


@pytest.mark.parametrize(
    "sent",
    [
        b"G",
        b"GET / HTTP/1.1\r\nHost: a\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ],
    ids=["one letter", "half a head", "half a body", "half the chunks"],
)
def test_an_incomplete_request_is_answered_408_after_the_timeout(short_timeouts, sent):
    """The timeout is REQUEST_RECEIVE_SECONDS, counted from the request's first byte."""
    began = time.monotonic()
    received = send_and_read(short_timeouts, sent)

    assert [408] == statuses(received)
    assert 0.9 < time.monotonic() - began < 2


def test_further_bytes_do_not_extend_the_timeout(short_timeouts):
    """A client that sends one byte every 0.1 s is answered 408 as early as one that sends nothing more."""
    with connect(short_timeouts) as client:
        began = time.monotonic()
        with contextlib.suppress(OSError):
            for letter in b"GET / HTTP/1.1\r\nHost: " + b"a" * 100:
                client.sendall(bytes([letter]))
                time.sleep(0.1)
                if time.monotonic() - began > 2.2:
                    break
        assert [408] == statuses(read(client))


@pytest.mark.parametrize("sent", [b"", b"\r\n\r\n"])
def test_a_new_connection_without_a_request_is_closed(short_timeouts, sent):
    """After REQUEST_RECEIVE_SECONDS it is closed without an answer."""
    began = time.monotonic()

    assert b"" == send_and_read(short_timeouts, sent)
    assert 0.9 < time.monotonic() - began < 2


def test_an_idle_connection_is_closed_after_keep_alive_seconds(short_timeouts):
    """The time begins with the end of the last answer."""
    began = time.monotonic()

    assert [200] == statuses(send_and_read(short_timeouts, GET))
    assert 0.4 < time.monotonic() - began < 1.5


def test_300_slow_clients_do_not_delay_other_clients(short_timeouts):
    """The slow clients are answered 408 after the timeout, and no other request fails."""
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(connect(short_timeouts)) for _ in range(300)]
        for client in slow:
            client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
        with load(short_timeouts.port, rate=200, kept=5, fresh=5) as report:
            time.sleep(1)
            received = [read(client) for client in slow]

    assert [] == report.failures()
    assert 300 == sum(statuses(answer) == [408] for answer in received)


def test_pipelined_requests_are_answered_in_order(short_timeouts):
    """Several requests in one packet have their answers in the same order."""
    sent = b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % n for n in range(10))

    assert [f"/{n}".encode() for n in range(10)] == re.findall(rb"path=(/\d+)", send_and_read(short_timeouts, sent))


def test_too_many_pipelined_requests_are_refused(short_timeouts):
    """The requests before the limit are answered. Then comes 429, and the connection closes."""
    received = statuses(send_and_read(short_timeouts, GET * 1_000))

    assert [200] * (len(received) - 1) + [429] == received
    assert len(received) < 30


def test_a_refusal_is_sent_after_the_answers_to_earlier_requests(short_timeouts):
    """The 400 for garbage behind a slow request comes after the answer to that request."""
    received = send_and_read(short_timeouts, b"GET /?sleep=0.3 HTTP/1.1\r\nHost: a\r\n\r\nGARBAGE\r\n\r\n")

    assert [200, 400] == statuses(received)


def test_a_trailer_is_not_added_to_the_headers(short_timeouts):
    """The trailer of a chunked body is dropped, because no proxy has checked it."""
    sent = POST + CHUNKED + b"\r\n1\r\nx\r\n0\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n"

    assert b"headers=2" in send_and_read(short_timeouts, sent)


def test_an_endless_trailer_is_refused(short_timeouts):
    """After a mebibyte the answer is 413, or the connection is reset, and the server keeps serving."""
    with connect(short_timeouts) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ")
        with contextlib.suppress(OSError):
            for _ in range(100):
                client.sendall(b"x" * 65536)
        assert set(statuses(read(client))) <= {413}
    assert [200] == statuses(send_and_read(short_timeouts, GET))


def test_an_upgrade_header_is_ignored(short_timeouts):
    """The request is answered as without the header, and its body is not handled as a second request."""
    head = (
        b"POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAAA\r\n"
    )
    received = send_and_read(short_timeouts, head + b"Content-Length: %d\r\n\r\n" % len(GET) + GET)

    assert [200] == statuses(received)
    assert b"body=%d\n" % len(GET) in received
    assert b"path=/\n" in received


def test_a_client_that_is_still_sending_receives_an_early_answer(short_timeouts):
    """The rest of the body is discarded, whether the connection is kept or closed."""
    for connection in (b"keep-alive", b"close"):
        head = b"POST /?early=1 HTTP/1.1\r\nHost: a\r\nConnection: %s\r\nContent-Length: 900000\r\n\r\n" % connection
        with connect(short_timeouts) as client:
            client.sendall(head)
            time.sleep(0.2)
            client.sendall(b"x" * 900_000 + (GET if connection == b"keep-alive" else b""))
            received = statuses(read(client))
        assert ([413, 200] if connection == b"keep-alive" else [413]) == received


def test_an_endless_body_is_cut_off_after_its_answer(short_timeouts):
    """At most a mebibyte is read and discarded. Then the connection is closed."""
    with connect(short_timeouts) as client:
        client.sendall(b"POST /?early=1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        sent = 0
        with contextlib.suppress(OSError):
            while sent < 200_000_000:
                client.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
                sent += 65536
    assert sent < 50_000_000


def test_a_client_that_does_not_read_its_answer_is_cut_off(short_timeouts):
    """If it reads nothing for REQUEST_RECEIVE_SECONDS, the connection is aborted."""
    (pid,) = short_timeouts.workers()
    with connect(short_timeouts) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(b"GET /?size=50000000 HTTP/1.1\r\nHost: a\r\n\r\n")
        port = client.getsockname()[1]

        def is_open() -> bool:
            return any(port in c.raddr for c in psutil.Process(pid).net_connections("tcp"))

        eventually(is_open, seconds=1, what="a connection")
        eventually(lambda: not is_open(), seconds=5, what="no connection")


def test_a_slow_reader_gets_its_complete_answer(short_timeouts):
    """It may take longer than REQUEST_RECEIVE_SECONDS in total, as long as it keeps reading."""
    with connect(short_timeouts) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.sendall(b"GET /?size=8000000 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        received = 0
        while count := len(client.recv(65536)):
            received += count
            time.sleep(0.02)
    assert received > 8_000_000


def test_connections_that_clients_reset_write_no_log_line(short_timeouts):
    """200 clients reset their connection at once, before or after their request. The server keeps serving."""
    before = short_timeouts.output()
    for number in range(200):
        with connect(short_timeouts) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if number % 2:
                client.sendall(GET)
    assert [200] == statuses(send_and_read(short_timeouts, GET))
    assert before == short_timeouts.output()


def connections(server: Server) -> int:
    """How many connections the worker has open."""
    (pid,) = server.workers()
    return sum(c.status == "ESTABLISHED" for c in psutil.Process(pid).net_connections("tcp"))


def test_clients_that_pipeline_and_read_nothing_are_cut_off(short_timeouts):
    """Neither more requests nor a byte that is no request extend the timeout, and the second page is not made."""
    page = b"GET /?size=4000000 HTTP/1.1\r\nHost: a\r\n\r\n"
    eventually(lambda: connections(short_timeouts) == 0, seconds=5, what="no connection")
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(short_timeouts)) for _ in range(20)]
        for client in clients:
            client.sendall(page * 2)
        for client in clients:
            assert select.select([client], [], [], 8)[0], "no answer"
            with contextlib.suppress(OSError):  # on a slow machine the timeout has passed
                client.sendall(b"\0")
        eventually(lambda: connections(short_timeouts) == 0, seconds=6, what="no connection")


def test_a_client_that_closes_its_sending_side_receives_its_answers(short_timeouts):
    """It gets the answers to its complete requests, and 400 for half a request. The last says `Connection: close`."""
    for last, status in ((b"", 200), (GET[:20], 400), (POST + b"Content-Length: 9\r\n\r\nabc", 400)):
        with connect(short_timeouts) as client:
            client.sendall(b"GET /?sleep=0.3 HTTP/1.1\r\nHost: a\r\n\r\n" + GET + last)
            client.shutdown(socket.SHUT_WR)
            received = read(client)
        assert [200, 200] + ([] if status == 200 else [400]) == statuses(received)
        assert 1 == received.count(b"connection: close")


def test_a_response_without_length_to_http_1_0_ends_with_the_connection(short_timeouts):
    """HTTP/1.0 has no chunks. By HTTP/1.1 the same response is chunked."""
    received = send_and_read(short_timeouts, b"GET /?size=5&unknown_length=1 HTTP/1.0\r\n\r\n")
    chunked = send_and_read(short_timeouts, b"GET /?size=5&unknown_length=1 HTTP/1.1\r\nHost: a\r\n\r\n")

    assert received.endswith(b"\r\n\r\nxxxxx")
    assert b"transfer-encoding" not in received
    assert chunked.endswith(b"\r\n\r\n5\r\nxxxxx\r\n0\r\n\r\n")


def test_a_client_that_waits_for_100_continue_gets_it_once(short_timeouts):
    """It comes before the body, and after the answer to the request before."""
    head = POST + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    with connect(short_timeouts) as client:
        client.sendall(b"GET /?sleep=0.3 HTTP/1.1\r\nHost: a\r\n\r\n" + head)
        received = b""
        while b"100 Continue\r\n\r\n" not in received:
            received += client.recv(65536)
        assert [200, 100] == statuses(received)
        client.sendall(b"abc")
        received = read(client)
    assert [200] == statuses(received)
    assert b"body=3\n" in received


def test_white_space_around_a_header_value_is_no_part_of_it(short_timeouts):
    """Spaces and tabs before and after a value are dropped."""
    received = send_and_read(short_timeouts, b"POST / HTTP/1.1\r\nHost: \t a \t\r\nContent-Length:\t3 \t\r\n\r\nabc")

    assert [200] == statuses(received)
    assert b"body=3\n" in received


def test_a_draining_worker_answers_with_connection_close():
    """This holds for kept and for new connections, and the application finds `draining` in its state."""
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


def test_an_idle_connection_delays_the_shutdown_by_two_seconds():
    """A client that never uses its connection again does not delay it longer."""
    with Server(app=PLAIN, environment={"WEB_CONCURRENCY": "1"}) as server:
        server.serving()
        with connect(server) as idle:
            idle.sendall(GET)
            read_answer(idle)
            began = time.monotonic()
            assert 0 == server.stop()
        assert time.monotonic() - began < 4
