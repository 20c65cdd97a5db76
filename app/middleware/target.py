"""Check of a request's target."""

from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import MalformedPathError


class TargetCheck:
    """Refuses a request whose target is not a path, or whose path is not UTF-8 after percent-decoding.

    The server has replaced bytes that are not UTF-8 with U+FFFD. A path that
    contains the encoded U+FFFD itself is refused too.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check the request, then pass it on."""
        if scope["type"] == "http" and (scope["path"][:1] != "/" or "\ufffd" in scope["path"]):
            raise MalformedPathError
        await self.app(scope, receive, send)
