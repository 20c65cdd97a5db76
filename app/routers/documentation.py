"""The OpenAPI document: FastAPI's, with the error answers and headers that all routes share."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from app.schemas.problem import Problem

MEDIA_TYPE = "application/problem+json"

_PROBLEM = {"schema": {"$ref": "#/components/schemas/Problem"}}
_WITH_BODY = {
    400: "The body is not one JSON document in UTF-8.",
    413: "The body is too long.",
    415: "The body is not declared as `application/json`, or it is compressed.",
}
_WITH_ID = {404: "There is no such item."}
_GUARDED = {412: "The item is no longer as `If-Match` describes it."}
_LIMITED = {
    422: "The request is not as documented; `errors` says where.",
    429: "This client has sent too many requests.",
    503: "The database is out of reach or busy.",
    504: "The database did not answer in time.",
}
_RETRYABLE = {429, 503}


def header(description: str) -> dict[str, Any]:
    """A header of an answer, for the OpenAPI document."""
    return {"description": description, "schema": {"type": "string"}}


ETAG = {"ETag": header("The item's version: another one after every write.")}

_EVERYWHERE = {"X-Request-ID": header("The request's id: as it was sent, or made here. It stands in the logs.")}
_QUOTA = {
    "RateLimit-Policy": header("The client's quota, as in the IETF's draft on rate limit fields."),
    "RateLimit": header("What is left of it, and the seconds until it is whole again."),
}


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of the application, made once."""
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        _, definitions = models_json_schema([(Problem, "serialization")], ref_template="#/components/schemas/{model}")
        components = schema.setdefault("components", {}).setdefault("schemas", {})
        components.update(definitions["$defs"])
        for unused in ("HTTPValidationError", "ValidationError"):
            components.pop(unused, None)
        for path, operations in schema["paths"].items():
            for method, operation in operations.items():
                _complete(path, method, operation)
        app.openapi_schema = schema
    return app.openapi_schema


def _complete(path: str, method: str, operation: dict[str, Any]) -> None:
    """Add what the route does not say by itself."""
    shared: dict[int, str] = {}
    if "requestBody" in operation:
        shared |= _WITH_BODY
    if "{item_id}" in path:
        shared |= _WITH_ID
        if method != "get":
            shared |= _GUARDED
    if path.startswith("/items"):
        shared |= _LIMITED
    responses = operation["responses"]
    responses.pop("422", None)
    for status, description in sorted(shared.items()):
        responses[str(status)] = {"description": description, "content": {MEDIA_TYPE: _PROBLEM}}
        if status in _RETRYABLE:
            responses[str(status)]["headers"] = {"Retry-After": header("Seconds after which to try again.")}
    responses["default"] = {"description": "Any other failure.", "content": {MEDIA_TYPE: _PROBLEM}}
    for response in responses.values():
        response["headers"] = response.get("headers", {}) | _EVERYWHERE | (_QUOTA if shared else {})
