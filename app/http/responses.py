"""Renders responses as JSON, directly from dataclasses."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
from starlette.responses import Response


def json_response(
    content: Any, *, headers: Mapping[str, str] | None = None, status: HTTPStatus = HTTPStatus.OK
) -> Response:
    """Return a response with the content as JSON."""
    return rendered_response(render(content), headers=headers, status=status)


def rendered_response(
    body: bytes, *, headers: Mapping[str, str] | None = None, status: HTTPStatus = HTTPStatus.OK
) -> Response:
    """Return a response with JSON that has been rendered already."""
    return Response(body, status_code=status, headers=headers, media_type="application/json")


def render(content: Any) -> bytes:
    """Return the content as JSON. Times are in UTC and end in `Z`."""
    return orjson.dumps(content, option=orjson.OPT_UTC_Z)
