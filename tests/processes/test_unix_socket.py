"""A server that listens on a Unix socket."""

import contextlib
import json
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes.plain_server import plain
from tests.processes.raw import read, statuses
from tests.processes.server import eventually, service

GET = b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.7\r\nConnection: close\r\n\r\n"


@pytest.fixture
def path() -> Iterator[Path]:
    """The path of a socket. It is short, as the path of a socket has to be."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder, "service.sock")


def ask(path: Path, sent: bytes = GET) -> bytes:
    """The answer to a request through the socket."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        client.sendall(sent)
        return read(client)


@pytest.mark.parametrize(("trusted", "client"), [("127.0.0.1", "203.0.113.7"), ("10.0.0.1", "127.0.0.1")])
def test_the_forwarded_address_of_a_unix_peer_is_used_if_127_0_0_1_is_trusted(database_url, path, trusted, client):
    """A peer on a Unix socket has the address 127.0.0.1, also for FORWARDED_ALLOW_IPS."""
    with service(database_url, HOST=f"unix:{path}", FORWARDED_ALLOW_IPS=trusted) as server:
        server.serving()
        assert [200] == statuses(ask(path))
        server.stop()
        (line,) = [line for line in server.output().splitlines() if '"request_served"' in line]

    assert client == json.loads(line)["client"]


def test_a_reload_and_a_shutdown_lose_no_request_on_a_unix_socket(path):
    """Every request is answered while the server is reloaded. A request in flight at SIGTERM is answered too."""
    received: list[bytes] = []
    stop = threading.Event()

    def send() -> None:
        while not stop.is_set():
            received.append(ask(path))

    with plain(2, HOST=f"unix:{path}") as server:
        server.serving(workers=2)
        sender = threading.Thread(target=send)
        sender.start()
        with contextlib.ExitStack() as stack:
            stack.callback(sender.join, 20)
            stack.callback(stop.set)
            server.reload()
            eventually(lambda: len(received) > 20, seconds=10, what="more than 20 answers")
        slow: list[bytes] = []
        last = threading.Thread(target=lambda: slow.append(ask(path, GET.replace(b"GET /", b"GET /?sleep=1"))))
        last.start()
        eventually(lambda: b"200" in ask(path)[:15], seconds=3, what="an answer")
        assert 0 == server.stop()
        last.join(10)

    assert {(200,)} == {tuple(statuses(answer)) for answer in received}
    assert [[200]] == [statuses(answer) for answer in slow]
    assert not path.exists()


def test_a_socket_in_use_is_refused(path):
    """A second server at the same path ends, and the first one keeps its socket."""
    with plain(1, HOST=f"unix:{path}") as server:
        server.serving()
        with plain(1, HOST=f"unix:{path}") as second:
            assert 1 == second.wait()
            assert f"Error: HOST unix:{path} is used by another running server" in second.output()
        assert [200] == statuses(ask(path))


def test_a_socket_that_a_killed_server_left_is_replaced(path):
    """Nothing listens on it, so the next start can use the path."""
    with plain(1, HOST=f"unix:{path}") as server:
        server.serving()
        server.kill()
    assert path.is_socket()

    with plain(1, HOST=f"unix:{path}") as server:
        server.serving()
        assert [200] == statuses(ask(path))
