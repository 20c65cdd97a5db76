"""A route whose arguments are bound by a plan that is made when the route is declared."""

import inspect
from collections.abc import Sequence
from typing import Any, get_origin
from urllib.parse import parse_qsl

from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from app.http.body import read_json


class Route(APIRoute):
    """Calls its endpoint with path, query, headers, JSON body and dependencies, each validated once.

    FastAPI analyses the signature again for each request, within three exit stacks, which takes several
    times as long. Here endpoints return a `Response`, and dependencies are coroutines that take the request.

    Raises:
        TypeError: The endpoint needs more than that. Declare it on a plain `APIRouter`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        declared = self.dependant
        if declared.cookie_params or declared.background_tasks_param_name or declared.response_param_name:
            raise TypeError(f"{self.name} declares cookies, background tasks or a response parameter.")
        self._path = [_Parameter("path", field) for field in declared.path_params]
        self._query = {field.alias: _Parameter("query", field) for field in declared.query_params}
        self._headers = {field.alias.encode(): _Parameter("header", field) for field in declared.header_params}
        self._body = _Parameter("body", self.body_field) if self.body_field else None
        optional = [
            field for field in (*declared.query_params, *declared.header_params) if not field.field_info.is_required()
        ]
        self._defaults = {field.name: field.get_default() for field in optional}
        self._dependencies = [(name, _dependency(d)) for d in declared.dependencies if (name := d.name)]

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Bind the arguments, call the endpoint, send the response."""
        if scope["method"] not in (self.methods or ()):
            raise HTTPException(405)
        request = Request(scope, receive, send)
        response = await self.endpoint(**await self._bind(request))
        await response(scope, receive, send)

    async def _bind(self, request: Request) -> dict[str, Any]:
        """Return the endpoint's arguments.

        Raises:
            RequestValidationError: Some arguments are invalid. The error contains all of them.
        """
        scope = request.scope
        arguments = self._defaults.copy()
        errors: list[dict[str, Any]] = []
        if self._body:
            self._body.bind(await read_json(request), arguments, errors)
        for parameter in self._path:
            parameter.bind(scope["path_params"][parameter.alias], arguments, errors)
        if self._query:
            values = _grouped(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True), self._query)
            for alias, parameter in self._query.items():
                parameter.bind_all(values.get(alias), arguments, errors)
        if self._headers:
            headers = _grouped(scope["headers"], self._headers)
            for key, parameter in self._headers.items():
                parameter.bind_all(headers.get(key), arguments, errors)
        if errors:
            raise RequestValidationError(errors)
        if self.dependant.request_param_name:
            arguments[self.dependant.request_param_name] = request
        for name, dependency in self._dependencies:
            arguments[name] = await dependency(request)
        return arguments


class _Parameter:
    """One argument of an endpoint and its validation."""

    def __init__(self, place: str, field: Any) -> None:
        # The field is FastAPI's ModelField, which has no public name.
        self.alias = field.alias
        self._name = field.name
        self._field = field
        self._place = (place,) if place == "body" else (place, field.alias)
        self._is_required = field.field_info.is_required()
        self._is_list = any(get_origin(kind) is list for kind in _members(field.field_info.annotation))

    def bind_all(self, values: list[Any] | None, arguments: dict[str, Any], errors: list[dict[str, Any]]) -> None:
        """Bind all values if a list is declared, else the last one. A required value that is missing is an error."""
        if values is None:
            if self._is_required:
                errors.append({"loc": self._place, "msg": "Field required", "type": "missing"})
            return
        texts = [value.decode("latin-1") if isinstance(value, bytes) else value for value in values]
        self.bind(texts if self._is_list else texts[-1], arguments, errors)

    def bind(self, value: Any, arguments: dict[str, Any], errors: list[dict[str, Any]]) -> None:
        """Bind the validated value, or append its errors."""
        arguments[self._name], invalid = self._field.validate(value, {}, loc=self._place)
        errors.extend(invalid)


def _members(annotation: Any) -> Sequence[Any]:
    """Return the annotation, and the members if it is a union."""
    return [annotation, *getattr(annotation, "__args__", ())]


def _grouped(pairs: Sequence[tuple[Any, Any]], parameters: dict[Any, _Parameter]) -> dict[Any, list[Any]]:
    """Return the values of each key in `parameters`, in their order."""
    groups: dict[Any, list[Any]] = {}
    for key, value in pairs:
        if key in parameters:
            groups.setdefault(key, []).append(value)
    return groups


def _dependency(dependant: Dependant) -> Any:
    parameters = inspect.signature(dependant.call).parameters if dependant.call else {}
    if list(parameters) != [dependant.request_param_name] or not inspect.iscoroutinefunction(dependant.call):
        raise TypeError(f"The dependency {dependant.name} must be a coroutine function of the request alone.")
    return dependant.call
