"""Where requests end, compared with a parser that gets one byte at a time."""

from random import Random

import httptools
import pytest

from app.worker.parts import RequestParts
from tests.fuzz.grammar import script

CHUNKED = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
GET = b"GET / HTTP/1.1\r\n\r\n"


class Parser:
    """Notes after how many bytes each request ends, and whether a part had bytes of two requests."""

    def __init__(self) -> None:
        self.parts = RequestParts()
        self.ends: list[int] = []
        self.read = 0
        self.part_has_ended = self.part_has_two = False
        self._parser = httptools.HttpRequestParser(self)
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)

    def feed(self, data: bytes) -> None:
        """Parse a part."""
        self.part_has_ended = False
        self.read += len(data)
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        """A request begins."""
        self.part_has_two |= self.part_has_ended
        self.body_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep the length of the body."""
        if name.lower() == b"content-length":
            self.body_bytes = int(value)

    def on_headers_complete(self) -> None:
        """The head has arrived."""
        self.parts.expect_body(self.body_bytes)

    def on_message_complete(self) -> None:
        """Note the end."""
        self.ends.append(self.read)
        self.part_has_ended = True


def true_ends(sent: bytes) -> list[int]:
    """The ends of the requests, exactly: the parser gets the bytes one by one."""
    parser = Parser()
    try:
        for place in range(len(sent)):
            parser.feed(sent[place : place + 1])
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        pass  # Nothing after this is parsed.
    return parser.ends


def ends_of_parts(packets: list[bytes]) -> list[int]:
    """The ends of the requests, as far as a parser that gets the parts knows them."""
    parser = Parser()
    try:
        for packet in packets:
            for part in parser.parts.split(packet):
                parser.feed(part)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        pass
    assert not parser.part_has_two, packets
    return parser.ends


def packets_of(choose: Random, sent: bytes) -> list[bytes]:
    """The same bytes, cut at a few random places."""
    places = sorted(choose.randrange(len(sent) + 1) for _ in range(choose.choice((0, 1, 1, 2, 5))))
    return [sent[start:end] for start, end in zip([0, *places], [*places, len(sent)], strict=True)]


def test_no_part_has_bytes_of_two_requests():
    """The ends are found in valid and changed requests, however they are cut into packets."""
    choose = Random(1)
    ends = 0
    for index in range(400):
        sent = script(3, index).sent
        expected = true_ends(sent)
        ends += len(expected)
        assert expected == ends_of_parts(packets_of(choose, sent)), sent

    assert ends >= 400


@pytest.mark.parametrize(
    "sent",
    [
        CHUNKED + b"4\r\n\r\n\r\n\r\n0\r\n\r\n" + GET,
        CHUNKED + b"12\r\n" + GET + b"\r\n0\r\n\r\n" + GET,
        CHUNKED + b"1;a\r\na\r\n0;a\r\nX: a\r\n\r\n\r\n\r\n" + GET,
        GET + b"\r\n\r\n\r\n" + GET + GET,
        b"POST / HTTP/1.1\r\nContent-Length: 20\r\n\r\n" + GET + b"\r\n" + GET,
    ],
    ids=["a chunk of empty lines", "a chunk like a request", "a trailer", "empty lines", "a body like a request"],
)
def test_an_end_is_found_wherever_a_packet_ends(sent):
    """Every pair of places is tried."""
    expected = true_ends(sent)
    assert expected[-1] == len(sent)

    for first in range(len(sent) + 1):
        for second in range(first, len(sent) + 1):
            assert expected == ends_of_parts([sent[:first], sent[first:second], sent[second:]]), (first, second)
