"""The FastAPI application class of this service: what is declared on it works, or is refused at the start."""

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import FunctionType
from typing import Any, NoReturn

from fastapi import FastAPI
from fastapi.routing import APIRoute, RouteContext, _IncludedRouter, iter_route_contexts
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import StartupError
from app.http.dispatcher import Dispatcher
from app.http.openapi import complete
from app.http.route import Route
from app.http.scopes import check_routes
from app.rate_limits import limiter


class Application(FastAPI):
    """A FastAPI application whose API routes are all `Route`s.

    Routers are included as usual. At the start, when the first request or the lifespan arrives, the routes of
    included routers become direct routes of the application, so that a path is matched once. Later routes are refused.
    """

    def __init__(
        self,
        *,
        middleware: Sequence[Middleware],
        max_body_bytes: int,
        open_paths: frozenset[str] | None = None,
        is_untraced: Callable[[Scope], bool] | None = None,
        **declared: Any,
    ) -> None:
        """Declare an application.

        Args:
            middleware: This service's own, outermost first.
            max_body_bytes: MAX_BODY_BYTES.
            open_paths: With authentication, the paths of the routes that need no scope. None without authentication.
            is_untraced: Whether a request has no telemetry, asked once. None: what is declared as `telemetry` decides.
            declared: What FastAPI takes.
        """
        super().__init__(middleware=middleware, **declared)
        self._own_middleware = len(middleware)
        self._own_handlers = dict(self.exception_handlers)
        self._max_body_bytes = max_body_bytes
        self._open_paths = open_paths
        self._has_telemetry = self._native_telemetry.enabled()
        self._is_untraced = is_untraced
        self._calls_stack = False
        self._completed_document: dict[str, Any] | None = None

    def add_middleware(self, middleware_class: Any, *args: Any, **kwargs: Any) -> None:
        """Add a middleware inside of this service's own: its responses are logged, counted and limited as all are."""
        super().add_middleware(middleware_class, *args, **kwargs)
        self.user_middleware.insert(self._own_middleware, self.user_middleware.pop(0))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request. What FastAPI and Starlette do in `__call__` for a request without telemetry."""
        has_telemetry = self._has_telemetry
        if self._is_untraced is not None and scope["type"] == "http" and self._is_untraced(scope):
            has_telemetry = False
            scope["fastapi.telemetry"] = None  # as FastAPI does, so that a mounted application observes nothing either
        if self.middleware_stack is None or scope["type"] != "http" or has_telemetry or not self._calls_stack:
            await super().__call__(scope, receive, send)
            return
        scope["app"] = self
        await self.middleware_stack(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        """Return FastAPI's OpenAPI document, with the errors and headers that all routes share."""
        document = super().openapi()
        if document is not self._completed_document:
            complete(document, self)
            self._completed_document = document
        return document

    def build_middleware_stack(self) -> ASGIApp:
        """Fix the routes, and build the stack. Starlette calls this once, when the application starts.

        Raises:
            StartupError: Something is declared that this application would not apply.
        """
        self._calls_stack = not self.root_path and _is_original(FastAPI) and _is_original(Starlette)
        included = list(_included_routers(self.router.routes))
        _check(self, included)
        self.router.routes = _FixedRoutes(self._direct_route(context) for context in iter_route_contexts(self.routes))
        _reserve_literal_paths([route for route in self.routes if isinstance(route, Route)])
        if self._open_paths is not None:
            check_routes(self.routes, self._open_paths)
        if self._has_more_than_its_own():
            return super().build_middleware_stack()
        # The other middleware of the frameworks does nothing here: `Lifecycle` answers every exception, so
        # that FastAPI's telemetry would see none, and its limit of bodies is off.
        app: ASGIApp = Dispatcher(self)
        for middleware_class, args, kwargs in reversed(self.user_middleware):
            app = middleware_class(app, *args, **kwargs)
        return app

    def _has_more_than_its_own(self) -> bool:
        """Whether there is middleware or a handler of exceptions that the frameworks must call as they document it."""
        if not self._own_middleware or len(self.user_middleware) > self._own_middleware:
            return True
        return self.exception_handlers != self._own_handlers

    def _direct_route(self, context: RouteContext) -> BaseRoute:
        original: BaseRoute = context.original_route
        effective: Any = context._effective_route  # noqa: SLF001  # it has no public name
        if isinstance(original, APIRoute):
            if type(original) is not APIRoute and not isinstance(original, Route):
                raise StartupError(f"{context.path}: derive {type(original).__name__} from app.http.route.Route.")
            route_class = type(original) if isinstance(original, Route) else Route
            return route_class.adopt(
                vars(original),
                vars(effective),
                default_limit_bytes=self._max_body_bytes,
                checks_scopes=self._open_paths is not None,
            )
        if effective is original:
            return context.original_route
        raise StartupError(f"{context.path}: add a {type(original).__name__} to the application, not to a router.")


def _is_original(framework: type[Starlette]) -> bool:
    """Whether `__call__` of this class is the framework's. Instrumentation, such as Sentry's, replaces it."""
    call: Any = framework.__call__
    return isinstance(call, FunctionType) and call.__code__.co_filename == sys.modules[framework.__module__].__file__


class _FixedRoutes(list[BaseRoute]):
    """The routes of an application that has started."""

    def append(self, route: BaseRoute) -> NoReturn:
        raise RuntimeError(f"Cannot add {route} after the application has started.")


def _reserve_literal_paths(routes: Sequence[Route]) -> None:
    """A path without parameters is not a value of a parameter for the routes behind it.

    With a POST at `/teas/all` and a GET at `/teas/{tea_id}`, a GET of `/teas/all` is 405, and not about an id.
    """
    literal: list[str] = []
    for route in routes:
        if not route.param_convertors:
            literal.append(route.path)
        elif taken := "|".join(re.escape(path) for path in literal if route.path_regex.match(path)):
            route.path_regex = re.compile(rf"(?!(?:{taken})\Z){route.path_regex.pattern}")


def _included_routers(routes: Iterable[BaseRoute]) -> Iterator[_IncludedRouter]:
    for route in routes:
        if isinstance(route, _IncludedRouter):
            yield route
            yield from _included_routers(route.original_router.routes)


def _check(app: FastAPI, included: Sequence[_IncludedRouter]) -> None:
    """Refuse declarations that would have no effect, or would bypass this service's controls."""
    endpoints = {id(getattr(context.original_route, "endpoint", None)) for context in iter_route_contexts(app.routes)}
    for context in iter_route_contexts(app.routes):
        methods = getattr(context.original_route, "methods", None) or ()
        if "HEAD" in methods and "GET" not in methods:
            raise StartupError(f"{context.path}: HEAD is answered by the route for GET. Declare that one.")
        if isinstance(context.original_route, WebSocketRoute):
            raise StartupError(f"{context.path}: WebSockets are not served. Use a route for GET that streams.")
        limited = limiter.limited_forms(getattr(context.original_route, "endpoint", None))
        if limited and endpoints.isdisjoint(map(id, limited)):
            raise StartupError(f"{context.path}: the limit would not count. Write @limiter.limit below the route.")
    routers_events = [
        handler
        for router in included
        for handler in (*router.original_router.on_startup, *router.original_router.on_shutdown)
    ]
    if app.max_body_size is not None:
        raise StartupError("max_body_size of the application would respond in plain text. Set MAX_BODY_BYTES.")
    if {500, Exception} & app.exception_handlers.keys():
        raise StartupError("An exception handler for Exception or 500 would not be called. Handle a narrower class.")
    if any(handler not in routers_events for handler in (*app.router.on_startup, *app.router.on_shutdown)):
        raise StartupError("Startup and shutdown events of the application would not be called. Use its lifespan.")
    if any(router.include_context.form_limits or router.effective_low_priority_routes() for router in included):
        raise StartupError("Declare `form_limits` and `frontend` on the application, not on an included router.")
