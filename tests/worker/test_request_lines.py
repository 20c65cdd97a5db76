"""The line of a request must be exact, also of one that directly follows another request."""

import pytest

from tests.worker.fake_connection import FakeServer

LINE = b"GET /second HTTP/1.1\r\n"

BEFORE = {
    "nothing": b"",
    "no body": b"GET /first HTTP/1.1\r\nHost: a\r\nX: " + LINE + b"\r\n",
    "a body with Content-Length": b"POST /first HTTP/1.1\r\nHost: a\r\nContent-Length: 24\r\n\r\n" + LINE + b"\r\n",
    "a chunked body": (
        b"POST /first HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"18\r\n" + LINE + b"\r\n\r\n0\r\nX: a\r\n\r\n"
    ),
    "an upgrade and a body": (
        b"POST /first HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 24\r\n\r\n"
        + LINE + b"\r\n"
    ),
}  # fmt: skip

REFUSED = {
    "two spaces before the target": b"GET  /second HTTP/1.1\r\n",
    "two spaces after the target": b"GET /second  HTTP/1.1\r\n",
    "another protocol": b"SOURCE /second ICE/1.0\r\n",
    "a protocol in small letters": b"GET /second http/1.1\r\n",
    "no version": b"GET /second\r\n",
    "a version of one digit": b"GET /second HTTP/3\r\n",
    "a version of three digits": b"GET /second HTTP/10.0\r\n",
    "a line feed before it": b"\n" + LINE,
    "a carriage return before it": b"\r" + LINE,
    "three halves of empty lines before it": b"\r\n\r" + LINE,
}

REST = b"Host: a\r\nX: " + LINE + b"\r\n"


def statuses(packets: list[bytes]) -> list[int]:
    """The statuses of all responses when these packets arrive and each request is answered as soon as it begins."""
    server = FakeServer()
    try:
        for packet in packets:
            if packet and not server.transport.lost:
                server.deliver(packet)
            while (handler := server.running) is not None:
                server.order(handler, "answer", 0)
        return [status for status, _ in server.responses()]
    finally:
        server.close()


def check_all_packets(expected: list[int], sent: bytes, places: range) -> None:
    """The statuses are these in one packet, in packets of one byte, and in two that are cut at any of the places."""
    assert expected == statuses([sent])
    assert expected == statuses([sent[place : place + 1] for place in range(len(sent))])
    for place in places:
        assert expected == statuses([sent[:place], sent[place:]]), place


@pytest.mark.parametrize("before", BEFORE.values(), ids=BEFORE)
@pytest.mark.parametrize("line", REFUSED.values(), ids=REFUSED)
def test_a_line_that_is_not_exact_is_refused(before, line):
    """The answer is 400 wherever a packet ends, also if the same packet has the exact line at another place."""
    sent = before + line + REST
    places = range(max(1, len(before) - 5), len(before + line) + 1)

    check_all_packets([200, 400] if before else [400], sent, places)


@pytest.mark.parametrize("before", BEFORE.values(), ids=BEFORE)
@pytest.mark.parametrize("version", [b"1.2", b"2.0", b"9.9"])
def test_a_version_that_is_not_supported_is_a_505(before, version):
    """Wherever a packet ends. A version that is malformed is a 400."""
    line = LINE.replace(b"1.1", version)
    sent = before + line + REST
    places = range(max(1, len(before) - 5), len(before + line) + 1)

    check_all_packets([200, 505] if before else [505], sent, places)


@pytest.mark.parametrize("before", BEFORE.values(), ids=BEFORE)
@pytest.mark.parametrize("line", [REFUSED["two spaces before the target"], b"\r\n" + LINE], ids=["refused", "served"])
def test_a_packet_may_end_anywhere(before, line):
    """It makes no difference."""
    sent = before + line + REST
    status = 200 if LINE in line else 400

    check_all_packets([200, status] if before else [status], sent, range(1, len(sent)))


@pytest.mark.parametrize("before", BEFORE.values(), ids=BEFORE)
@pytest.mark.parametrize("empty_lines", [b"", b"\r\n\r\n\r\n"], ids=["none", "three"])
def test_an_exact_line_is_served(before, empty_lines):
    """Empty lines may precede it."""
    sent = before + empty_lines + LINE + REST
    places = range(max(1, len(before) - 5), len(before + empty_lines) + 5)

    check_all_packets([200, 200] if before else [200], sent, places)


@pytest.mark.parametrize("end", [b"", b"\r\n"], ids=["without its end", "with its end"])
def test_a_line_that_is_not_exact_is_refused_before_the_head_is_complete(end):
    """The client gets its answer at once, and cannot send spaces for ever."""
    assert [400] == statuses([b"GET  / HTTP/1.1" + b" " * (0 if end else 9_000) + end])
