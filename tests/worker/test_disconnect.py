"""What becomes of a request whose client disconnects."""

from types import SimpleNamespace

import pytest

from tests.worker.fake_connection import FakeServer


@pytest.mark.parametrize(
    ("method", "route", "is_cancelled"),
    [
        ("GET", None, True),
        ("GET", SimpleNamespace(is_asynchronous=True), True),
        ("GET", SimpleNamespace(is_asynchronous=False), False),
        ("GET", SimpleNamespace(), False),
        ("POST", SimpleNamespace(is_asynchronous=True), False),
    ],
)
def test_a_request_that_only_reads_is_cancelled_unless_it_may_run_in_a_thread(method, route, is_cancelled):
    """A thread goes on, and a cancelled request gives its place to another thread: there would be no limit."""
    server = FakeServer()
    try:
        server.deliver(f"{method} /teas HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n".encode())
        (handler,) = server.handlers
        if route is not None:
            handler.scope["route"] = route
        server.reset()

        assert is_cancelled is handler.is_cancelled
    finally:
        server.close()
