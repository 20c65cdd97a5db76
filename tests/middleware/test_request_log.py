import asyncio
import logging
import os
from collections.abc import Callable, MutableMapping
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message, Receive, Scope, Send

from app import logs
from app.logs.request_fields import OWN_FIELDS
from app.state_keys import CLIENT_DISCONNECTED
from tests.log_lines import Lines
from tests.middleware.parts import lifecycle

pytestmark = pytest.mark.anyio

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


async def test_a_request_writes_one_line(lines: Lines):
    """The line has method, route, path, status, size, client and duration, and names the worker."""
    await request(serve(201, b"four", route="/samples/{sample_id}"), path="/samples/7")

    (line,) = lines()
    assert {
        "event": "request_served",
        "level": "info",
        "method": "GET",
        "route": "/samples/{sample_id}",
        "path": "/samples/7",
        "status": 201,
        "bytes": 4,
        "client": "192.0.2.7",
        "trace_id": None,
        "slot": "0",
        "pid": os.getpid(),
    }.items() <= line.items()
    assert 0 <= line["duration_seconds"] < 1


async def test_the_route_of_an_unknown_path_is_none(lines: Lines):
    """The path is shortened to 200 characters, and the query is not logged."""
    await request(serve(404), path="/" + "a" * 10_000, query_string=b"token=hunter2")

    (line,) = lines()
    assert "none" == line["route"]
    assert 200 == len(line["path"])
    assert "hunter2" not in str(line)


@pytest.mark.parametrize("path", ["/health", "/health/ready", "/metrics"])
async def test_probes_are_logged_at_debug(lines: Lines, path: str):
    """Requests for probes and scrapes are logged at debug."""
    await request(serve(200), path=path)

    assert ["debug"] == [line["level"] for line in lines()]


async def test_no_line_is_written_below_the_level(lines: Lines):
    """At level warning a request writes no line, and still gets its id."""
    logs.configure("warning", "json", logs.output.descriptor)
    messages = await request(serve(200))

    assert [] == lines()
    assert header(messages, b"x-request-id")


async def test_another_renderer_adds_the_level_and_the_time_itself(lines: Lines):
    """The last processor gets what every event has: its fields, and the name of the level."""

    def render(_logger: Any, method: str, event: MutableMapping[str, Any]) -> bytes:
        return orjson.dumps({"method_name": method, "keys": sorted(event)}, option=orjson.OPT_APPEND_NEWLINE)

    structlog.configure(processors=[render])
    await request(serve(200))

    (line,) = lines()
    assert "info" == line["method_name"]
    assert OWN_FIELDS - {"level", "timestamp", "span_id"} == set(line["keys"])


@pytest.mark.parametrize("given", [b"a", b"A.b_c-9", b"x" * 128])
async def test_a_valid_request_id_is_used(lines: Lines, given: bytes):
    """The client's id is in the response, in the log and in the request's state."""
    seen: list[str] = []
    messages = await request(serve(200, seen=seen), headers=[(b"x-request-id", given)])

    assert [given] == header(messages, b"x-request-id")
    assert [given.decode()] == seen
    assert [given.decode()] == [line["request_id"] for line in lines()]


@pytest.mark.parametrize("given", [b"", b"x" * 129, b"a b", b"a\n", "ä".encode(), b'"', b"a/b", b"\xff"])
async def test_an_invalid_request_id_is_replaced(lines: Lines, given: bytes):
    """An id with other characters is not used."""
    messages = await request(serve(200), headers=[(b"x-request-id", given)])

    assert [line["request_id"].encode() for line in lines()] == header(messages, b"x-request-id") != [given]


async def test_generated_request_ids_differ(lines: Lines):
    """1,000 requests have 1,000 different ids."""
    for _ in range(1_000):
        await request(serve(200))

    assert 1_000 == len({line["request_id"] for line in lines()})


async def test_the_trace_id_is_in_all_lines_of_a_request(lines: Lines):
    """Every line inside the request has the trace id of its traceparent."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        structlog.get_logger().info("sample_created")
        await serve(200)(scope, receive, send)

    await request(app, headers=[(b"traceparent", f"00-{TRACE}-{PARENT}-01".encode())])

    assert [("sample_created", TRACE), ("request_served", TRACE)] == [(x["event"], x["trace_id"]) for x in lines()]


async def test_two_traceparents_are_ignored(lines: Lines):
    """With two headers it is unknown which one is right."""
    await request(serve(200), headers=[(b"traceparent", f"00-{TRACE}-{PARENT}-01".encode())] * 2)

    assert [None] == [line["trace_id"] for line in lines()]


@pytest.mark.parametrize(
    ("traceparent", "valid"),
    [
        (f"00-{TRACE}-{PARENT}-00", True),
        (f"cc-{TRACE}-{PARENT}-01-a-later-version", True),
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
async def test_an_invalid_traceparent_is_ignored(lines: Lines, traceparent: str, valid: bool):
    """Validity is as W3C Trace Context defines it."""
    await request(serve(200), headers=[(b"traceparent", traceparent.encode())])

    assert [TRACE if valid else None] == [line["trace_id"] for line in lines()]


@given(st.binary(max_size=80))
async def test_no_traceparent_raises(traceparent: bytes):
    """Any bytes are accepted as a header."""
    messages = await request(serve(200), headers=[(b"traceparent", traceparent)])

    assert 200 == messages[0]["status"]


async def test_a_response_is_logged_as_499_if_its_client_disconnects_during_it(lines: Lines):
    """The server cancels the request, and marks it. One that a shutdown cancels has the status of its head."""
    for state, status in (({CLIENT_DISCONNECTED: True}, 499), ({}, 200)):

        async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            await request(app, state=state)
        assert status == lines()[-1]["status"]


async def test_a_stream_whose_client_disconnects_is_logged_as_499(lines: Lines):
    """Whatever its method. A client that disconnects when it has everything has its answer."""
    for more_body, status in ((True, 499), (False, 200)):

        async def app(_scope: Scope, receive: Receive, send: Send, more_body: bool = more_body) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"x", "more_body": more_body})
            assert "http.disconnect" == (await receive())["type"]

        await request(app, receive={"type": "http.disconnect"}, method="POST")
        assert status == lines()[-1]["status"]


@pytest.mark.parametrize(("method", "status"), [("HEAD", 404), ("GET", 204), ("GET", 304)])
async def test_a_response_without_a_body_has_no_bytes(lines: Lines, method: str, status: int):
    """What the application passes as its body is not sent."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"null"})

    await request(app, method=method)

    assert [0] == [line["bytes"] for line in lines()]


async def test_a_disconnected_client_is_logged_as_499(lines: Lines):
    """A request whose client disconnects before the response writes its line."""

    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        assert "http.disconnect" == (await receive())["type"]

    await request(app, receive={"type": "http.disconnect"})

    assert [499] == [line["status"] for line in lines()]


async def test_an_unanswered_exception_is_a_500(lines: Lines):
    """The answer has the request id, and the traceback is logged once."""

    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise ValueError("broken")

    messages = await request(app)

    crashed, served = lines()
    assert "ValueError: broken" in crashed["exception"]
    assert crashed["request_id"] == served["request_id"] == orjson.loads(messages[1]["body"])["request_id"]
    assert 500 == served["status"] == messages[0]["status"]


async def test_an_exception_after_the_start_of_a_response_is_logged_as_500(lines: Lines):
    """Nothing more is sent, and the log line has status 500."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ValueError("broken")

    messages = await request(app)

    assert ["http.response.start"] == [message["type"] for message in messages]
    assert [("request_crashed", None), ("request_served", 500)] == [(x["event"], x.get("status")) for x in lines()]


async def test_a_missing_client_address_is_logged_as_none(lines: Lines):
    """The address is missing when the client reset the connection before it was accepted."""
    await request(serve(200), client=None)

    assert [None] == [line["client"] for line in lines()]


async def test_no_secret_of_a_request_is_logged(lines: Lines):
    """Headers, query and body of a request are in no line, not even after an exception."""

    async def app(scope: Scope, receive: Receive, _send: Send) -> None:
        await receive()
        logging.getLogger("library").warning("headers: %s", scope["headers"])
        raise OSError("postgresql://samples:hunter2@db:5432/samples is unreachable")

    await request(
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


async def test_a_lifespan_is_passed_on(lines: Lines):
    """A scope that is not HTTP writes no line."""
    seen = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        seen.append(scope["type"])

    await request(app, type="lifespan")

    assert ["lifespan"] == seen
    assert [] == lines()


def serve(status: int, body: bytes = b"", route: str | None = None, seen: list[str] | None = None) -> Any:
    """An application that gives this answer to every request."""

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        if route is not None:
            scope["route"] = SimpleNamespace(path=route)
        if seen is not None:
            seen.append(scope["state"]["request_id"])
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": body[:1], "more_body": True})
        await send({"type": "http.response.body", "body": body[1:]})

    return app


async def request(app: Callable[..., Any], receive: Message | None = None, **scope: Any) -> list[Message]:
    """Send a request, and return the messages of its response."""
    messages: list[Message] = []

    async def give() -> Message:
        assert receive is not None
        return receive

    async def take(message: Message) -> None:
        messages.append(message)

    scope_of_request = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "query_string": b"",
        "headers": [],
        "client": ("192.0.2.7", 1),
        "app": SimpleNamespace(routes=[]),
    }
    await lifecycle(app)({**scope_of_request, **scope}, give, take)
    return messages


def header(messages: list[Message], name: bytes) -> list[bytes]:
    """The values of one header of the answer."""
    return [value for key, value in messages[0]["headers"] if key == name]
