"""How an answer is rendered: once, straight from the dataclasses."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
from starlette.responses import Response


def json_response(
    content: Any, *, headers: Mapping[str, str] | None = None, status: HTTPStatus = HTTPStatus.OK
) -> Response:
    """An answer whose body is the content as JSON, times in UTC with a `Z`."""
    body = orjson.dumps(content, option=orjson.OPT_UTC_Z)
    return Response(body, status_code=status, headers=headers, media_type="application/json")
