"""Exports from a real server: clients that read slowly, statements that fail, and workers that drain."""

import http.client
import json
import signal
import socket
import time

import psutil
import pytest

from app.http.streams import MAX_STREAMS_OF_CLIENT
from tests.cluster import as_role, execute, locked
from tests.processes.scrape import fetch, scrape, total
from tests.processes.server import Server, eventually, service

COUNT = 4000
"""Items of eight kilobytes each: many times more than the buffers of a connection hold."""

FILL = f"INSERT INTO items (name, description) SELECT 'Kettle', repeat('x', 8000) FROM generate_series(1, {COUNT})"


def two_connections(url: str) -> Server:
    """A server whose worker has two connections. One client alone may use one of them."""
    return service(url, DATABASE_CONNECTIONS="2", DATABASE_STATEMENT_SECONDS="2")


@pytest.fixture
def filled_url(database_url: str) -> str:
    """A database with COUNT items."""
    execute(as_role(database_url, "postgres"), FILL)
    return database_url


class Export:
    """One export over a connection that takes little in advance."""

    def __init__(self, server: Server, query: str = "") -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        self._connection.sock = socket.socket()
        self._connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        self._connection.sock.settimeout(30)
        self._connection.sock.connect(("127.0.0.1", server.port))
        self._connection.request("GET", f"/items/export{query}")
        self._response = self._connection.getresponse()
        assert 200 == self._response.status
        self.body = b""
        self.is_complete = False

    def read(self, size: int) -> None:
        """Read so many bytes."""
        self.body += self._response.read(size)

    def read_all(self) -> None:
        """Read until the body or the connection ends."""
        try:
            self.body += self._response.read()
            self.is_complete = True
        except http.client.IncompleteRead as cut:
            self.body += cut.partial

    def close(self) -> None:
        """Disconnect."""
        self._response.close()
        self._connection.close()

    @property
    def ids(self) -> list[int]:
        """The ids of the items. Each line is a whole item, also the last one."""
        return [json.loads(line)["id"] for line in self.body.split(b"\n") if line]


def statements(server: Server) -> float:
    """How many statements the exports have run, as far as they have been sampled."""
    labels = {"statement": "export_items"}
    return total(scrape(server.port), "database_statement_duration_seconds_count", labels)


def events(server: Server, event: str) -> list[dict[str, object]]:
    """The log lines with this event."""
    lines = [json.loads(line) for line in server.output().splitlines()]
    return [line for line in lines if line["event"] == event]


def test_a_slow_reader_holds_no_connection(filled_url):
    """Beside a client that reads a byte at a time, a pool of two connections serves others, and no memory is used.

    When the client reads on, it gets all items.
    """
    with two_connections(filled_url) as server:
        server.serving()
        assert 200 == fetch(server.port, "/items/1")[0]
        worker = psutil.Process(server.workers()[0])
        before = worker.memory_info().rss
        export = Export(server)
        for number in range(20):
            export.read(1)
            assert 200 == fetch(server.port, f"/items/{number + 1}")[0]
            time.sleep(0.1)

        samples = scrape(server.port)
        assert 2 == total(samples, "database_pool_size")
        assert 0 == total(samples, "database_pool_in_use")
        assert 1 <= statements(server) <= 4
        assert worker.memory_info().rss - before < 8 * 1024 * 1024
        export.read_all()
        export.close()

        assert export.is_complete
        assert list(range(1, COUNT + 1)) == export.ids


def assert_cut(export: Export) -> None:
    """The body has ended behind an item, without a newline and without the end of a chunked body."""
    assert not export.is_complete
    assert b"}" == export.body[-1:]


def test_an_export_of_a_worker_that_drains_ends_visibly(filled_url):
    """Its body ends behind an item, and the server in time. A client that disconnects frees what its export used."""
    with two_connections(filled_url) as server:
        server.serving()
        gone = [Export(server) for _ in range(MAX_STREAMS_OF_CLIENT)]
        assert 503 == fetch(server.port, "/items/export")[0]
        for export in gone:
            export.close()
        eventually(lambda: 200 == fetch(server.port, f"/items/export?cursor={COUNT}")[0], seconds=10, what="an export")
        draining = Export(server)
        draining.read(1000)
        server.send(signal.SIGTERM)
        eventually(lambda: not server.serving_workers(), seconds=10, what="a worker that drains")
        draining.read_all()
        assert 0 == server.wait(seconds=20)
        draining.close()

        assert_cut(draining)
        assert list(range(1, len(draining.ids) + 1)) == draining.ids
        *codes, last = [(line["code"], line["rows"]) for line in events(server, "stream_cut")]
        assert ["client_disconnected"] * MAX_STREAMS_OF_CLIENT == [code for code, _ in codes]
        assert ("shutting_down", len(draining.ids)) == last
        assert [] == [line for line in server.output().splitlines() if '"level":"error"' in line]


def test_an_export_whose_client_reads_nothing_is_logged_and_counted_as_499(filled_url):
    """The server disconnects the client after REQUEST_RECEIVE_SECONDS."""
    with service(filled_url, REQUEST_RECEIVE_SECONDS="1") as server:
        server.serving()
        export = Export(server)
        eventually(lambda: events(server, "request_served"), seconds=15, what="the log line")
        samples = scrape(server.port)
        export.close()

        [line], [cut] = events(server, "request_served"), events(server, "stream_cut")
        assert (499, "/items/export") == (line["status"], line["route"])
        assert ("client_disconnected", "info") == (cut["code"], cut["level"])
        assert 1 == total(samples, "http_requests_total", {"handler": "/items/export", "status": "499"})


@pytest.mark.slow
def test_an_export_whose_statements_fail_ends_visibly(filled_url):
    """Its body ends behind an item, and the request is logged with the status of the failure. The rest follows."""
    with two_connections(filled_url) as server:
        server.serving()
        failing = Export(server)
        failing.read(1000)
        with locked(as_role(filled_url, "postgres"), "items"):
            failing.read_all()
        rest = Export(server, f"?cursor={failing.ids[-1]}")
        rest.read_all()
        for export in (failing, rest):
            export.close()

        assert_cut(failing)
        assert rest.is_complete
        assert list(range(1, COUNT + 1)) == failing.ids + rest.ids
        [cut] = events(server, "stream_cut")
        assert ("statement_timeout", len(failing.ids)) == (cut["code"], cut["rows"])
        assert 504 in [line["status"] for line in events(server, "request_served")]
        assert [] == events(server, "request_crashed")
