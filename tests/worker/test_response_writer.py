"""How a response is written: in how many parts, and what is refused."""

import asyncio
import logging
from typing import Any, cast

import pytest
from uvicorn.protocols.http.flow_control import FlowControl

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


async def written(*bodies: bytes, status: int = 200, method: str = "GET", headers: Any = (LENGTH,)) -> list[bytes]:
    """What is written for a response with these headers, whose body has these parts."""
    transport = Writes()
    cycle = ResponseWriter(
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
