"""The fuzzers' own parser finds what the service is compared with."""

import pytest

from tests.fuzz import parsing
from tests.fuzz.grammar import script

REQUEST = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"


@pytest.mark.parametrize(
    ("sent", "whole", "end"),
    [
        (b"", [], "idle"),
        (REQUEST + b"\r\n" + REQUEST, ["hi", "hi"], "idle"),
        (REQUEST + REQUEST[:-1], ["hi"], "incomplete"),
        (REQUEST.replace(b"Host: a\r\n", b"") + REQUEST, ["hi", "hi"], "idle"),
        (REQUEST + b"\0" + REQUEST, ["hi"], "malformed"),
        (REQUEST + REQUEST.replace(b"POST ", b"POST  "), ["hi"], "malformed"),
        (REQUEST.replace(b"Host: a", b"Host: a\r\nConnection: close") + REQUEST, ["hi"], "closed"),
        (
            REQUEST.replace(b"Content-Length: 2", b"Transfer-Encoding: chunked")[:-2] + b"1\r\nh\r\n0\r\n\r\n",
            ["h"],
            "idle",
        ),
        (REQUEST.replace(b"Content-Length: 2", b"Transfer-Encoding: chunked") + b"\r\n", [], "malformed"),
    ],
    ids=["nothing", "two", "a part", "no host", "malformed", "two spaces", "closing", "chunked", "bad chunk"],
)
def test_the_parser_finds_the_whole_requests(sent, whole, end):
    """It returns each whole request with its body, and says what follows them."""
    found = parsing.requests(sent)

    assert whole == [request.body.decode() for request in found.whole]
    assert end == found.end


def test_a_seed_makes_the_same_scripts_again():
    """The scripts of a seed are the same in every process. Of 200, at least a quarter are valid, and 50 are not."""
    scripts = [script(7, index) for index in range(200)]

    assert scripts == [script(7, index) for index in range(200)]
    assert scripts != [script(8, index) for index in range(200)]
    valid = [one for one in scripts if one.statuses is not None]
    assert 40 <= len(valid) <= 150
    for one in valid:
        assert len(one.statuses or ()) == len(parsing.requests(one.sent).whole), one


def test_the_answers_on_a_connection_are_told_apart():
    """`100 Continue` is left out, the answer to HEAD has no body, and a part of an answer is left over."""
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-request-id: a\r\n\r\n"
    received = b"HTTP/1.1 100 Continue\r\n\r\n" + answer + answer + b"hi" + answer + b"h"

    found, rest = parsing.answers(received, ["HEAD", "GET", "GET"])

    assert [b"", b"hi"] == [one.body for one in found]
    assert ["a", "a"] == [one.request_id for one in found]
    assert answer + b"h" == rest
