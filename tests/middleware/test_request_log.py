import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message, Receive, Scope, Send

from app import logs
from app.middleware.request_log import RequestLog, _trace_id
from tests.log_lines import Lines

pytestmark = pytest.mark.anyio

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


async def test_a_request_is_one_line(lines: Lines):
    """Once a request is over, one line says what it was, how it went, and how long it took."""
    await ask(serve(201, b"four", route="/items/{item_id}"), path="/items/7")

    (line,) = lines()
    assert {
        "event": "request_served",
        "level": "info",
        "method": "GET",
        "route": "/items/{item_id}",
        "path": "/items/7",
        "status": 201,
        "bytes": 4,
        "client": "192.0.2.7",
        "trace_id": None,
    }.items() <= line.items()
    assert 0 <= line["duration_seconds"] < 1


async def test_a_request_without_a_route_is_none(lines: Lines):
    """Unknown paths share one route; a path is cut, and shows no query."""
    await ask(serve(404), path="/" + "a" * 10_000, query_string=b"token=hunter2")

    (line,) = lines()
    assert "none" == line["route"]
    assert 200 == len(line["path"])
    assert "hunter2" not in str(line)


@pytest.mark.parametrize("path", ["/health", "/health/ready", "/metrics"])
async def test_probes_are_logged_at_debug(lines: Lines, path: str):
    """What machines ask every few seconds does not fill the log."""
    await ask(serve(200), path=path)

    assert ["debug"] == [line["level"] for line in lines()]


async def test_nothing_is_written_below_the_level(lines: Lines):
    """With warnings only, a request leaves no line but still has its id."""
    logs.configure("warning", "json", logs.output.descriptor)
    messages = await ask(serve(200))

    assert [] == lines()
    assert header(messages, b"x-request-id")


@pytest.mark.parametrize("given", [b"a", b"A.b_c-9", b"x" * 128])
async def test_a_good_request_id_is_taken(lines: Lines, given: bytes):
    """The caller's id stands in the answer, in the log and in the request's state."""
    seen: list[str] = []
    messages = await ask(serve(200, seen=seen), headers=[(b"x-request-id", given)])

    assert [given] == header(messages, b"x-request-id")
    assert [given.decode()] == seen
    assert [given.decode()] == [line["request_id"] for line in lines()]


@pytest.mark.parametrize("given", [b"", b"x" * 129, b"a b", b"a\n", "ä".encode(), b'"', b"a/b", b"\xff"])
async def test_a_bad_request_id_is_replaced(lines: Lines, given: bytes):
    """What could break a log or a header is not repeated."""
    messages = await ask(serve(200), headers=[(b"x-request-id", given)])

    assert [line["request_id"].encode() for line in lines()] == header(messages, b"x-request-id") != [given]


async def test_made_request_ids_differ(lines: Lines):
    """No two requests share an id."""
    for _ in range(1_000):
        await ask(serve(200))

    assert 1_000 == len({line["request_id"] for line in lines()})


async def test_the_trace_of_a_request_stands_in_its_lines(lines: Lines):
    """A valid traceparent's trace id is on every line inside the request."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        structlog.get_logger().info("item_created")
        await serve(200)(scope, receive, send)

    await ask(app, headers=[(b"traceparent", f"00-{TRACE}-{PARENT}-01".encode())])

    assert [("item_created", TRACE), ("request_served", TRACE)] == [(x["event"], x["trace_id"]) for x in lines()]


async def test_two_traceparents_count_as_none(lines: Lines):
    """It is not known which one is meant."""
    await ask(serve(200), headers=[(b"traceparent", f"00-{TRACE}-{PARENT}-01".encode())] * 2)

    assert [None] == [line["trace_id"] for line in lines()]


@pytest.mark.parametrize(
    ("traceparent", "valid"),
    [
        (f"00-{TRACE}-{PARENT}-00", True),
        (f"cc-{TRACE}-{PARENT}-01-what-the-future-brings", True),
        (f"cc-{TRACE}-{PARENT}-01", True),
        (f"00-{TRACE}-{PARENT}-01-more", False),
        (f"cc-{TRACE}-{PARENT}-01.more", False),
        (f"ff-{TRACE}-{PARENT}-01", False),
        (f"00-{'0' * 32}-{PARENT}-01", False),
        (f"00-{TRACE}-{'0' * 16}-01", False),
        (f"00-{TRACE.upper()}-{PARENT}-01", False),
        (f"00-{TRACE[1:]}-{PARENT}-01", False),
        (f" 00-{TRACE}-{PARENT}-01", False),
        (f"00-{TRACE}-{PARENT}-01\n", False),
        ("", False),
    ],
)
async def test_a_traceparent_is_read_strictly(traceparent: str, valid: bool):
    """As in W3C Trace Context; what is not valid counts as not sent."""
    assert (TRACE if valid else None) == _trace_id(traceparent.encode())


@given(st.binary(max_size=80))
def test_no_traceparent_raises(traceparent: bytes):
    """Any header may come."""
    _trace_id(traceparent)


async def test_a_client_that_has_gone_is_499(lines: Lines):
    """A request whose client left before the answer still leaves its line."""

    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        assert "http.disconnect" == (await receive())["type"]

    await ask(app, receive={"type": "http.disconnect"})

    assert [499] == [line["status"] for line in lines()]


async def test_a_defect_further_out_is_answered_and_logged(lines: Lines):
    """An exception that nothing has answered becomes a 500 with the request's id, told once with its traceback."""

    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise ValueError("broken")

    messages = await ask(app)

    crashed, served = lines()
    assert "ValueError: broken" in crashed["exception"]
    assert crashed["request_id"] == served["request_id"] == orjson.loads(messages[1]["body"])["request_id"]
    assert 500 == served["status"] == messages[0]["status"]


async def test_a_defect_after_the_start_of_an_answer_is_a_500(lines: Lines):
    """Nothing can be answered any more; the line says that it went wrong."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ValueError("broken")

    messages = await ask(app)

    assert ["http.response.start"] == [message["type"] for message in messages]
    assert [("request_crashed", None), ("request_served", 500)] == [(x["event"], x.get("status")) for x in lines()]


async def test_an_unknown_client_is_no_failure(lines: Lines):
    """The address is missing when a client reset its connection before it was accepted."""
    await ask(serve(200), client=None)

    assert [None] == [line["client"] for line in lines()]


async def test_no_secret_of_a_request_is_logged(lines: Lines):
    """Headers, query and body of a request stand in no line, not even when it crashes."""

    async def app(scope: Scope, receive: Receive, _send: Send) -> None:
        await receive()
        logging.getLogger("library").warning("headers: %s", scope["headers"])
        raise OSError("postgresql://items:hunter2@db:5432/items is out of reach")

    await ask(
        app,
        headers=[
            (b"authorization", b"Bearer hunter2"),
            (b"cookie", b"a=b; session=hunter2"),
            (b"x-api-key", b"hunter2"),
        ],
        query_string=b"password=hunter2",
        receive={"type": "http.request", "body": b'{"name": "hunter2"}'},
    )

    found = lines()
    assert 3 == len(found)
    assert "hunter2" not in str(found)


async def test_what_is_not_http_passes(lines: Lines):
    """The lifespan is not a request."""
    seen = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        seen.append(scope["type"])

    await ask(app, type="lifespan")

    assert ["lifespan"] == seen
    assert [] == lines()


def serve(status: int, body: bytes = b"", route: str | None = None, seen: list[str] | None = None) -> Any:
    """An application that answers this, whatever it is asked."""

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        if route is not None:
            scope["route"] = SimpleNamespace(path=route)
        if seen is not None:
            seen.append(scope["state"]["request_id"])
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": body[:1], "more_body": True})
        await send({"type": "http.response.body", "body": body[1:]})

    return app


async def ask(app: Callable[..., Any], receive: Message | None = None, **scope: Any) -> list[Message]:
    """What the application sends through `RequestLog`."""
    messages: list[Message] = []

    async def give() -> Message:
        assert receive is not None
        return receive

    async def take(message: Message) -> None:
        messages.append(message)

    request = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "query_string": b"",
        "headers": [],
        "client": ("192.0.2.7", 1),
    }
    await RequestLog(app)({**request, **scope}, give, take)
    return messages


def header(messages: list[Message], name: bytes) -> list[bytes]:
    """The values of one header of the answer."""
    return [value for key, value in messages[0]["headers"] if key == name]
