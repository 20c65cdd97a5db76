"""Renders responses as JSON, directly from dataclasses."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import orjson
from starlette.responses import Response

_JSON: Final = "application/json"
_JSON_TYPE: Final = (b"content-type", _JSON.encode())


def json_response(
    content: Any, *, headers: Mapping[str, str] | None = None, status: HTTPStatus = HTTPStatus.OK
) -> Response:
    """Return a response with the content as JSON."""
    return _JsonResponse(orjson.dumps(content, option=orjson.OPT_UTC_Z), headers or {}, status)


def rendered_response(body: bytes, *, headers: Mapping[str, str] | None = None) -> Response:
    """Return a response with JSON that has been rendered already."""
    return _JsonResponse(body, headers or {}, HTTPStatus.OK)


class _JsonResponse(Response):
    """A response whose headers are made in one step."""

    def __init__(self, body: bytes, headers: Mapping[str, str], status: HTTPStatus) -> None:
        self.status_code = status
        self.media_type = _JSON
        self.background = None
        self.body = body
        fields = {name.lower().encode("latin-1"): value.encode("latin-1") for name, value in headers.items()}
        fields.setdefault(*_JSON_TYPE)
        fields[b"content-length"] = b"%d" % len(body)
        self.raw_headers = list(fields.items())


def render(content: Any) -> bytes:
    """Return the content as JSON. Times are in UTC and end in `Z`."""
    return orjson.dumps(content, option=orjson.OPT_UTC_Z)
