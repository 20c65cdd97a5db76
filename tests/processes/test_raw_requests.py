"""Requests that few HTTP clients send, as bytes to the real service."""

import json

import pytest

from tests.processes.raw import send_and_read, statuses
from tests.processes.scrape import scrape, total
from tests.processes.server import eventually, service

ANSWERED_AS_PROBLEMS = {
    "a path that is not UTF-8": (b"GET /samples/%ff HTTP/1.1\r\nHost: a\r\n\r\n", "malformed_path"),
    "a URL as target": (b"GET http://other/samples HTTP/1.1\r\nHost: a\r\n\r\n", "malformed_path"),
    "an asterisk as target": (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "malformed_path"),
    "no Host": (b"GET /samples HTTP/1.1\r\nConnection: close\r\n\r\n", "bad_host"),
    "two Hosts": (b"GET /samples HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n", "bad_host"),
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
