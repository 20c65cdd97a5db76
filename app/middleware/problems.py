"""How a failure is answered: as RFC 9457 problem details, in one place."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
import structlog
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import NotReadyError, OverloadedError, RequestError, root_cause

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"

_TOLD_ELSEWHERE = (NotReadyError, OverloadedError)
"""Readiness logs its changes, and not each probe; refusals under load are counted, for logging them adds to it."""

_INVALID = "Validation failed; `errors` lists the invalid fields."
_INTERNAL_ERROR = "Internal error. Quote the request id when you report it."


class Problems:
    """Answers every exception that comes up from the routes. Nothing passes but a client that is gone."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the rest, and answer what it raises."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, watch)
        except ClientDisconnect:
            return  # Nobody is left to answer.
        except Exception as error:
            if started:  # Too late for an answer: the server cuts the connection.
                raise
            _name_route(scope)
            response = answer(scope, error)
            # The limits stand further in, and say here what every answer to a counted request must carry.
            response.raw_headers.extend(scope["state"].get("rate_limit_headers", ()))
            await response(scope, receive, send)


def _name_route(scope: Scope) -> None:
    """Find the route of a request that was refused before it was routed: log and metrics name it."""
    if "route" not in scope:
        for route in scope["app"].routes:
            match, child_scope = route.matches(scope)
            if match is not Match.NONE:
                scope["route"] = child_scope.get("route", route)
                return


def answer(scope: Scope, error: Exception) -> Response:
    """The answer to a failure of this request. A defect is logged with its traceback and shows none of it."""
    request_id = scope["state"]["request_id"]
    if isinstance(error, RequestError):
        if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR and not isinstance(error, _TOLD_ELSEWHERE):
            log.warning("request_failed", code=error.code, cause=root_cause(error))
        return _problem(error.status, error.code, str(error), request_id, error.headers, error.members)
    if isinstance(error, RequestValidationError):
        members = {"errors": [_field_problem(e) for e in error.errors()]}
        return _problem(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_request", _INVALID, request_id, {}, members)
    if isinstance(error, HTTPException):
        status = HTTPStatus(error.status_code)
        return _problem(status, status.name.lower(), f"{status.description}.", request_id, error.headers or {}, {})
    log.error("request_crashed", exc_info=error)
    body = internal_error_body(request_id)
    return Response(body, status_code=HTTPStatus.INTERNAL_SERVER_ERROR, media_type=MEDIA_TYPE)


def internal_error_body(request_id: str) -> bytes:
    """The problem document of a defect."""
    return _body(HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", _INTERNAL_ERROR, request_id, {})


async def handle(request: Request, error: Exception) -> Response:
    """`answer`, as FastAPI calls its exception handlers."""
    return answer(request.scope, error)


def _field_problem(error: Mapping[str, Any]) -> dict[str, str]:
    """What Pydantic found, without the input: it may be secret, or not even be text."""
    return {"field": _field(*error["loc"]), "message": error["msg"].removeprefix("Value error, ")}


def _field(part: str, *path: str | int) -> str:
    if part == "header":
        return str(path[0]).title()  # as it is documented; which of its lines says nothing to a client
    return ".".join(map(str, path)) or part


def _problem(  # noqa: PLR0917  # these are what a problem consists of
    status: HTTPStatus,
    code: str,
    detail: str,
    request_id: str,
    headers: Mapping[str, str],
    members: Mapping[str, Any],
) -> Response:
    body = _body(status, code, detail, request_id, members)
    return Response(body, status_code=status, headers=headers, media_type=MEDIA_TYPE)


def _body(status: HTTPStatus, code: str, detail: str, request_id: str, members: Mapping[str, Any]) -> bytes:
    return orjson.dumps(
        {
            "type": "about:blank",
            "title": status.phrase,
            "status": status.value,
            "detail": detail,
            "code": code,
            "request_id": request_id,
            **members,
        }
    )
