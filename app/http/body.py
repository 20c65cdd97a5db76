"""Reads request bodies: within a size limit, of the declared media type, and as strict JSON."""

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, cast

import orjson
from fastapi import params
from fastapi.datastructures import DefaultPlaceholder
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope

from app.errors import BodyTooLargeError, InvalidFieldError, MalformedBodyError, UnsupportedMediaTypeError

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
_JSON = JSON.encode()
_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
_UTF8 = {"charset=utf-8", "charset=utf8"}


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyRules:
    """The rules for the body of a route, from what its endpoint declares."""

    media_types: tuple[str, ...] = (JSON,)
    is_required: bool = True
    needs_content_type: bool = True
    """False only if the route declares `strict_content_type=False`."""

    max_values: int | None = None
    """How many values the JSON document may have: `max_json_values` of the body's model, where it is declared."""

    @property
    def is_json(self) -> bool:
        """Whether the body is parsed as JSON."""
        return _is_json(self.media_types[0])

    def check_headers(self, headers: Iterable[tuple[bytes, bytes]], limit_bytes: int) -> bool:
        """Return whether the request has a content type.

        Raises:
            UnsupportedMediaTypeError: The content type is not the declared one, or is missing although
                the body is required, or there is a Content-Encoding.
            BodyTooLargeError: The declared length is greater than the limit.
        """
        has_content_type = False
        for name, value in headers:
            if name == b"content-type":
                has_content_type = True
                if value != _JSON or JSON not in self.media_types:
                    self._check_content_type(value.decode("latin-1"))
            elif name == b"content-encoding":
                raise UnsupportedMediaTypeError(self.media_types)
            elif name == b"content-length" and value.isdigit() and _is_above(value, limit_bytes):
                raise BodyTooLargeError(limit_bytes)
        if not has_content_type and self.needs_content_type and self.is_required:
            raise UnsupportedMediaTypeError(self.media_types)
        return has_content_type

    def parse_json(self, body: bytes, *, has_content_type: bool) -> Any:
        """Return the parsed JSON document.

        orjson, because the standard library's parser also accepts NaN, lone surrogates,
        UTF-16 and integers of thousands of digits.

        Raises:
            UnsupportedMediaTypeError: There is a body and no content type.
            InvalidFieldError: The document may have only so many values, and has more.
            MalformedBodyError: The body is not exactly one JSON document.
        """
        if not has_content_type and self.needs_content_type:
            raise UnsupportedMediaTypeError(self.media_types)
        if self.max_values is not None and len(body) > self.max_values:  # each value has a byte at least
            _check_values(body, self.max_values)
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError:
            raise MalformedBodyError from None

    def _check_content_type(self, content_type: str) -> None:
        media_type, *parameters = (part.strip() for part in content_type.lower().split(";"))
        charsets = {parameter.replace('"', "") for parameter in parameters if parameter.startswith("charset")}
        is_declared = any(fnmatchcase(media_type, declared) for declared in self.media_types)
        if not is_declared or (self.is_json and charsets - _UTF8):
            raise UnsupportedMediaTypeError(self.media_types)


def rules_of(route: APIRoute) -> BodyRules | None:
    """Return the rules for the body that the route declares, or None if it declares none.

    A JSON body is also accepted with the other JSON media types that the route documents in `openapi_extra`.
    """
    if route.body_field is None:
        return None
    declared = cast(params.Body, route.body_field.field_info)
    is_form = isinstance(declared, params.Form) and not isinstance(declared, params.File)
    strict = route.strict_content_type
    documented: Iterable[str] = (route.openapi_extra or {}).get("requestBody", {}).get("content", ())
    others = [name for name in documented if _is_json(declared.media_type) and _is_json(name)]
    return BodyRules(
        media_types=_FORMS if is_form else tuple(dict.fromkeys([declared.media_type, *others])),
        is_required=declared.is_required(),
        needs_content_type=strict.value if isinstance(strict, DefaultPlaceholder) else strict,
        max_values=getattr(declared.annotation, "max_json_values", None),
    )


async def read_body(receive: Receive, limit_bytes: int) -> bytes:
    """Return the whole body.

    Raises:
        BodyTooLargeError: The body is longer than the limit. Reading stops at the limit.
        ClientDisconnect: The client closed the connection.
    """
    chunks = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit_bytes:
            raise BodyTooLargeError(limit_bytes)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks) if len(chunks) > 1 else chunk


async def with_whole_body(scope: Scope, receive: Receive, limit_bytes: int) -> Receive:
    """Wait for a body that the endpoint need not read, and return a `receive` that gives it.

    Raises:
        BodyTooLargeError: The body, or its declared length, is longer than the limit.
        ClientDisconnect: The client closed the connection.
    """
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and _is_above(value, limit_bytes):
            raise BodyTooLargeError(limit_bytes)
    return repeated(await read_body(receive, limit_bytes), receive)


def limited(receive: Receive, limit_bytes: int) -> Receive:
    """Return a `receive` that raises `BodyTooLargeError` as soon as the body is longer than the limit."""
    size = 0

    async def receive_within_limit() -> Message:
        nonlocal size
        message = await receive()
        if message["type"] == "http.request":
            size += len(message.get("body", b""))
            if size > limit_bytes:
                raise BodyTooLargeError(limit_bytes)
        return message

    return receive_within_limit


def repeated(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives a body that was read before, for code that reads it from the request."""
    is_sent = False

    async def receive_again() -> Message:
        nonlocal is_sent
        if is_sent:
            return await receive()
        is_sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again


def _check_values(body: bytes, max_values: int) -> None:
    """Refuse a document of many small values before it is parsed: 1 MiB of `{},` would block the event loop for 50 ms.

    Values are counted by the commas and brackets before them, those in texts left out.
    """
    unescaped = body.replace(rb"\\", b"").replace(rb"\"", b"")
    is_dense = unescaped.count(b'"') > 4 * max_values  # two for each text, and two for its name
    if not is_dense:
        outside = b"".join(unescaped.split(b'"')[::2])
        is_dense = sum(map(outside.count, (b",", b"[", b"{"))) > max_values
    if is_dense:
        raise InvalidFieldError("body", f"Input should have at most {max_values:,} values")


def _is_json(media_type: str) -> bool:
    main, _, subtype = media_type.partition("/")
    return main == "application" and (subtype == "json" or subtype.endswith("+json"))


def _is_above(digits: bytes, limit: int) -> bool:
    # `int()` raises ValueError for thousands of digits. No limit has more than 18.
    return len(digits) > 18 or int(digits) > limit
