"""Requests that few HTTP clients send, as bytes to the real service."""

import json
import re
import socket
import struct
import time

import psycopg
import pytest

from tests.processes.raw import CHUNKED, connect, read, send_and_read, statuses
from tests.processes.scrape import Samples, scrape, total
from tests.processes.server import Server, eventually, service

ANSWERED_AS_PROBLEMS = {
    "a path that is not UTF-8": (b"GET /samples/%ff HTTP/1.1\r\nHost: a\r\n\r\n", "malformed_path"),
    "a URL of another scheme": (b"GET ftp://other/samples HTTP/1.1\r\nHost: a\r\n\r\n", "malformed_path"),
    "an asterisk as target": (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "malformed_path"),
    "no Host": (b"GET /samples HTTP/1.1\r\nConnection: close\r\n\r\n", "bad_host"),
    "two Hosts": (b"GET /samples HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n", "bad_host"),
    "a URL, and no Host": (b"GET http://a/samples HTTP/1.1\r\nConnection: close\r\n\r\n", "bad_host"),
}


@pytest.mark.parametrize(("sent", "code"), ANSWERED_AS_PROBLEMS.values(), ids=ANSWERED_AS_PROBLEMS.keys())
def test_a_malformed_request_is_answered_with_a_problem(database_url, sent, code):
    """The 400 is a problem document with the request's id. It has a log line, and the metrics count it."""
    with service(database_url) as server:
        server.serving()
        head, _, body = send_and_read(server, sent).partition(b"\r\n\r\n")
        eventually(lambda: "request_served" in server.output(), seconds=3, what="the log line")
        samples = scrape(server.port)
        records = [json.loads(line) for line in server.output().splitlines()]

    problem = json.loads(body)
    assert [400] == statuses(head)
    assert b"content-type: application/problem+json" in head
    assert b"connection: close" in head
    assert f"x-request-id: {problem['request_id']}".encode() in head
    assert code == problem["code"]
    assert [(400, problem["request_id"])] == [
        (record["status"], record["request_id"]) for record in records if record["event"] == "request_served"
    ]
    assert 1 == total(samples, "http_requests_total", {"status": "400"})


def test_http_1_0_needs_no_host(database_url):
    """The health checks of HAProxy, Nagios and keepalived, which send no Host header, are answered 200."""
    with service(database_url) as server:
        server.serving()
        for sent in (b"GET /health HTTP/1.0\r\n\r\n", b"OPTIONS /health HTTP/1.0\r\n\r\n", b"HEAD / HTTP/1.0\r\n\r\n"):
            expected = 405 if sent.startswith(b"OPTIONS") else 200
            assert [expected] == statuses(send_and_read(server, sent))
        assert [400] == statuses(send_and_read(server, b"GET /health HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"))


def test_the_target_may_be_a_url(database_url):
    """Its host is the one that is checked, and its path the one that is served, logged and counted (RFC 9112)."""
    with service(database_url, ALLOWED_HOSTS="service.example") as server:
        server.serving()
        found = [
            statuses(send_and_read(server, b"GET http://%s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % sent))
            for sent in (
                (b"service.example/samples?per_page=1", b"other.example"),
                (b"other.example/samples?per_page=1", b"service.example"),
                (b"service.example:8000", b"service.example"),
            )
        ]
        old = send_and_read(server, b"GET http://other.example/samples HTTP/1.0\r\n\r\n")
        eventually(lambda: len(served(server)) == 4, seconds=3, what="the log lines")
        samples = scrape(server.port)
        records = [json.loads(line) for line in server.output().splitlines()]

    assert [[200], [400], [200]] == found
    assert [400] == statuses(old)
    paths = [record["path"] for record in records if record["event"] == "request_served"]
    assert ["/samples", "/samples", "/", "/samples"] == paths[:4]
    assert 1 == total(samples, "http_requests_total", {"handler": "/samples", "status": "200"})


def answer_ids(received: bytes) -> list[str]:
    """The `X-Request-ID` of each answer."""
    return [value.decode() for value in re.findall(rb"x-request-id: (\S+)", received)]


def served(server: Server) -> list[tuple[int, str]]:
    """Status and request id of each `request_served`, except those of scrapes."""
    records = [json.loads(line) for line in server.output().splitlines()]
    return [(r["status"], r["request_id"]) for r in records if r["event"] == "request_served"]


def failures(samples: Samples) -> float:
    """The answers with a status of 5xx."""
    return sum(value for (_, labels), value in samples.items() if dict(labels).get("status", "").startswith("5"))


DELETE = b"DELETE /samples/1?permanent=true HTTP/1.1\r\nHost: a\r\n"
LONG_CHUNK = b"11170\r\n" + b"x" * 70_000 + b"\r\n"

INCOMPLETE: dict[str, tuple[list[bytes | None], int]] = {
    "a bad chunk": ([CHUNKED + b"\r\n3\r\nabc\r\nZ\r\n"], 400),
    "a bad chunk in a later packet": ([CHUNKED + b"\r\n3\r\nabc\r\n", b"Z\r\n"], 400),
    "a bad chunk after 64 KiB": ([CHUNKED + b"\r\n" + LONG_CHUNK, b"Z\r\n"], 400),
    "a bad chunk after 100": ([b"Expect: 100-continue\r\n" + CHUNKED + b"\r\n", b"Z\r\n"], 400),
    "a body that never arrives": ([b"Content-Length: 9\r\n\r\nabc"], 408),
    "a long body that never arrives": ([b"Content-Length: 70000\r\n\r\nabc"], 408),
    "an end before the body": ([b"Content-Length: 9\r\n\r\nabc", None], 400),
    "an end before a long body": ([b"Content-Length: 70000\r\n\r\nabc", None], 400),
    "a body that is declared too long": ([b"Content-Length: 200000\r\nConnection: close\r\n\r\n"], 413),
}


@pytest.mark.parametrize("framing", ["declared", "chunked"])
@pytest.mark.parametrize("limit", [1000, 70_000])
def test_a_body_above_the_limit_is_refused_however_it_arrives(database_url, framing, limit):
    """The answer is 413 also if the body arrives in one piece with the head, and the endpoint needs none."""
    body = b"x" * (limit + 1)
    sent = b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    if framing == "chunked":
        sent = CHUNKED + b"\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    with service(database_url, MAX_BODY_BYTES=str(limit)) as server:
        server.serving()
        for head in (DELETE, b"GET /health HTTP/1.1\r\nHost: a\r\n"):
            assert [413] == statuses(send_and_read(server, head + b"Connection: close\r\n" + sent))


def test_a_refused_request_is_not_executed(database_url):
    """It has one answer, one log line and one count, with the same status, and the item is still there."""
    with service(database_url, REQUEST_RECEIVE_SECONDS="1", MAX_BODY_BYTES="100000") as server:
        server.serving()
        body = b'{"name":"kept"}'
        head = b"POST /samples HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/json\r\n"
        assert [201] == statuses(send_and_read(server, head + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)))
        expected = []
        for name, (packets, status) in INCOMPLETE.items():
            with connect(server) as client:
                client.sendall(DELETE)
                for packet in packets:
                    time.sleep(0.1)
                    if packet is None:
                        client.shutdown(socket.SHUT_WR)
                    else:
                        client.sendall(packet)
                received = read(client)
            assert [status] == [found for found in statuses(received) if found != 100], name
            assert b"application/problem+json" in received, name
            expected.append((status, answer_ids(received)[0]))
        with connect(server) as client:
            client.sendall(DELETE + b"X-Request-ID: gone\r\nContent-Length: 9\r\n\r\nabc")
            time.sleep(0.2)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        eventually(lambda: len(served(server)) == len(expected) + 2, seconds=3, what="the line of the lost request")
        expected.append((499, "gone"))
        assert [200] == statuses(send_and_read(server, b"GET /samples/1 HTTP/1.0\r\n\r\n"))
        eventually(lambda: len(served(server)) == len(expected) + 2, seconds=3, what="the log lines")
        samples, lines = scrape(server.port), served(server)

    assert expected == lines[1:-1]
    for status in (400, 408, 413, 499):
        assert sum(found == status for found, _ in expected) == total(
            samples, "http_requests_total", {"status": str(status)}
        )
    assert 0 == total(samples, "http_requests_total", {"method": "DELETE", "status": "204"})


REFUSED = {
    "no request": (b"\0", 400),
    "half a head": (b"GET /samples HTTP/1.1\r\nX-Request-ID: mine\r\nX:", 408),
    "a long target": (b"GET /" + b"x" * 9_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
    "many pipelined requests": (b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n" * 40, 429),
    "a long head": (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", 431),
    "another version": (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
}


def test_what_the_parser_refuses_is_logged_and_counted(database_url):
    """Each refusal has a request id, a line and a count. A connection without a request has none of them."""
    with service(database_url, REQUEST_RECEIVE_SECONDS="1") as server:
        server.serving()
        expected = []
        for name, (sent, status) in REFUSED.items():
            received = send_and_read(server, sent)
            assert status == statuses(received)[-1], name
            last = received[received.rindex(b"HTTP/1.1 ") :]
            assert b"\r\ncache-control: no-store\r\n" in last, name
            assert b"\r\nx-content-type-options: nosniff\r\n" in last, name
            expected.append((status, answer_ids(last)[0]))
        assert b"" == send_and_read(server, b"")
        eventually(lambda: len(served(server)) == len(expected), seconds=3, what="the log lines")
        samples, lines = scrape(server.port), served(server)
        output = server.output()

    assert expected == lines
    assert (408, "mine") in expected
    for _, status in REFUSED.values():
        assert 1 == total(samples, "http_requests_total", {"handler": "none", "status": str(status)})
    assert "request_failed" not in output
    assert "request_crashed" not in output


def test_clients_that_reset_cause_no_error(database_url):
    """Pipelined requests and `Expect: 100-continue` with a malformed body: no 5xx, and no traceback."""
    body = b'{"name":"written"}'
    head = b"POST /samples HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    create = head + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    bad = head + b"Expect: 100-continue\r\n" + CHUNKED + b"\r\nZ\r\n"
    with service(database_url) as server:
        server.serving()
        for number in range(60):
            with connect(server) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.sendall((create * 2, create + bad, bad)[number % 3])
                time.sleep(0.001 * (number % 4))
        assert [200] == statuses(send_and_read(server, b"GET /health HTTP/1.0\r\n\r\n"))
        eventually(lambda: total(scrape(server.port), "http_requests_inprogress") <= 1, seconds=3, what="no request")
        samples = scrape(server.port)
        output = server.output()

    assert 0 == failures(samples)
    assert total(samples, "http_requests_total", {"status": "201"}) > 0
    assert "Traceback" not in output
    assert "request_crashed" not in output


def waiting_statements(url: str) -> int:
    """How many statements wait for a lock."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'").fetchone()
    return int(row[0]) if row else 0


def test_the_statement_of_a_vanished_reader_is_cancelled(database_url):
    """Whether the client resets or closes. A read is logged and counted as 499. A write is not cancelled."""
    body = b'{"name":"written"}'
    write = b"POST /samples HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    write += b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    get = b"GET /samples/9 HTTP/1.1\r\nHost: a\r\n\r\n"
    running = service(database_url, DATABASE_STATEMENT_SECONDS="30", DATABASE_CONNECTIONS="10")
    with running as server, psycopg.connect(database_url) as other:
        server.serving()
        other.execute("LOCK TABLE samples IN ACCESS EXCLUSIVE MODE")
        with connect(server) as half_closed:
            with connect(server) as resetting, connect(server) as closing, connect(server) as writer:
                for client, sent in ((resetting, get), (closing, get), (writer, write), (half_closed, get)):
                    client.sendall(sent)
                eventually(lambda: waiting_statements(database_url) == 4, seconds=8, what="four statements")
                half_closed.shutdown(socket.SHUT_WR)
                resetting.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            eventually(lambda: waiting_statements(database_url) == 2, seconds=8, what="the write and one read")
            eventually(lambda: len(served(server)) == 2, seconds=3, what="the log lines")
            assert [499, 499] == [status for status, _ in served(server)]
            other.rollback()
            assert [404] == statuses(read(half_closed))
        eventually(lambda: waiting_statements(database_url) == 0, seconds=8, what="no statement")
        samples = scrape(server.port)
        output = server.output()

    assert 2 == total(samples, "http_requests_total", {"method": "GET", "status": "499"})
    assert 0 == failures(samples)
    assert "request_failed" not in output
    assert "Traceback" not in output
