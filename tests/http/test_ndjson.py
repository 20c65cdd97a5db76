import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from app.errors import (
    DatabaseUnavailableError,
    InvalidFieldError,
    RequestError,
    StatementTimeoutError,
    StreamsBusyError,
)
from app.http import ndjson
from app.http.ndjson import NdjsonResponse
from app.http.streams import MAX_STREAMS, MAX_STREAMS_OF_CLIENT, Streams
from app.state_keys import CLIENT_DISCONNECTED, DRAINING, FAILURE_CODE, STREAM_BEGAN, STREAM_CUT
from tests.log_lines import reading_lines
from tests.sample.dataclasses import Sample

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 11, 22, tzinfo=UTC)
COUNT = 1200
"""More rows than a piece of the body has."""


@dataclass
class Chunk:
    """Some samples, and where the next ones begin."""

    rows: list[Sample]
    position: int | None


def sample(number: int) -> Sample:
    """A sample with this id."""
    return Sample(number, "Salt", None, 3.5, NOW, NOW)


class Rows:
    """COUNT samples, read in chunks of 500. Reads can fail."""

    def __init__(self) -> None:
        self.failures: dict[int, list[Exception]] = {}
        """What reads after a position raise, one after the other."""
        self.reads: list[int] = []
        self.reading = 0
        self.most_reading = 0

    async def read_after(self, position: int) -> Chunk:
        """The chunk after a position, after a moment."""
        self.reads.append(position)
        self.reading += 1
        self.most_reading = max(self.reading, self.most_reading)
        await asyncio.sleep(0.001)
        self.reading -= 1
        if failures := self.failures.get(position):
            raise failures.pop(0)
        numbers = range(position + 1, min(position + 500, COUNT) + 1)
        return Chunk([sample(number) for number in numbers], numbers[-1] if numbers else None)


@dataclass
class Exchange:
    """One request for a stream, and what was sent."""

    streams: Streams = field(default_factory=Streams)
    method: str = "GET"
    client: str = "192.0.2.1"
    on_send: Callable[[], Any] | None = None
    """Called with each part of the body."""

    state: dict[str, Any] = field(default_factory=dict)
    head: dict[str, Any] | None = None
    body: bytes = b""
    is_complete: bool = False

    async def run(self, rows: Rows, position: int = 0) -> None:
        """Send the rows after a position."""
        app = SimpleNamespace(state=SimpleNamespace(streams=self.streams))
        scope = {"app": app, "state": self.state, "method": self.method, "client": (self.client, 1)}
        await NdjsonResponse(rows.read_after, position=position)(scope, self._receive, self._send)

    async def _receive(self) -> Any:
        raise AssertionError("a stream reads nothing")

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.head = message
            return
        assert not self.is_complete
        if self.on_send is not None and (waiting := self.on_send()) is not None:
            await waiting
        self.body += message["body"]
        self.is_complete = not message.get("more_body", False)

    @property
    def ids(self) -> list[int]:
        """The ids of the rows that were sent. Each line is a whole row."""
        return [orjson.loads(line)["id"] for line in self.body.split(b"\n") if line]


@pytest.fixture
def rows() -> Rows:
    """The samples to stream."""
    return Rows()


async def test_each_row_is_a_line(rows):
    """The rows are sent in order, the last line ends with a newline, and the body ends."""
    exchange = Exchange()
    await exchange.run(rows)

    assert exchange.head
    assert [(b"content-type", b"application/x-ndjson")] == exchange.head["headers"]
    assert list(range(1, COUNT + 1)) == exchange.ids
    assert exchange.body.endswith(b"}\n")
    assert exchange.is_complete
    assert STREAM_BEGAN in exchange.state
    assert STREAM_CUT not in exchange.state


async def test_a_stream_begins_after_a_position(rows):
    """The rows after the position are sent; after the last row there are none, and the body is empty."""
    rest, nothing = Exchange(), Exchange()
    await rest.run(rows, 700)
    await nothing.run(rows, COUNT)

    assert list(range(701, COUNT + 1)) == rest.ids
    assert b"" == nothing.body
    assert nothing.is_complete


async def test_the_answer_to_head_has_no_body_and_reads_once(rows):
    """One statement runs, so that a failure has the same status as with GET."""
    exchange = Exchange(method="HEAD")
    await exchange.run(rows)

    assert exchange.head
    assert b"" == exchange.body
    assert exchange.is_complete
    assert [0] == rows.reads


async def test_a_failure_before_the_first_row_is_raised(rows):
    """Nothing was sent, so it can be answered as any other failure. It is not retried."""
    rows.failures[0] = [DatabaseUnavailableError()]
    exchange = Exchange()

    with pytest.raises(DatabaseUnavailableError):
        await exchange.run(rows)
    assert exchange.head is None
    assert [0] == rows.reads


async def test_a_failure_later_ends_the_body_without_its_newline(rows, monkeypatch):
    """The body ends behind a line and is not complete. The request is counted with the status of the failure."""
    monkeypatch.setattr(ndjson, "MAX_RETRIES", 0)
    rows.failures[500] = [StatementTimeoutError()]
    exchange = Exchange()
    with reading_lines() as lines:
        await exchange.run(rows)
        (line,) = lines()

    assert list(range(1, 501)) == exchange.ids
    assert exchange.body.endswith(b"}")
    assert not exchange.is_complete
    assert (504, "statement_timeout") == (exchange.state[STREAM_CUT], exchange.state[FAILURE_CODE])
    assert ("stream_cut", "warning", "statement_timeout", 500) == tuple(
        line[name] for name in ("event", "level", "code", "rows")
    )


def transient(times: int) -> list[Exception]:
    """Failures that a client may retry at once."""
    error = RequestError("Not now.")
    error.code, error.status, error.retry_after_seconds = "not_now", HTTPStatus.SERVICE_UNAVAILABLE, 0
    return [error] * times


async def test_a_transient_failure_is_retried(rows):
    """The client gets all rows, each once."""
    rows.failures = {500: transient(ndjson.MAX_RETRIES), 1000: transient(1)}
    exchange = Exchange()
    await exchange.run(rows)

    assert list(range(1, COUNT + 1)) == exchange.ids
    assert exchange.is_complete


async def test_a_statement_that_takes_too_long_is_retried(rows, monkeypatch):
    """Its failure does not say when to retry."""
    monkeypatch.setattr(ndjson, "RETRY_SECONDS", 0)
    rows.failures[500] = [StatementTimeoutError()]
    exchange = Exchange()
    await exchange.run(rows)

    assert list(range(1, COUNT + 1)) == exchange.ids


async def test_a_request_that_cannot_succeed_is_not_retried(rows):
    """The stream is cut at once."""
    rows.failures[500] = [InvalidFieldError("q", "too long")]
    exchange = Exchange()
    await exchange.run(rows)

    assert 422 == exchange.state[STREAM_CUT]
    assert 1 == rows.reads.count(500)


async def test_retries_are_bounded(rows):
    """After MAX_RETRIES in a row the stream is cut."""
    rows.failures[500] = transient(ndjson.MAX_RETRIES + 1)
    exchange = Exchange()
    await exchange.run(rows)

    assert list(range(1, 501)) == exchange.ids
    assert 503 == exchange.state[STREAM_CUT]
    assert 1 + ndjson.MAX_RETRIES == rows.reads.count(500)


async def test_draining_ends_a_stream_behind_a_line(rows):
    """Nothing more is read. It is no failure: the status is that of the head. The rest can be asked for."""
    draining = asyncio.Event()
    exchange = Exchange(state={DRAINING: draining}, on_send=draining.set)
    await exchange.run(rows)
    rest = Exchange()
    await rest.run(rows, exchange.ids[-1])

    assert exchange.body.endswith(b"}")
    assert not exchange.is_complete
    assert 200 == exchange.state[STREAM_CUT]
    assert FAILURE_CODE not in exchange.state
    assert list(range(1, COUNT + 1)) == exchange.ids + rest.ids


async def test_a_stream_that_begins_while_draining_makes_progress(rows):
    """It has at least one row."""
    draining = asyncio.Event()
    draining.set()
    exchange = Exchange(state={DRAINING: draining})
    await exchange.run(rows)

    assert exchange.ids
    assert not exchange.is_complete


async def test_the_time_of_a_stream_is_bounded(rows, monkeypatch):
    """A client that reads nothing more cannot keep a stream open."""
    monkeypatch.setattr(ndjson, "MAX_STREAM_SECONDS", 0.05)
    exchange = Exchange(on_send=asyncio.Event().wait)
    await exchange.run(rows)

    assert not exchange.is_complete
    assert 200 == exchange.state[STREAM_CUT]


@pytest.mark.parametrize(
    ("state", "code"), [({CLIENT_DISCONNECTED: True}, "client_disconnected"), ({}, "shutting_down")]
)
async def test_a_stream_that_the_server_cancels_is_logged(rows, state, code):
    """Its client is gone, or takes nothing until the worker ends."""
    exchange = Exchange(state=state, on_send=asyncio.Event().wait)
    running = asyncio.create_task(exchange.run(rows))
    await asyncio.sleep(0.02)
    running.cancel()
    with reading_lines() as lines:
        with pytest.raises(asyncio.CancelledError):
            await running
        (line,) = lines()

    assert ("stream_cut", "info", code, 0) == tuple(line[name] for name in ("event", "level", "code", "rows"))


async def test_nothing_is_read_while_the_client_does_not_read(rows):
    """The next chunk is read when the client has taken the one before."""
    waiting, may_go_on = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        waiting.set()
        await may_go_on.wait()

    exchange = Exchange(on_send=wait)
    running = asyncio.create_task(exchange.run(rows))
    await waiting.wait()
    await asyncio.sleep(0.02)  # more than a read takes
    assert [0] == rows.reads
    may_go_on.set()
    await running

    assert list(range(1, COUNT + 1)) == exchange.ids


async def test_streams_read_one_after_the_other(rows):
    """Together they use one connection, and a client that does not read holds up no other stream."""
    streams = Streams()
    stuck = asyncio.create_task(Exchange(streams, client="stuck", on_send=asyncio.Event().wait).run(rows))
    others = [Exchange(streams, client=f"192.0.2.{number}") for number in range(3)]
    await asyncio.gather(*(exchange.run(rows) for exchange in others))

    assert [list(range(1, COUNT + 1))] * 3 == [exchange.ids for exchange in others]
    assert 1 == rows.most_reading
    assert not stuck.done()
    stuck.cancel()


async def test_the_number_of_streams_is_limited(rows):
    """A client may have two, and all clients together eight. When a client is gone, its stream is not counted."""
    streams = Streams()

    def begin(client: int) -> asyncio.Task[None]:
        exchange = Exchange(streams, client=f"192.0.2.{client}", on_send=asyncio.Event().wait)
        return asyncio.create_task(exchange.run(rows))

    running = [begin(number // MAX_STREAMS_OF_CLIENT) for number in range(MAX_STREAMS)]
    with pytest.raises(StreamsBusyError) as own:
        await begin(0)
    with pytest.raises(StreamsBusyError) as all_clients:
        await begin(99)
    running[0].cancel()
    await asyncio.wait(running[:1])
    admitted = begin(99)
    await asyncio.wait([admitted], timeout=0.01)

    assert ("client_share", "streams_busy") == (own.value.failure_code, all_clients.value.failure_code)
    assert not admitted.done()
    for task in (*running, admitted):
        task.cancel()
