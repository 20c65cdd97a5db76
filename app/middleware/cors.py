"""CORS: Starlette's middleware in two parts, so that preflights are rate limited and refused with a problem."""

from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import PreflightRefusedError

READABLE_HEADERS = (
    "ETag",
    "Idempotency-Replayed",
    "Link",
    "Location",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "WWW-Authenticate",
    "X-Request-ID",
)
"""Response headers that a page of an allowed origin may read."""


class _Policy(CORSMiddleware):
    """What pages of other origins may do."""

    def __init__(self, app: ASGIApp, origins: tuple[str, ...], headers: tuple[str, ...]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=headers,
            expose_headers=READABLE_HEADERS,
        )


class CrossOrigin(_Policy):
    """Adds the CORS headers to every response, including errors, except to preflights."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a preflight on; Starlette does the rest."""
        if is_preflight(scope):
            await self.app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


class Preflights(_Policy):
    """Answers preflights. It is an inner middleware, so they are rate limited."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a preflight, or pass another request on.

        Raises:
            PreflightRefusedError: The origin, the method or a header is not allowed.
        """
        if not is_preflight(scope):
            await self.app(scope, receive, send)
            return
        response = self.preflight_response(request_headers=Headers(scope=scope))
        if response.status_code != HTTPStatus.OK:
            raise PreflightRefusedError
        await response(scope, receive, send)


def is_preflight(scope: Scope) -> bool:
    """Whether a browser asks if a page of another origin may send a request."""
    if scope.get("method") != "OPTIONS":
        return False
    headers = Headers(scope=scope)
    return "origin" in headers and "access-control-request-method" in headers
