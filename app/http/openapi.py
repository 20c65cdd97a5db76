"""The OpenAPI document: FastAPI's own, with the errors, headers and limits that all routes share."""

from collections.abc import Iterator, Sequence
from http import HTTPStatus
from itertools import groupby
from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, RouteContext, iter_route_contexts
from pydantic.json_schema import models_json_schema

from app import TITLE
from app.dependencies import get_database, get_rate_limits, get_read_database
from app.errors import (
    AuthenticationRequiredError,
    AuthUnavailableError,
    BodyTooLargeError,
    DatabasePermissionDeniedError,
    DatabaseRefusedError,
    DatabaseSetupError,
    DatabaseUnavailableError,
    IdempotencyKeyReusedError,
    InsufficientScopeError,
    InvalidFieldError,
    InvalidTokenError,
    MalformedBodyError,
    OverloadedError,
    PageTooLargeError,
    PoolExhaustedError,
    PreconditionFailedError,
    QuotaTooSmallError,
    RateLimitedError,
    RequestError,
    SchemaOutdatedError,
    SearchTooBroadError,
    SlowRequestsBusyError,
    StatementTimeoutError,
    StreamsBusyError,
    UnsupportedMediaTypeError,
)
from app.health import paths
from app.http.body import MERGE_PATCH
from app.http.ndjson import NdjsonResponse
from app.http.openapi_security import complete_operation, complete_schemes
from app.http.pagination import MAX_PAGE_BYTES
from app.http.scopes import declared_scopes
from app.middleware.problems import MEDIA_TYPE
from app.schemas.problem import Problem
from app.settings import Settings

_VALIDATION_ERROR = "HTTPValidationError"
_PROBLEM = {"$ref": "#/components/schemas/Problem"}

_NUMBER_FORMATS = {"integer": "int64", "number": "double"}
_LICENSE = {"name": "MIT", "identifier": "MIT"}
_CONTACT = {"name": f"The maintainers of the {TITLE}"}

TAGS = [
    {"name": "items", "description": "Create, read, search, change and delete items."},
    {"name": "system", "description": "For orchestrators and Prometheus, and the index of this service."},
]

_CONVENTIONS = """{purpose}

- **Errors** are problem documents (RFC 9457). `code` is for programs and does not change, `detail` is for people.
  `request_id` is the `X-Request-ID` of the request, or a new id; operators find the request in the logs by it.
- **Versions**: an `ETag` changes with every write. With `If-None-Match` an unchanged resource is not sent again.
  With `If-Match` a write does not overwrite changes that the client has not seen.
- **Retries**: `POST` requests with the same `Idempotency-Key` create once, if they are sent within 24 hours.
- **Limits**: a body can have {max_body_bytes:,} bytes, unless its route says otherwise, and a page 100 entries.
  {rate_limits}
- `HEAD` works on every path that has `GET`.
"""

_RATE_LIMIT_SENTENCE = (
    "The quota of a client is `{read}` for requests that read and `{write}` for requests that write; a route can "
    "have a limit of its own, too. `RateLimit` contains the remaining quota. A request beyond it is refused with 429."
)


def header(description: str, example: str | None = None) -> dict[str, Any]:
    """Return the documentation of a response header."""
    documented: dict[str, Any] = {"description": description, "schema": {"type": "string"}}
    return documented if example is None else documented | {"example": example}


ETAG = {"ETag": header("The version of the resource. It changes with every write.", '"1-1795352400123456"')}

MERGE_PATCH_TOO: dict[str, Any] = {"requestBody": {"content": {MERGE_PATCH: {}}}}
"""The `openapi_extra` of a route that also accepts its JSON body as a merge patch (RFC 7396)."""

_COMMON_HEADERS = {
    "X-Request-ID": header(
        "The id of the request: the one that the client sent, or a new one. The logs contain it.",
        "52629100cd505c7b204720ef",
    ),
    "Cache-Control": header(
        "`private, no-cache` for resources: a client may keep the response, and asks whether it is still current "
        "before it uses it again. `no-store` for all others.",
    ),
}
_RATE_LIMIT_HEADERS = {
    "RateLimit-Policy": header(
        "The quota of the client and its window in seconds (IETF draft on RateLimit header fields).",
        '"read";q=6000;w=60',
    ),
    "RateLimit": header(
        "The remaining quota, and the seconds until it increases.",
        '"read";r=5999;t=60',
    ),
}
_RETRY_AFTER = {"Retry-After": header("Seconds to wait before a retry.", "1")}


def complete(document: dict[str, Any], app: FastAPI) -> None:
    """Add to FastAPI's document what all routes share."""
    settings: Settings = app.state.settings
    document["info"] |= {"description": _description(app, settings), "license": _LICENSE, "contact": _CONTACT}
    document["servers"] = [{"url": settings.root_path or "/"}]
    document.setdefault("security", [])
    _, definitions = models_json_schema([(Problem, "serialization")], ref_template="#/components/schemas/{model}")
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas.update(definitions["$defs"])
    for unused in (_VALIDATION_ERROR, "ValidationError"):
        schemas.pop(unused, None)
    for route in iter_route_contexts(app.routes):
        if isinstance(route.original_route, APIRoute) and route.include_in_schema:
            for method in route.methods or ():
                _complete_operation(document["paths"][route.path_format][method.lower()], route, settings)
    complete_schemes(document, settings)
    _add_formats(document)


def _add_formats(part: Any) -> None:
    """Name the size of each number: without a format, generators of clients take 32 bits."""
    for nested in part.values() if isinstance(part, dict) else part:
        if isinstance(nested, dict | list):
            _add_formats(nested)
    if isinstance(part, dict) and isinstance(kind := part.get("type"), str) and kind in _NUMBER_FORMATS:
        part.setdefault("format", _NUMBER_FORMATS[kind])


def _description(app: FastAPI, settings: Settings) -> str:
    limits = _RATE_LIMIT_SENTENCE.format(read=settings.rate_limit_read, write=settings.rate_limit_write)
    return _CONVENTIONS.format(
        purpose=app.description,
        max_body_bytes=settings.max_body_bytes,
        rate_limits=limits if settings.rate_limit_enabled else "",
    )


def _complete_operation(operation: dict[str, Any], route: RouteContext, settings: Settings) -> None:
    """Add the errors and headers that follow from what the route declares, and simplify the parameters."""
    _complete_body(operation)
    for parameter in operation.get("parameters", ()):
        schema = parameter["schema"] = _parameter_schema(parameter["schema"])
        if "description" in schema:
            parameter.setdefault("description", schema["description"])
        if "allowEmptyValue" in schema:  # OpenAPI has it beside the schema
            parameter["allowEmptyValue"] = schema.pop("allowEmptyValue")
        if parameter["in"] == "header":
            parameter["name"] = parameter["name"].title()  # as header names are usually written
    declared = operation["responses"]
    if _VALIDATION_ERROR in str(declared.get("422")):  # FastAPI's own, which this service does not send
        del declared["422"]
    limits_rate = settings.rate_limit_enabled and route.path not in paths.PROBES
    errors = [*_possible_errors(operation, route, settings), *([RateLimitedError(12)] if limits_rate else [])]
    if complete_operation(operation, settings):
        scopes = declared_scopes(route.dependant)
        errors += [AuthenticationRequiredError(), InvalidTokenError(), AuthUnavailableError()]
        errors += [InsufficientScopeError(scopes)] if scopes else []
    documented = {str(status): response for status, response in error_responses(*errors).items()}
    operation["responses"] = responses = dict(sorted((documented | declared).items()))
    responses.setdefault("default", {"description": "Any other error.", "content": {MEDIA_TYPE: {"schema": _PROBLEM}}})
    rate_limit_headers = _RATE_LIMIT_HEADERS if limits_rate else {}
    for response in responses.values():
        response["headers"] = response.get("headers", {}) | _COMMON_HEADERS | rate_limit_headers


def _complete_body(operation: dict[str, Any]) -> None:
    """Give each content type that the route names without a schema the schema of the first one."""
    if "requestBody" in operation:
        content = operation["requestBody"]["content"]
        first = next(iter(content.values()))
        content.update({media_type: declared or first for media_type, declared in content.items()})


def _parameter_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of the parameter as text: without null, which only the handler sees, and without lists."""
    members = [member for member in schema.get("anyOf", ()) if member != {"type": "null"}]
    if len(members) != 1:
        return schema
    member: dict[str, Any] = members[0]
    others = {name: value for name, value in schema.items() if name != "anyOf"}
    return others | (member["items"] if member.get("type") == "array" else member)


def _possible_errors(operation: dict[str, Any], route: RouteContext, settings: Settings) -> Iterator[RequestError]:
    """Return an example of each error that follows from the parameters, the body and the dependencies."""
    names = [parameter["name"] for parameter in operation.get("parameters", ())]
    if "requestBody" in operation:
        limit_bytes = settings.max_body_bytes if route.max_body_size is None else route.max_body_size
        media_types = operation["requestBody"]["content"]
        yield from (MalformedBodyError(), BodyTooLargeError(limit_bytes), UnsupportedMediaTypeError(media_types))
    if names or "requestBody" in operation:
        yield _invalid_field(operation)
    if "Idempotency-Key" in names:
        yield IdempotencyKeyReusedError()
    if "per_page" in names:
        yield PageTooLargeError(MAX_PAGE_BYTES)
        if "q" in names:
            yield SearchTooBroadError()
    if "If-Match" in names:
        yield PreconditionFailedError("resource", 1)
    dependencies = {dependency.call for dependency in _dependencies(route.dependant)}
    if get_rate_limits in dependencies and settings.rate_limit_enabled:
        yield QuotaTooSmallError(500, settings.rate_limit_write)
    if dependencies & {get_database, get_read_database}:
        yield from _database_errors(names)
    if getattr(route.response_class, "value", route.response_class) is NdjsonResponse:
        yield StreamsBusyError()


def _database_errors(names: Sequence[str]) -> Iterator[RequestError]:
    """Return an example of each error of a route that uses the database, and has parameters of these names."""
    yield from (DatabaseUnavailableError(), OverloadedError(), PoolExhaustedError(), SchemaOutdatedError())
    yield from (DatabasePermissionDeniedError(), DatabaseSetupError(""), DatabaseRefusedError())
    yield StatementTimeoutError()
    if "q" in names:
        yield SlowRequestsBusyError()


def _invalid_field(operation: dict[str, Any]) -> InvalidFieldError:
    """An example that a client can meet: about a number in the path or the query, the body, a text, or another part."""
    parameters = operation.get("parameters", ())
    numbers = (parameter["name"] for parameter in parameters if parameter["schema"].get("type") == "integer")
    if number := next(numbers, None):
        return InvalidFieldError(number, "Input should be a valid integer")
    if "requestBody" in operation:
        return InvalidFieldError("body", "Input should be a JSON object")
    for parameter in parameters:
        if longest := parameter["schema"].get("maxLength"):
            return InvalidFieldError(parameter["name"], f"String should have at most {longest} characters")
    return InvalidFieldError(parameters[0]["name"], "Field required")


def _dependencies(declared: Dependant) -> Iterator[Dependant]:
    for dependency in declared.dependencies:
        yield dependency
        yield from _dependencies(dependency)


def error_responses(*errors: RequestError) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of the responses to these errors, by status, with an example of each."""
    by_status = sorted(errors, key=lambda error: error.status)
    groups = groupby(by_status, key=lambda error: error.status)
    return {status.value: _error_response(list(group)) for status, group in groups}


def _error_response(errors: list[RequestError]) -> dict[str, Any]:
    """Return the documentation of one status, with the code and meaning of each error that has it."""
    meanings = "\n".join(f"- `{error.code}`: {error.__doc__}" for error in errors)
    examples = {error.code: {"value": _example(error)} for error in errors}
    response: dict[str, Any] = {
        "description": meanings,
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
