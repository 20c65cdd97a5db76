"""Which request heads are refused: those too large, and those that two readers could read in two ways."""

from collections.abc import Sequence
from http import HTTPStatus
from urllib.parse import unquote

from app.worker.limits import MAX_HEAD_BYTES, MAX_HEADERS, MAX_TARGET_BYTES

Headers = Sequence[tuple[bytes, bytes]]


class RefusalError(Exception):
    """The request is not for the application."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status.phrase)
        self.status = status


def check_coding(value: bytes) -> None:
    """Refuse a Transfer-Encoding other than `chunked`.

    The parser takes any list that ends in it, and would hand on a body still coded.
    """
    if value.lower() != b"chunked":
        raise RefusalError(HTTPStatus.BAD_REQUEST)


def check_head(*, method: bytes, target: bytes, version: str, headers: Headers, received_bytes: int) -> None:
    """Refuse a head by its size, its target or its version.

    Args:
        method: As it was sent.
        target: As it was sent.
        version: `1.1`, for example.
        headers: Without the trailers.
        received_bytes: At most so long is the head.
    """
    if len(target) > MAX_TARGET_BYTES:
        raise RefusalError(HTTPStatus.REQUEST_URI_TOO_LONG)
    if len(headers) > MAX_HEADERS or (received_bytes > MAX_HEAD_BYTES and _size(target, headers) > MAX_HEAD_BYTES):
        raise RefusalError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
    # A target that is not a plain path names a host of its own, which the Host header may contradict.
    if not target.startswith(b"/") or b"#" in target or method == b"CONNECT":
        raise RefusalError(HTTPStatus.BAD_REQUEST)
    if version != "1.1":
        if version != "1.0":
            raise RefusalError(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
        # HTTP/1.0 has no chunks: a proxy that speaks it sees another end of the body.
        if any(name == b"transfer-encoding" for name, _ in headers):
            raise RefusalError(HTTPStatus.BAD_REQUEST)


def decode_path(path: bytes) -> str:
    """The path without its percent signs; refused when that is not UTF-8."""
    decoded = path.decode("ascii")
    if "%" in decoded:
        decoded = unquote(decoded)
        if "\ufffd" in decoded:
            raise RefusalError(HTTPStatus.BAD_REQUEST)
    return decoded


def without_upgrade(*, method: bytes, target: bytes, version: str, headers: Headers) -> bytes:
    """The head once more, no longer offering another protocol."""
    lines = [b"%s %s HTTP/%s\r\n" % (method, target, version.encode())]
    lines += [b"%s: %s\r\n" % header for header in headers if header[0] != b"upgrade"]
    return b"".join([*lines, b"\r\n"])


def _size(target: bytes, headers: Headers) -> int:
    return len(target) + sum(len(name) + len(value) + 4 for name, value in headers)
