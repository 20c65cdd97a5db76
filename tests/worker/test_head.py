"""Which heads are refused, and with what; a whole server is asked in tests/processes/test_connection.py."""

from http import HTTPStatus

import pytest

from app.worker.head import RefusalError, check_coding, check_head, decode_path, without_upgrade
from app.worker.limits import MAX_HEAD_BYTES, MAX_HEADERS, MAX_TARGET_BYTES

HOST = (b"host", b"localhost")


def refused(check, *arguments, **named):
    """The status of a refusal, None without one."""
    try:
        check(*arguments, **named)
    except RefusalError as error:
        return error.status
    return None


def head(**changed):
    """What becomes of a head that is right but for this."""
    right = {"method": b"GET", "target": b"/items?q=a", "version": "1.1", "headers": [HOST], "received_bytes": 100}
    return refused(check_head, **right | changed)


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({}, None),
        ({"version": "1.0"}, None),
        ({"target": b"/" + b"a" * (MAX_TARGET_BYTES - 1)}, None),
        ({"headers": [HOST] * MAX_HEADERS}, None),
        # Much was received with it, of which the head is little.
        ({"received_bytes": MAX_HEAD_BYTES + 1}, None),
        ({"target": b"/" + b"a" * MAX_TARGET_BYTES}, HTTPStatus.REQUEST_URI_TOO_LONG),
        ({"headers": [HOST] * (MAX_HEADERS + 1)}, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE),
        (
            {"received_bytes": MAX_HEAD_BYTES + 1, "headers": [(b"a", b"b" * MAX_HEAD_BYTES)]},
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
        ),
        ({"target": b"http://other/items"}, HTTPStatus.BAD_REQUEST),
        ({"target": b"*", "method": b"OPTIONS"}, HTTPStatus.BAD_REQUEST),
        ({"target": b"/items#there"}, HTTPStatus.BAD_REQUEST),
        ({"method": b"CONNECT"}, HTTPStatus.BAD_REQUEST),
        ({"version": "2.0"}, HTTPStatus.HTTP_VERSION_NOT_SUPPORTED),
        ({"version": "1.0", "headers": [HOST, (b"transfer-encoding", b"chunked")]}, HTTPStatus.BAD_REQUEST),
    ],
)
def test_a_head_has_bounds_and_one_meaning(changed, status):
    """Past a bound it is refused by its name, and where two readers could differ it is a bad request."""
    assert status == head(**changed)


@pytest.mark.parametrize(
    ("coding", "status"),
    [(b"chunked", None), (b"Chunked", None), (b"gzip, chunked", HTTPStatus.BAD_REQUEST), (b"", HTTPStatus.BAD_REQUEST)],
)
def test_a_body_comes_in_chunks_or_not_coded_at_all(coding, status):
    """No other transfer coding would be taken off."""
    assert status == refused(check_coding, coding)


def test_a_path_is_decoded_once():
    """Percent signs stand for UTF-8, and what is none is refused."""
    assert "/items/1" == decode_path(b"/items/1")
    assert "/items/ä%31" == decode_path(b"/items/%c3%a4%2531")
    assert HTTPStatus.BAD_REQUEST == refused(decode_path, b"/items/%ff")


def test_a_head_is_written_again_without_its_offer():
    """All else stays as it was."""
    head = without_upgrade(
        method=b"POST", target=b"/items", version="1.1", headers=[HOST, (b"upgrade", b"h2c"), (b"a", b"b")]
    )

    assert b"POST /items HTTP/1.1\r\nhost: localhost\r\na: b\r\n\r\n" == head
