"""A FastAPI route that calls simple endpoints by a `Binding`, and reads every body by the same rules."""

import inspect
from collections.abc import Callable, Coroutine
from typing import Any, Self

from fastapi._body_limit import validate_max_body_size
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, request_response
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.errors import RequestError
from app.http.binding import Binding, has_simple_form
from app.http.body import BodyRules, limited, rules_of, with_whole_body
from app.http.scopes import check_scopes, declared_scopes
from app.settings import Settings
from app.state_keys import BODY_KEPT, BODY_LONG

_Handler = Callable[[Request], Coroutine[Any, Any, Response]]

_DEFAULT_LIMIT_BYTES: int = Settings.model_fields["max_body_bytes"].default


class Route(APIRoute):
    """A route with everything that FastAPI documents.

    An endpoint of the simple form (`has_simple_form`) is called by its `Binding`, every other endpoint by
    FastAPI's own handler. This is decided when the route is made; only `app.dependency_overrides`, which can
    change at any time, always take FastAPI's handler. Both read bodies by the same rules and the same limit.

    An endpoint that declares no body is called when the body has arrived, so that a request whose body turns out to
    be malformed is not executed. If the route declares `max_body_size`, the endpoint reads the body itself.
    """

    binding: Binding | None
    """None if FastAPI's handler calls the endpoint."""

    limit_bytes: int
    """The size limit of the body: `max_body_size` where it is declared, else MAX_BODY_BYTES."""

    is_asynchronous: bool
    """Whether the endpoint and its dependencies are coroutine functions, so that none of them runs in a thread."""

    needed_scopes: frozenset[str] = frozenset()
    """The scopes that a request's token must have. Empty without authentication."""

    def __init__(self, *args: Any, max_body_size: int | None = None, **kwargs: Any) -> None:
        # FastAPI's own limit would answer in plain text, so it is not passed on.
        super().__init__(*args, **kwargs)
        validate_max_body_size(max_body_size)
        self.max_body_size = max_body_size
        self._prepare(_DEFAULT_LIMIT_BYTES)

    @classmethod
    def adopt(cls, *states: dict[str, Any], default_limit_bytes: int, checks_scopes: bool = False) -> Self:
        """Return a route with the attributes that FastAPI has resolved for another one. Later states win.

        Args:
            states: The attributes.
            default_limit_bytes: MAX_BODY_BYTES.
            checks_scopes: Whether the scopes that the route declares are required, because there is authentication.
        """
        route = cls.__new__(cls)
        for state in states:
            vars(route).update(state)
        route.app = request_response(route.get_route_handler())
        route._prepare(default_limit_bytes)  # noqa: SLF001  # its own class
        if checks_scopes:
            route.needed_scopes = declared_scopes(route.dependant)
        return route

    def _prepare(self, default_limit_bytes: int) -> None:
        self._methods = frozenset(self.methods or ())
        self._reads_body = self.body_field is not None or self.max_body_size is not None
        self.limit_bytes = default_limit_bytes if self.max_body_size is None else self.max_body_size
        self._keeps_long_body = self.body_field is not None and self.max_body_size is not None
        self.is_asynchronous = _is_asynchronous(self.dependant)
        has_own_handler = type(self).get_route_handler is not Route.get_route_handler
        self.binding = (
            Binding(self.dependant, rules_of(self)) if has_simple_form(self) and not has_own_handler else None
        )

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the endpoint and send its response.

        Raises:
            InsufficientScopeError: The token of the request lacks a scope. Its body is not read.
        """
        provider = self.dependency_overrides_provider
        if (
            self.binding is None
            or (provider is not None and provider.dependency_overrides)
            or scope["method"] not in self._methods
            or ("fastapi" in scope and "effective_route_context" in scope["fastapi"])  # not adopted by an `Application`
        ):
            receive = await self._begin(scope, receive)
            await super().handle(scope, limited(receive, self.limit_bytes), send)
            return
        response = await self.call(scope, receive, send)
        await response(scope, receive, send)

    def call(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, Response]:
        """Call the endpoint by its binding, which it must have, and return its response when it is awaited.

        Raises:
            InsufficientScopeError: As `handle` does.
        """
        if self.needed_scopes or self._keeps_long_body or BODY_LONG in scope.get("state", ()):
            return self._begin_and_call(scope, receive, send)
        return self.binding.call(scope, receive, send, self.limit_bytes)  # type: ignore[union-attr]

    async def _begin_and_call(self, scope: Scope, receive: Receive, send: Send) -> Response:
        receive = await self._begin(scope, receive)
        return await self.binding.call(scope, receive, send, self.limit_bytes)  # type: ignore[union-attr]

    async def _begin(self, scope: Scope, receive: Receive) -> Receive:
        """Check the scopes, and return the `receive` by which the endpoint gets its body."""
        if self.needed_scopes and scope["method"] in self._methods:
            check_scopes(scope, self.needed_scopes)
        if self._keeps_long_body:
            scope.setdefault("state", {})[BODY_KEPT] = True
        if BODY_LONG in scope.get("state", ()) and not self._reads_body:
            return await with_whole_body(scope, receive, self.limit_bytes)
        return receive

    def get_route_handler(self) -> _Handler:
        """Return FastAPI's handler, with the rules for bodies applied before it."""
        handler = super().get_route_handler()
        rules = rules_of(self)
        if rules is None:
            return handler
        return self._reading_json(handler, rules) if rules.is_json else self._reading_other(handler, rules)

    def _reading_json(self, handler: _Handler, rules: BodyRules) -> _Handler:
        async def read_json(request: Request) -> Response:
            has_content_type = rules.check_headers(request.scope["headers"], self.limit_bytes)
            body = await request.body()
            if body or rules.is_required:
                document = rules.parse_json(body, has_content_type=has_content_type)
                request._json = document  # noqa: SLF001  # what `request.json()` returns, to FastAPI and the endpoint
            return await handler(request)

        return read_json

    def _reading_other(self, handler: _Handler, rules: BodyRules) -> _Handler:
        async def read_other(request: Request) -> Response:
            rules.check_headers(request.scope["headers"], self.limit_bytes)
            try:
                return await handler(request)
            except HTTPException as error:
                # FastAPI turns every error while it reads a body into a 400.
                if isinstance(error.__cause__, RequestError):
                    raise error.__cause__ from None
                raise

        return read_other


def _is_asynchronous(declared: Dependant) -> bool:
    calls = declared.call, getattr(declared.call, "__call__", None)  # noqa: B004  # a class with `async def __call__`
    is_coroutine = any(inspect.iscoroutinefunction(call) or inspect.isasyncgenfunction(call) for call in calls)
    return is_coroutine and all(map(_is_asynchronous, declared.dependencies))
