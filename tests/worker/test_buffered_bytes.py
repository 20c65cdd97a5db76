"""How many bytes of requests a connection counts. tests/worker/test_client.py reads from sockets."""

from collections.abc import Iterator

import pytest

from app.state_keys import BODY_KEPT
from tests.worker.fake_connection import LIMITS, FakeServer

UPLOAD = b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n"
REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 1_000 + b"\r\n\r\n"


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """A server with one connection."""
    opened = FakeServer()
    yield opened
    opened.close()


def answer(server: FakeServer) -> None:
    """Let the application answer the request that it has begun, and the client read the response."""
    assert server.running
    server.order(server.running, "answer", 3)
    server.client_reads(1_000)


def test_of_an_upload_as_much_counts_as_is_kept(server):
    """A part that the application has got counts only as far as it may keep it."""
    server.deliver(UPLOAD)
    for _ in range(50):
        server.deliver(b"x" * 100_000)
        assert server.running
        assert len(UPLOAD) + 100_000 <= server.connection.buffered_bytes() <= len(UPLOAD) + 170_000
        server.order(server.running, "read")

    assert len(UPLOAD) + LIMITS.max_body_bytes == server.connection.buffered_bytes()
    assert server.connection.moved_bytes() >= 5_000_000


def test_a_long_body_that_is_kept_counts_completely(server):
    """The application says in the state of the request that it keeps all of it."""
    server.deliver(UPLOAD)
    assert server.running
    server.running.scope["state"][BODY_KEPT] = True
    for _ in range(50):
        server.deliver(b"x" * 100_000)
        server.order(server.running, "read")

    assert len(UPLOAD) + 5_000_000 == server.connection.buffered_bytes()


def test_of_pipelined_requests_those_count_that_wait(server):
    """The ones that were answered do not count, also if another one has waited behind each of them."""
    server.deliver(REQUEST)
    for _ in range(50):
        server.deliver(REQUEST)
        assert 2 * len(REQUEST) == server.connection.buffered_bytes()
        answer(server)

    answer(server)
    assert 0 == server.connection.buffered_bytes()


def test_a_body_after_its_response_does_not_count(server):
    """It is discarded as it arrives."""
    server.deliver(UPLOAD + b"x" * 100_000)
    answer(server)
    server.deliver(b"x" * 100_000)

    assert server.connection.buffered_bytes() <= len(UPLOAD) + 100_000
