"""The answers to failures, as RFC 9457 problem details."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
import structlog
from fastapi.exceptions import RequestValidationError
from fastapi.utils import is_body_allowed_for_status_code
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from app.errors import (
    NotReadyError,
    OverloadedError,
    RequestError,
    RequestRefusedError,
    root_cause,
)
from app.state_keys import FAILURE_CODE

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"

_LOGGED_ELSEWHERE = (NotReadyError, OverloadedError, RequestRefusedError)
"""Errors without a line of their own. Readiness logs its changes, not each probe. Refusals under load are
counted; logging them would add to the load. A version of HTTP that is refused (505) is no failure of the service."""

INTERNAL_ERROR_CODE = "internal_error"
_INVALID_CODE = "invalid_request"

_INVALID = "Validation failed; `errors` lists the invalid fields."
_INTERNAL_ERROR = "Internal error. Quote the request id when you report it."

_CODES = {
    413: "request_entity_too_large",
    414: "request_uri_too_long",
    416: "requested_range_not_satisfiable",
    422: "unprocessable_entity",
}
"""The codes of statuses whose names are others in Python 3.13 than in 3.12. A code does not change."""

_PLAINER = {"model_attributes_type": "Input should be a JSON object"}
"""What replaces a message of Pydantic that is about Python, by the type of the error."""

_NO_NUL = "Input should not contain the character NUL"
"""Pydantic's message is the regular expression that allows no NUL."""


async def respond(scope: Scope, error: Exception, receive: Receive, send: Send) -> None:
    """Answer an exception."""
    _find_route(scope)
    await answer(scope, error)(scope, receive, send)


def _find_route(scope: Scope) -> None:
    """Set the route of a request that was refused before routing, for its log line and metrics."""
    if "route" not in scope and "app" in scope:  # without "app" the server itself has refused the request
        for route in scope["app"].routes:
            match, child_scope = route.matches(scope)
            if match is not Match.NONE:
                scope["route"] = child_scope.get("route", route)
                return


def answer(scope: Scope, error: Exception) -> Response:
    """The answer to an exception. An unexpected one is logged with its traceback and answered without it."""
    state = scope["state"]
    request_id = state["request_id"]
    if isinstance(error, RequestError):
        state[FAILURE_CODE] = error.failure_code
        if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR and not isinstance(error, _LOGGED_ELSEWHERE):
            log.warning("request_failed", code=error.code, cause=root_cause(error))
        return _problem(error.status, error.code, str(error), request_id, error.headers, error.members)
    if isinstance(error, RequestValidationError):
        state[FAILURE_CODE] = _INVALID_CODE
        members = {"errors": [_field_problem(e) for e in error.errors()]}
        return _problem(HTTPStatus.UNPROCESSABLE_ENTITY, _INVALID_CODE, _INVALID, request_id, {}, members)
    if isinstance(error, HTTPException):
        return _http_exception_answer(error, state)
    state[FAILURE_CODE] = INTERNAL_ERROR_CODE
    log.error("request_crashed", exc_info=error)
    return internal_error(request_id)


def _http_exception_answer(error: HTTPException, state: dict[str, Any]) -> Response:
    """The answer to an exception that a route raises as FastAPI documents it, with the detail that the route wrote.

    A detail that is not text is the member `context`. A status that no standard names is its own code.
    """
    headers = error.headers or {}
    if not is_body_allowed_for_status_code(error.status_code):
        return Response(status_code=error.status_code, headers=headers)
    try:
        status = HTTPStatus(error.status_code)
        title, code, description = status.phrase, _CODES.get(status) or status.name.lower(), status.description
    except ValueError:
        title, code, description = "Unknown Status", f"status_{error.status_code}", ""
    members: dict[str, Any] = {}
    if not isinstance(error.detail, str):
        members = {"context": error.detail}
    elif error.detail != title:  # the default of the exception
        description = error.detail
    detail = (description or title).rstrip(".") + "."
    if error.status_code == HTTPStatus.UNPROCESSABLE_ENTITY:
        members["errors"] = [{"field": RequestError.field, "message": detail}]
    state[FAILURE_CODE] = code
    return _problem(error.status_code, code, detail, state["request_id"], headers, members, title=title)


def internal_error(request_id: str) -> Response:
    """The answer to an unexpected exception, without anything about it."""
    return _problem(HTTPStatus.INTERNAL_SERVER_ERROR, INTERNAL_ERROR_CODE, _INTERNAL_ERROR, request_id, {}, {})


async def handle(request: Request, error: Exception) -> Response:
    """Call `answer`; this is the signature of FastAPI's exception handlers."""
    return answer(request.scope, error)


def _field_problem(error: Mapping[str, Any]) -> dict[str, str]:
    """Pydantic's error without the input, which may be secret or not even text."""
    kind, value = error.get("type", ""), error.get("input")
    message = _PLAINER.get(kind) or error["msg"].removeprefix("Value error, ")
    if kind == "string_pattern_mismatch" and isinstance(value, str) and "\0" in value:
        message = _NO_NUL
    return {"field": _field(*error["loc"]), "message": message}


def _field(part: str, *path: str | int) -> str:
    if part == "header":
        return str(path[0]).title()  # the documented name; the index of a repeated header is left out
    return ".".join(map(str, path)) or part


def _problem(  # noqa: PLR0917  # the parts of a problem
    status: int,
    code: str,
    detail: str,
    request_id: str,
    headers: Mapping[str, str],
    members: Mapping[str, Any],
    *,
    title: str | None = None,
) -> Response:
    body = _body(status, code, detail, request_id, members, title=title)
    return Response(body, status_code=status, headers=headers, media_type=MEDIA_TYPE)


def _body(  # noqa: PLR0917  # the parts of a problem
    status: int, code: str, detail: str, request_id: str, members: Mapping[str, Any], title: str | None = None
) -> bytes:
    return orjson.dumps(
        {
            "type": "about:blank",
            "title": title or HTTPStatus(status).phrase,
            "status": int(status),
            "detail": detail,
            "code": code,
            "request_id": request_id,
            **members,
        }
    )
