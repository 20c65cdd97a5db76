"""A body: read once, within bounds, and parsed strictly."""

from typing import Any

import orjson
from starlette.requests import Request

from app.errors import BodyTooLargeError, MalformedBodyError, UnsupportedMediaTypeError

_PLAIN = b"application/json"
_UTF8 = {"charset=utf-8", "charset=utf8"}


async def read_json(request: Request) -> Any:
    """The document that the body holds.

    The standard library's parser would take NaN, lone surrogates, UTF-16 and
    integers of thousands of digits as well.

    Raises:
        UnsupportedMediaTypeError: It is not declared as JSON in UTF-8, or it is compressed.
        BodyTooLargeError: It is longer than MAX_BODY_BYTES. No more than that was read.
        MalformedBodyError: It is not one JSON document.
    """
    limit_bytes = request.app.state.settings.max_body_bytes
    _check_headers(request, limit_bytes)
    body = b""
    async for chunk in request.stream():
        body = body + chunk if body else chunk
        if len(body) > limit_bytes:
            raise BodyTooLargeError(limit_bytes)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise MalformedBodyError from None


def _check_headers(request: Request, limit_bytes: int) -> None:
    is_declared = False
    for name, value in request.scope["headers"]:
        if name == b"content-type":
            is_declared = True
            if value != _PLAIN:
                _check_content_type(value.decode("latin-1"))
        elif name == b"content-encoding":
            raise UnsupportedMediaTypeError
        elif name == b"content-length" and value.isdigit() and _is_above(value, limit_bytes):
            raise BodyTooLargeError(limit_bytes)
    if not is_declared:
        raise UnsupportedMediaTypeError


def _check_content_type(content_type: str) -> None:
    media_type, *parameters = (part.strip() for part in content_type.lower().split(";"))
    charsets = {parameter.replace('"', "") for parameter in parameters if parameter.startswith("charset")}
    if media_type != "application/json" or charsets - _UTF8:
        raise UnsupportedMediaTypeError


def _is_above(digits: bytes, limit: int) -> bool:
    # Python refuses to read thousands of digits, and no limit has that many.
    return len(digits) > 18 or int(digits) > limit
