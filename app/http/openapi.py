"""The OpenAPI document: FastAPI's, with the failures, headers and limits that routes share."""

from collections.abc import Iterable
from http import HTTPStatus
from itertools import groupby
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic.json_schema import models_json_schema

from app.errors import (
    BodyTooLargeError,
    DatabaseUnavailableError,
    IdempotencyKeyReusedError,
    InvalidFieldError,
    MalformedBodyError,
    OverloadedError,
    PoolExhaustedError,
    PreconditionFailedError,
    RateLimitedError,
    RequestError,
    SchemaOutdatedError,
    StatementTimeoutError,
    UnsupportedMediaTypeError,
)
from app.middleware.problems import MEDIA_TYPE
from app.schemas.problem import Problem
from app.settings import Settings

_PROBLEM = {"$ref": "#/components/schemas/Problem"}

_TAGS = [
    {"name": "items", "description": "What this service is for."},
    {"name": "system", "description": "For orchestrators, for Prometheus, and for whoever wonders what this is."},
]

_CONVENTIONS = """{purpose}

- **Failures** are problem documents (RFC 9457). `code` is for programs and stays, `detail` is for people, and
  `request_id` is what the operators find it by: it is the `X-Request-ID` of the request, or a new one.
- **Versions**: an item's `ETag` changes with every write. `If-None-Match` saves reading it again, `If-Match`
  keeps a write from overwriting what its client has not seen.
- **Retries**: a `POST` with an `Idempotency-Key` makes one item, however often it is sent within 24 hours.
- **Bounds**: a body may have {max_body_bytes:,} bytes, and a page 100 items. {quota}
- `HEAD` works wherever `GET` does.
"""

_QUOTA_SENTENCE = (
    "A client may send `{read}` reading and `{write}` writing requests; `RateLimit` says what is left, "
    "and past it the answer is 429."
)


def header(description: str, example: str | None = None) -> dict[str, Any]:
    """A header of an answer, for the OpenAPI document."""
    described: dict[str, Any] = {"description": description, "schema": {"type": "string"}}
    return described if example is None else described | {"example": example}


ETAG = {"ETag": header("The item's version: another one after every write.", '"1-1795352400123456"')}

_EVERYWHERE = {
    "X-Request-ID": header(
        "The request's id: as it was sent, or made here. It stands in the logs.", "52629100cd505c7b204720ef"
    )
}
_QUOTA = {
    "RateLimit-Policy": header(
        "The client's quota and its window in seconds, as in the IETF's draft on rate limit fields.",
        '"read";q=6000;w=60',
    ),
    "RateLimit": header(
        "What is left of it, and the seconds until more is there.",
        '"read";r=5999;t=60',
    ),
}
_RETRY_AFTER = {"Retry-After": header("Seconds after which to try again.", "1")}


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of the application, made once."""
    if app.openapi_schema is None:
        settings: Settings = app.state.settings
        schema = get_openapi(
            title=app.title,
            version=app.version,
            description=_description(app, settings),
            routes=app.routes,
            tags=_TAGS,
        )
        _, definitions = models_json_schema([(Problem, "serialization")], ref_template="#/components/schemas/{model}")
        components = schema.setdefault("components", {}).setdefault("schemas", {})
        components.update(definitions["$defs"])
        for unused in ("HTTPValidationError", "ValidationError"):
            components.pop(unused, None)
        for route in app.routes:
            if isinstance(route, APIRoute) and route.include_in_schema:
                for method in route.methods or ():
                    operation = schema["paths"][route.path_format][method.lower()]
                    operation["operationId"] = route.name
                    _complete(route.path_format, method, operation, settings)
        app.openapi_schema = schema
    return app.openapi_schema


def _description(app: FastAPI, settings: Settings) -> str:
    quota = _QUOTA_SENTENCE.format(read=settings.rate_limit_read, write=settings.rate_limit_write)
    return _CONVENTIONS.format(
        purpose=app.description,
        max_body_bytes=settings.max_body_bytes,
        quota=quota if settings.rate_limit_enabled else "",
    )


def _complete(path: str, method: str, operation: dict[str, Any], settings: Settings) -> None:
    """Add what the route does not say by itself."""
    for parameter in operation.get("parameters", ()):
        schema = parameter["schema"] = _as_sent(parameter["schema"])
        if "description" in schema:
            parameter.setdefault("description", schema["description"])
        if parameter["in"] == "header":
            parameter["name"] = parameter["name"].title()  # as everybody writes it
    responses = operation["responses"]
    responses.pop("422", None)
    is_limited = "system" not in operation["tags"]
    failures = _failures(path, method, settings) if is_limited else ()
    responses |= {str(status): response for status, response in failed(*failures).items()}
    operation["responses"] = responses = dict(sorted(responses.items()))
    responses["default"] = {"description": "Any other failure.", "content": {MEDIA_TYPE: {"schema": _PROBLEM}}}
    quota = _QUOTA if is_limited and settings.rate_limit_enabled else {}
    for response in responses.values():
        response["headers"] = response.get("headers", {}) | _EVERYWHERE | quota


def _as_sent(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter's schema without what the handler sees only: null where it is absent, a list of a header's lines."""
    kinds = [kind for kind in schema.pop("anyOf", ()) if kind != {"type": "null"}]
    for kind in kinds:
        schema |= kind["items"] if kind.get("type") == "array" else kind
    return schema


def _failures(path: str, method: str, settings: Settings) -> Iterable[RequestError]:
    """What a client has to reckon with, an example of each."""
    if method in {"POST", "PUT", "PATCH"}:
        yield from (MalformedBodyError(), BodyTooLargeError(settings.max_body_bytes), UnsupportedMediaTypeError())
        yield InvalidFieldError("name", "String should have at least 1 character")
    else:
        yield InvalidFieldError("id" if "{" in path else "page", "Input should be a whole number")
    if method == "POST":
        yield IdempotencyKeyReusedError()
    if "{" in path and method != "GET":
        yield PreconditionFailedError(1)
    if settings.rate_limit_enabled:
        yield RateLimitedError(12)
    yield from (DatabaseUnavailableError(), OverloadedError(), PoolExhaustedError(), SchemaOutdatedError())
    yield StatementTimeoutError()


def failed(*errors: RequestError) -> dict[int | str, dict[str, Any]]:
    """The answers to these failures by their status, with an example of each."""
    by_status = sorted(errors, key=lambda error: error.status)
    return {status.value: _answer(list(alike)) for status, alike in groupby(by_status, key=lambda error: error.status)}


def _answer(errors: list[RequestError]) -> dict[str, Any]:
    """An answer with one status, whose codes tell its causes apart."""
    causes = "\n".join(f"- `{error.code}`: {error.__doc__}" for error in errors)
    examples = {error.code: {"value": _example(error)} for error in errors}
    response: dict[str, Any] = {
        "description": causes,
        "content": {MEDIA_TYPE: {"schema": _PROBLEM, "examples": examples}},
    }
    if any(error.retry_after_seconds for error in errors):
        response["headers"] = _RETRY_AFTER
    return response


def _example(error: RequestError) -> dict[str, Any]:
    status: HTTPStatus = error.status
    problem = Problem(
        type="about:blank",
        title=status.phrase,
        status=status,
        detail=str(error),
        code=error.code,
        request_id="52629100cd505c7b204720ef",
    )
    return problem.model_dump(exclude_none=True) | dict(error.members)
