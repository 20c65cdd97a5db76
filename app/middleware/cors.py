"""CORS: Starlette's middleware, with problem details as the answer to a refused preflight."""

from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import PreflightRefusedError
from app.middleware import problems

READABLE_HEADERS = (
    "ETag",
    "Idempotency-Replayed",
    "Link",
    "Location",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "X-Request-ID",
)
"""Response headers that a page of an allowed origin may read."""


class CrossOrigin(CORSMiddleware):
    """Answers preflights, and adds the CORS headers to every other answer, including errors."""

    def __init__(self, app: ASGIApp, origins: tuple[str, ...], headers: tuple[str, ...]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=headers,
            expose_headers=READABLE_HEADERS,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a refused preflight with a problem; Starlette does the rest."""
        if scope.get("method") == "OPTIONS":
            headers = Headers(scope=scope)
            if "origin" in headers and "access-control-request-method" in headers:
                response = self.preflight_response(request_headers=headers)
                if response.status_code != HTTPStatus.OK:
                    response = problems.answer(scope, PreflightRefusedError())
                    response.headers["Vary"] = "Origin"
                await response(scope, receive, send)
                return
        await super().__call__(scope, receive, send)
