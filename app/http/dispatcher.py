"""Calls the endpoint of a request, without what the frameworks do for other kinds of endpoints."""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from opentelemetry.trace import get_current_span
from starlette._utils import get_route_path
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, ExceptionHandler, Receive, Scope, Send

from app.http.route_table import RouteTable
from app.state_keys import WHOLE_RESPONSE


class Dispatcher:
    """Answers a request by the route table where it can, and by the router with the frameworks' middleware otherwise.

    For a route in the table the middleware would do nothing until an exception is raised, and is called then. An
    endpoint of FastAPI's own handler needs it, and so do `app.dependency_overrides`.
    """

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._handlers: Mapping[Any, ExceptionHandler] = app.exception_handlers
        self._table = RouteTable(app.routes)
        self._usual = self._handling(AsyncExitStackMiddleware(app.router))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request."""
        found = None
        if scope["type"] == "http" and not self._app.dependency_overrides:
            path = get_route_path(scope) if scope.get("root_path") else scope["path"]
            found = self._table.find(scope["method"], path)
        if found is None:
            await self._usual(scope, receive, send)
            return
        route, scope["path_params"] = found
        scope["route"] = route
        scope["endpoint"] = route.endpoint
        scope["router"] = self._app.router
        if scope.get("fastapi.telemetry") is not None:  # FastAPI's router would name the span of a traced request
            span = get_current_span()
            span.update_name(f"{scope['method']} {route.path}")
            span.set_attribute("http.route", route.path)
        try:
            response = await route.call(scope, receive, send)
        except Exception as error:  # noqa: BLE001  # it is handled or raised again
            await self._handling(_raising(error))(scope, receive, send)
            return
        state = scope.get("state", ())
        if WHOLE_RESPONSE in state and state[WHOLE_RESPONSE] is send and _is_whole(response):
            await send(
                {
                    "type": "http.response.start",
                    "status": response.status_code,
                    "headers": response.raw_headers,
                    "body": response.body,
                }
            )
        else:
            await response(scope, receive, send)

    def _handling(self, app: ASGIApp) -> ASGIApp:
        """This application, with the handlers of exceptions that are declared."""
        return ExceptionMiddleware(app, self._handlers)


def _is_whole(response: Response) -> bool:
    """Whether the response does nothing but send its head and its body."""
    return type(response).__call__ is Response.__call__ and response.background is None


def _raising(error: Exception) -> ASGIApp:
    async def raise_it(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise error

    return raise_it
