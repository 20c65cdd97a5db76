"""Binds the arguments of an endpoint by a plan that is made once, if the endpoint has the simple form."""

import asyncio
import copy
import inspect
from collections.abc import Iterable, Sequence
from typing import Any, cast
from urllib.parse import parse_qsl

from fastapi._compat import (
    ModelField,
    field_annotation_is_scalar,
    field_annotation_is_scalar_sequence,
    field_annotation_is_sequence,
    get_missing_field_error,
    lenient_issubclass,
)
from fastapi._compat.v2 import _regenerate_error_with_loc
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_typed_return_annotation
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import Json, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.auth.scopes import access_token
from app.http.body import BodyRules, limited, read_body, repeated, rules_of

_LONG_BODY_BYTES = 64 * 1024

_NOT_A_RESPONSE = "{} declares that it returns a Response, and returned {}. Change its return annotation."


class Binding:
    """Calls an endpoint of the simple form: the same arguments and errors as FastAPI's solver, in the same order.

    FastAPI analyses the declaration again for each request, within three exit stacks, which takes several times
    as long.
    """

    def __init__(self, declared: Dependant, body_rules: BodyRules | None) -> None:
        self._endpoint: Any = declared.call
        self._dependencies: list[tuple[str | None, Any, bool]] = [
            (dependency.name, dependency.call, dependency.request_param_name is not None)
            for dependency in _called(declared)
        ]
        self._path = [(field.alias, field.name, field, ("path", field.alias)) for field in declared.path_params]
        self._query = _Parameters("query", declared.query_params) if declared.query_params else None
        self._headers = _Parameters("header", declared.header_params) if declared.header_params else None
        self._body = declared.body_params[0] if declared.body_params else None
        self._body_rules = body_rules or BodyRules()
        self._request_name = declared.request_param_name
        self._needs_request = bool(self._request_name or any(takes_request for *_, takes_request in self._dependencies))
        fields = (*declared.query_params, *declared.header_params)
        self._defaults = {field.name: field.get_default() for field in fields if not field.field_info.is_required()}

    async def call(self, scope: Scope, receive: Receive, send: Send, limit_bytes: int) -> Response:
        """Read the body, call the dependencies, validate the parameters, and call the endpoint.

        Raises:
            RequestValidationError: Some parameters are invalid. The error contains all of them.
            TypeError: The endpoint returned something other than the Response that it declares.
        """
        arguments = self._defaults.copy()
        document, body = None, b""
        if self._body is not None:
            has_content_type = self._body_rules.check_headers(scope["headers"], limit_bytes)
            body = await read_body(receive, limit_bytes)
            document = self._body_rules.parse_json(body, has_content_type=has_content_type)
            if len(body) > _LONG_BODY_BYTES:
                await asyncio.sleep(0)  # parsing and validating are two parts, between which others run
        request = None
        if self._needs_request:
            receive = limited(receive, limit_bytes) if self._body is None else repeated(body, receive)
            request = Request(scope, receive, send)
        for name, dependency, takes_request in self._dependencies:
            value = await (dependency(request) if takes_request else dependency())
            if name is not None:
                arguments[name] = value
        if errors := self._validate(scope, document, arguments):
            raise RequestValidationError(errors, body=document)
        if self._request_name is not None:
            arguments[self._request_name] = request
        response = await self._endpoint(**arguments)
        if not isinstance(response, Response):
            raise TypeError(_NOT_A_RESPONSE.format(self._endpoint, type(response)))
        return response

    def _validate(self, scope: Scope, document: Any, arguments: dict[str, Any]) -> list[dict[str, Any]]:
        errors: list[dict[str, Any]] = []
        for key, name, field, location in self._path:
            arguments[name] = _validated(field, scope["path_params"][key], location, errors)
        if self._query:
            query = scope["query_string"]
            pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True) if query else ()
            self._query.bind(self._query.group(pairs), arguments, errors)
        if self._headers:
            self._headers.bind(self._headers.group(scope["headers"]), arguments, errors)
        if self._body is not None:
            arguments[self._body.name] = _validated(self._body, document, ("body",), errors)
        return errors


class _Parameters:
    """The parameters in one part of the request."""

    def __init__(self, part: str, fields: Sequence[ModelField]) -> None:
        self._is_header = part == "header"
        self._fields = [
            (
                field.alias.lower().encode("latin-1") if self._is_header else field.alias,
                field,
                (part, field.alias),
                field_annotation_is_sequence(field.field_info.annotation),
            )
            for field in fields
        ]
        self._keys = frozenset(key for key, *_ in self._fields)
        self._has_required = any(field.field_info.is_required() for field in fields)

    def group(self, pairs: Iterable[tuple[Any, Any]]) -> dict[Any, list[Any]]:
        """Return the values of each key, in their order."""
        groups: dict[Any, list[Any]] = {}
        for key, value in pairs:
            if key in self._keys:
                groups.setdefault(key, []).append(value)
        return groups

    def bind(self, groups: dict[Any, list[Any]], arguments: dict[str, Any], errors: list[dict[str, Any]]) -> None:
        """Add the validated values to the arguments. A missing value has its default there."""
        if not groups and not self._has_required:
            return
        for key, field, location, is_list in self._fields:
            values = groups.get(key)
            if values is not None:
                if self._is_header:
                    values = [value.decode("latin-1") for value in values]
                # As FastAPI does: of several values the last one in a query counts, and the first header.
                value = values if is_list else values[0 if self._is_header else -1]
                arguments[field.name] = _validated(field, value, location, errors)
            elif field.field_info.is_required():
                errors.append(get_missing_field_error(location))


def _validated(field: ModelField, value: Any, location: tuple[str, ...], errors: list[dict[str, Any]]) -> Any:
    """Return the validated value, or add its errors. As `ModelField.validate`, without two layers of calls."""
    try:
        return field._type_adapter.validator.validate_python(value, from_attributes=True)  # noqa: SLF001
    except ValidationError as error:
        errors += _regenerate_error_with_loc(errors=error.errors(include_url=False), loc_prefix=location)
        return None


def has_simple_form(route: APIRoute) -> bool:
    """Return whether a `Binding` can call the endpoint of the route exactly as FastAPI does.

    The simple form: a coroutine function that is annotated to return a `Response`, with path, query and header
    parameters, one JSON body, the request, and simple dependencies.
    """
    declared = route.dependant
    dependencies = _called(declared)
    calls = [dependency.call for dependency in dependencies]
    return (
        _is_coroutine_function(declared.call)
        and lenient_issubclass(get_typed_return_annotation(route.endpoint), Response)
        and not _has_other_parameters(declared)
        and all(field.alias in route.param_convertors for field in declared.path_params)
        and all(
            _is_simple_parameter(field)
            for field in (*declared.path_params, *declared.query_params, *declared.header_params)
        )
        and _has_simple_body(route)
        and all(_is_simple_dependency(dependency) for dependency in dependencies)
        and len(calls) == len(set(calls))  # FastAPI calls a repeated dependency once
    )


def _called(declared: Dependant) -> list[Dependant]:
    """Return the dependencies that are called. `access_token` without a name only names scopes for `Route`."""
    return [entry for entry in declared.dependencies if entry.call is not access_token or entry.name is not None]


def _is_coroutine_function(call: Any) -> bool:
    # FastAPI looks behind decorators, which may hide a generator or a function of another kind.
    return inspect.iscoroutinefunction(call) and inspect.iscoroutinefunction(inspect.unwrap(call))


def _has_other_parameters(declared: Dependant) -> bool:
    return bool(
        declared.cookie_params
        or declared.response_param_name
        or declared.background_tasks_param_name
        or declared.http_connection_param_name
        or declared.websocket_param_name
        or declared.security_scopes_param_name
    )


def _is_simple_parameter(field: ModelField) -> bool:
    info = field.field_info
    annotation = info.annotation
    return (
        (field_annotation_is_scalar(annotation) or field_annotation_is_scalar_sequence(annotation))
        and not any(type(entry) is Json for entry in info.metadata)
        and info.validation_alias in (None, field.alias)
        and not field.config
        and not info.validate_default
        and info.default_factory is None
        and copy.deepcopy(info.default) is info.default  # FastAPI copies it for each request
    )


def _has_simple_body(route: APIRoute) -> bool:
    body, rules = route.body_field, rules_of(route)
    if body is None or rules is None:
        return True
    # For an embedded body, and for several, FastAPI makes a field of its own.
    is_the_parameter = [id(body)] == [id(field) for field in route.dependant.body_params]
    return is_the_parameter and rules.is_json and rules.is_required and rules.needs_content_type


def _is_simple_dependency(declared: Dependant) -> bool:
    """Return whether the dependency is a coroutine function that takes the request or nothing."""
    return (
        _is_coroutine_function(declared.call)
        and not declared.dependencies
        and not _has_other_parameters(declared)
        and not (declared.path_params or declared.query_params or declared.header_params or declared.body_params)
        and declared.concurrency is None
        and not any(
            parameter.kind is inspect.Parameter.KEYWORD_ONLY
            for parameter in inspect.signature(cast(Any, declared.call)).parameters.values()
        )
    )
