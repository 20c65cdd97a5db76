"""Checks of a request's head: its size, and what two HTTP parsers could understand differently."""

import re
from collections.abc import Sequence
from http import HTTPStatus
from urllib.parse import unquote

import httptools

from app.worker.limits import MAX_HEAD_BYTES, MAX_HEADERS, MAX_TARGET_BYTES

Headers = Sequence[tuple[bytes, bytes]]


_HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[A-Za-z0-9:.%_~-]+\])(?::[0-9]*)?")

_ABSOLUTE_FORM = re.compile(rb"https?://([^:/?][^/?]*)(.*)", re.IGNORECASE)

_MAX_HOST_BYTES = 512
"""A name in the DNS has at most 253. An idle connection keeps its last Host."""

_ENDING = b" HTTP/1.1\r\n"

MAX_LINE_BYTES = MAX_TARGET_BYTES + 64
"""The longest request line: the longest method, a target and the version."""


class HeadRefusedError(Exception):
    """The head of a request is refused."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status.phrase)
        self.status = status


def check_transfer_encoding(value: bytes) -> None:
    """Refuse a Transfer-Encoding other than `chunked`.

    The parser accepts any list that ends in it, and would pass on a body that is still encoded.
    """
    if value.lower() != b"chunked":
        raise HeadRefusedError(HTTPStatus.BAD_REQUEST)


def check_host(value: bytes) -> None:
    """Refuse a Host that is not a name or an address, with or without a port.

    Of `a:80@b` two parsers could read different hosts.
    """
    if len(value) > _MAX_HOST_BYTES or not _HOST.fullmatch(value):
        raise HeadRefusedError(HTTPStatus.BAD_REQUEST)


def check_blank_lines(data: bytes) -> None:
    """Refuse what is neither a line end nor the beginning of a request: a CR or LF alone.

    The parser skips both between requests. RFC 9112 allows empty lines, which end with CRLF.
    """
    blank = data[: len(data) - len(data.lstrip(b"\r\n"))]
    rest = blank.replace(b"\r\n", b"")
    if rest and not (rest == b"\r" and blank == data and data.endswith(b"\r")):  # the LF may still arrive
        raise HeadRefusedError(HTTPStatus.BAD_REQUEST)


def request_line(*, method: bytes, target: bytes, version: str) -> bytes:
    """The request line as it must have been sent. The parser accepts several spaces, and other protocols."""
    ending = _ENDING if version == "1.1" else b" HTTP/%b\r\n" % version.encode()
    return method + b" " + target + ending


def check_head(*, method: bytes, target: bytes, version: str, headers: Headers, received_bytes: int) -> None:
    """Refuse a head by its size, its version, or what makes its framing ambiguous.

    Args:
        method: As it was sent.
        target: As it was sent.
        version: `1.1`, for example.
        headers: Without the trailers.
        received_bytes: The size of the head.
    """
    if len(target) > MAX_TARGET_BYTES:
        raise HeadRefusedError(HTTPStatus.REQUEST_URI_TOO_LONG)
    if len(headers) > MAX_HEADERS or received_bytes > MAX_HEAD_BYTES:
        raise HeadRefusedError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
    if b"#" in target or method == b"CONNECT":
        raise HeadRefusedError(HTTPStatus.BAD_REQUEST)
    if version != "1.1":
        if version != "1.0":
            raise HeadRefusedError(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
        # HTTP/1.0 has no chunks: an HTTP/1.0 proxy would find the end of the body elsewhere.
        if any(name == b"transfer-encoding" for name, _ in headers):
            raise HeadRefusedError(HTTPStatus.BAD_REQUEST)


def origin_form(target: bytes, headers: list[tuple[bytes, bytes]], *, version: str) -> bytes:
    """The path and query of a target that may be a URL, whose host then replaces that of the Host header.

    RFC 9112 (3.2.2) demands it. A header that is missing or doubled stays so, and the application refuses the request;
    HTTP/1.0 needs none, so there it is added. What is no URL of HTTP is returned as it is.
    """
    absolute = _ABSOLUTE_FORM.fullmatch(target)
    if absolute is None:
        return target
    host, rest = absolute.groups()
    check_host(host)
    if version == "1.0" and all(name != b"host" for name, _ in headers):
        headers.append((b"host", host))
    headers[:] = [(name, host if name == b"host" else value) for name, value in headers]
    return rest if rest.startswith(b"/") else b"/" + rest


def split_target(target: bytes) -> tuple[str, bytes, bytes]:
    """The percent-decoded path, the path as it was sent, and the query.

    What is not a path in UTF-8 is passed on, so that the application can answer
    it as it answers every request: U+FFFD takes the place of bytes that are not
    UTF-8, and `*` does not begin with a slash.
    """
    if not target.startswith(b"/"):
        return target.decode("latin-1"), target, b""
    url = httptools.parse_url(target)
    path = url.path.decode("ascii")
    return unquote(path) if "%" in path else path, url.path, url.query or b""


def without_upgrade(*, method: bytes, target: bytes, version: str, headers: Headers) -> bytes:
    """The head as bytes, without its `Upgrade` header."""
    lines = [request_line(method=method, target=target, version=version)]
    lines += [b"%s: %s\r\n" % header for header in headers if header[0] != b"upgrade"]
    return b"".join([*lines, b"\r\n"])
