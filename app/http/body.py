"""Reads a request body once, within the size limit, and parses it as strict JSON."""

from typing import Any

import orjson
from starlette.requests import Request

from app.errors import BodyTooLargeError, MalformedBodyError, UnsupportedMediaTypeError

_JSON = b"application/json"
_UTF8 = {"charset=utf-8", "charset=utf8"}


async def read_json(request: Request) -> Any:
    """Return the parsed JSON document of the request body.

    orjson, because the standard library's parser also accepts NaN, lone surrogates,
    UTF-16 and integers of thousands of digits.

    Raises:
        UnsupportedMediaTypeError: The content type is not JSON in UTF-8, or there is a Content-Encoding.
        BodyTooLargeError: The body is longer than MAX_BODY_BYTES. Reading stops at that limit.
        MalformedBodyError: The body is not exactly one JSON document.
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
            if value != _JSON:
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
    # `int()` raises ValueError for thousands of digits. No limit has more than 18.
    return len(digits) > 18 or int(digits) > limit
