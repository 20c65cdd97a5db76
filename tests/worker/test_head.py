"""Which heads are refused, and with which status. tests/processes/test_connection.py asks a real server."""

from http import HTTPStatus

import pytest

from app.worker.head import (
    HeadRefusedError,
    check_blank_lines,
    check_head,
    check_host,
    check_transfer_encoding,
    origin_form,
    split_target,
    without_upgrade,
)
from app.worker.limits import MAX_HEAD_BYTES, MAX_HEADERS, MAX_TARGET_BYTES

HOST = (b"host", b"localhost")


def refused(check, *arguments, **named):
    """The status of a refusal, None without one."""
    try:
        check(*arguments, **named)
    except HeadRefusedError as error:
        return error.status
    return None


def head(**changed):
    """The status with which a valid head is refused once this is changed in it."""
    valid = {"method": b"GET", "target": b"/samples?q=a", "version": "1.1", "headers": [HOST], "received_bytes": 100}
    return refused(check_head, **valid | changed)


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({}, None),
        ({"version": "1.0"}, None),
        ({"target": b"/" + b"a" * (MAX_TARGET_BYTES - 1)}, None),
        ({"headers": [HOST] * MAX_HEADERS}, None),
        ({"received_bytes": MAX_HEAD_BYTES}, None),
        ({"target": b"/" + b"a" * MAX_TARGET_BYTES}, HTTPStatus.REQUEST_URI_TOO_LONG),
        ({"headers": [HOST] * (MAX_HEADERS + 1)}, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE),
        ({"received_bytes": MAX_HEAD_BYTES + 1}, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE),
        ({"target": b"/samples#there"}, HTTPStatus.BAD_REQUEST),
        ({"method": b"CONNECT"}, HTTPStatus.BAD_REQUEST),
        ({"version": "2.0"}, HTTPStatus.HTTP_VERSION_NOT_SUPPORTED),
        ({"version": "1.0", "headers": [HOST, (b"transfer-encoding", b"chunked")]}, HTTPStatus.BAD_REQUEST),
    ],
)
def test_a_head_that_is_too_large_or_ambiguous_is_refused(changed, status):
    """A head past a limit has the status for that limit. One that two parsers could understand differently is a 400."""
    assert status == head(**changed)


@pytest.mark.parametrize(
    ("coding", "status"),
    [(b"chunked", None), (b"Chunked", None), (b"gzip, chunked", HTTPStatus.BAD_REQUEST), (b"", HTTPStatus.BAD_REQUEST)],
)
def test_chunked_is_the_only_transfer_coding(coding, status):
    """Any other transfer coding is a 400, because the server does not decode it."""
    assert status == refused(check_transfer_encoding, coding)


@pytest.mark.parametrize("host", [b"", b"a", b"a.b:80", b"a_b", b"[::1]", b"[::1]:80", b"127.0.0.1:", b"%C3%A4"])
def test_a_name_or_an_address_is_a_host(host):
    """It may have a port. Whether there must be a Host, the application decides."""
    assert None is refused(check_host, host)


@pytest.mark.parametrize(
    "host", [b"a:80@b", b"u@x", b"a b", b"a\tb", b"a/b", b"a?b", b"a:b", b"a:80:80", b"[::1", b"\xff", b"a" * 513]
)
def test_anything_else_is_no_host(host):
    """Two parsers could read different hosts from it: the answer is 400."""
    assert HTTPStatus.BAD_REQUEST == refused(check_host, host)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\r\n\r\nGET", None),
        (b"\r\n\r", None),
        (b"\r", None),
        (b"\nGET", HTTPStatus.BAD_REQUEST),
        (b"\rGET", HTTPStatus.BAD_REQUEST),
        (b"\rGET / HTTP/1.1\r", HTTPStatus.BAD_REQUEST),
        (b"\r\r\nGET", HTTPStatus.BAD_REQUEST),
    ],
)
def test_only_empty_lines_may_precede_a_request(sent, status):
    """A CR or LF alone is a 400, because another parser could take it for a line end."""
    assert status == refused(check_blank_lines, sent)


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        (b"/samples/1", ("/samples/1", b"/samples/1", b"")),
        (b"/samples?q=%41", ("/samples", b"/samples", b"q=%41")),
        (b"/samples/%c3%a4%2531", ("/samples/ä%31", b"/samples/%c3%a4%2531", b"")),
        (b"/samples/%ff?q=a", ("/samples/\ufffd", b"/samples/%ff", b"q=a")),
        (b"ftp://other/samples", ("ftp://other/samples", b"ftp://other/samples", b"")),
        (b"*", ("*", b"*", b"")),
    ],
)
def test_a_target_is_split_and_its_path_decoded_once(target, parts):
    """Bytes that are not UTF-8 become U+FFFD, and what is not a path stays as it is: the application refuses both."""
    assert parts == split_target(target)


@pytest.mark.parametrize(
    ("target", "path", "host"),
    [
        (b"http://b/samples?q=a", b"/samples?q=a", b"b"),
        (b"HTTPS://B:80/samples", b"/samples", b"B:80"),
        (b"http://[::1]:80//samples", b"//samples", b"[::1]:80"),
        (b"http://b", b"/", b"b"),
        (b"http://b?q=http://c/", b"/?q=http://c/", b"b"),
        (b"http:///samples", b"http:///samples", b"a"),
        (b"http://:80/", b"http://:80/", b"a"),
        (b"http:/samples", b"http:/samples", b"a"),
        (b"ftp://b/", b"ftp://b/", b"a"),
        (b"*", b"*", b"a"),
    ],
)
def test_the_host_of_a_url_replaces_the_header(target, path, host):
    """What is no URL of HTTP with a host stays as it is."""
    headers = [(b"x", b"a"), (b"host", b"a")]

    assert path == origin_form(target, headers, version="1.1")
    assert [(b"x", b"a"), (b"host", host)] == headers


@pytest.mark.parametrize(
    ("version", "sent", "received"),
    [
        ("1.1", [], []),
        ("1.1", [b"a", b"c"], [b"b", b"b"]),
        ("1.0", [], [b"b"]),
        ("1.0", [b"a"], [b"b"]),
        ("1.0", [b"a", b"c"], [b"b", b"b"]),
    ],
)
def test_a_url_makes_no_missing_or_doubled_host_valid(version, sent, received):
    """The application refuses it as it does with a path. HTTP/1.0 needs no Host header, so it gets the URL's host."""
    headers = [(b"host", host) for host in sent]
    origin_form(b"http://b/", headers, version=version)

    assert [(b"host", host) for host in received] == headers


@pytest.mark.parametrize("target", [b"http://u@b/", b"http://a:80@b/", b"http://a:b/", b"http://[::1/"])
def test_the_host_of_a_url_is_checked_as_the_header_is(target):
    """The answer is 400."""
    assert HTTPStatus.BAD_REQUEST == refused(origin_form, target, [HOST], version="1.1")


def test_a_head_is_written_without_its_upgrade_header():
    """Everything else in it is unchanged."""
    head = without_upgrade(
        method=b"POST", target=b"/samples", version="1.1", headers=[HOST, (b"upgrade", b"h2c"), (b"a", b"b")]
    )

    assert b"POST /samples HTTP/1.1\r\nhost: localhost\r\na: b\r\n\r\n" == head
