"""How a response is written: in how many parts, and what is refused."""

import asyncio
import logging
from typing import Any, cast

import pytest
from uvicorn.protocols.http.flow_control import FlowControl

from app.worker.response import RequestCycle10
from app.worker.response_writer import ResponseWriter

LENGTH = (b"content-length", b"3")


class Writes(asyncio.Transport):
    """A transport that keeps each write."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[bytes] = []

    def write(self, data: Any) -> None:
        """Keep what is written."""
        self.parts.append(data)

    def close(self) -> None:
        """Nothing is to be closed."""


def begun(method: str = "GET", kind: type[ResponseWriter] = ResponseWriter) -> tuple[ResponseWriter, Writes]:
    """A response that is to be sent, and what is written of it."""
    transport = Writes()
    cycle = kind(
        scope=cast(Any, {"type": "http", "method": method}),
        transport=transport,
        flow=FlowControl(transport),
        logger=logging.getLogger(),
        access_logger=logging.getLogger(),
        access_log=False,
        default_headers=[],
        message_event=asyncio.Event(),
        expect_100_continue=False,
        keep_alive=True,
        on_response=lambda: None,
    )
    return cycle, transport


async def written(*bodies: bytes, status: int = 200, method: str = "GET", headers: Any = (LENGTH,)) -> list[bytes]:
    """What is written for a response with these headers, whose body has these parts."""
    cycle, transport = begun(method)
    await cycle.send({"type": "http.response.start", "status": status, "headers": headers})
    for number, body in enumerate(bodies, 1):
        await cycle.send({"type": "http.response.body", "body": body, "more_body": number < len(bodies)})
    assert cycle.response_complete
    return transport.parts


async def test_head_and_body_are_one_write():
    """One system call sends both, and the rest of the body is written as it comes."""
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n"

    assert [head + b"abc"] == await written(b"abc")
    assert [head + b"a", b"bc"] == await written(b"a", b"bc")
    assert [head] == await written(b"abc", method="HEAD")


async def test_the_head_of_a_stream_is_written_at_once():
    """Its first part may take long. A part of it is one write, too."""
    head, *parts = await written(b"abc", b"", b"d", headers=())

    assert head.endswith(b"transfer-encoding: chunked\r\n\r\n")
    assert [b"3\r\nabc\r\n", b"1\r\nd\r\n0\r\n\r\n"] == parts


@pytest.mark.parametrize(("status", "headers"), [(204, ()), (304, ()), (200, [(b"content-length", b"0")])])
async def test_a_response_without_a_body_is_one_write(status, headers):
    """It has no chunks either."""
    (head,) = await written(b"", status=status, headers=headers)

    assert b"transfer-encoding" not in head
    assert head.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("is_whole", [True, False])
@pytest.mark.parametrize(("status", "has_length"), [(204, False), (304, True)])
async def test_a_status_without_a_body_has_none_whatever_the_application_sends(status, has_length, is_whole):
    """The client would read it as the next response. 204 has no Content-Length either (RFC 9110)."""
    cycle, transport = begun()
    start = {"type": "http.response.start", "status": status, "headers": [LENGTH]}
    await cycle.send(start | {"body": b"abc"} if is_whole else start)
    if not is_whole:
        await cycle.send({"type": "http.response.body", "body": b"abc"})

    content = b"".join(transport.parts)
    assert cycle.response_complete
    assert has_length is (b"content-length: 3\r\n" in content)
    assert content.endswith(b"\r\n\r\n")


async def test_a_whole_response_by_http_1_0_needs_no_length():
    """It ends when the connection closes."""
    cycle, transport = begun(kind=RequestCycle10)
    cycle.keep_alive = False
    await cycle.send({"type": "http.response.start", "status": 200, "headers": [], "body": b"abc"})

    assert cycle.response_complete
    assert b"".join(transport.parts).endswith(b"connection: close\r\n\r\nabc")


async def test_a_large_body_is_not_copied():
    """It is written behind the head."""
    size = 1024 * 1024
    parts = await written(b"x" * size, headers=[(b"content-length", str(size).encode())])

    assert [True, False] == [len(part) < 100 for part in parts]


@pytest.mark.parametrize(
    "header", [(b"x-a", b"b\r\nx-c: d"), (b"x-a", b"b\nc"), (b"x-a", b"\0"), (b"x a", b"b"), (b"x:a", b"b")]
)
async def test_an_invalid_header_is_refused(header):
    """Nothing that could end the header, or begin another one, is written."""
    with pytest.raises(RuntimeError, match="Invalid HTTP header"):
        await written(b"abc", headers=[LENGTH, header])


@pytest.mark.parametrize("body", [b"ab", b"abcd"])
async def test_another_length_than_declared_is_refused(body):
    """The client would wait for the rest, or read it as the next response."""
    with pytest.raises(RuntimeError, match="Content-Length"):
        await written(body)


@pytest.mark.parametrize("body", [b"ab", b"abcd"])
async def test_another_response_can_be_sent_if_nothing_is_written(body):
    """The client gets an error in place of a closed connection."""
    cycle, transport = begun()
    with pytest.raises(RuntimeError, match="Content-Length"):
        await cycle.send({"type": "http.response.start", "status": 200, "headers": [LENGTH], "body": body})
    assert not cycle.response_started

    await cycle.send({"type": "http.response.start", "status": 500, "headers": [LENGTH], "body": b"err"})

    assert [b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 3\r\n\r\nerr"] == transport.parts
