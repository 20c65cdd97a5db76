"""The prefix that a proxy strips from the path of a request."""

from starlette.types import ASGIApp, Receive, Scope, Send


class RootPath:
    """Puts ROOT_PATH before the path, for the routes only, as ASGI wants it: `path` contains `root_path`.

    Routes still match the path without the prefix, and `request.scope["root_path"]`, `request.url` and
    `request.url_for` have it. It is the innermost middleware, so all others see the path that was received.
    """

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self.app = app
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with the prefix, and remove the prefix afterwards."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        received = {name: scope[name] for name in ("path", "raw_path", "root_path") if name in scope}
        scope["root_path"] = self._prefix
        scope["path"] = self._prefix + scope["path"]
        if scope.get("raw_path") is not None:
            scope["raw_path"] = self._prefix.encode() + scope["raw_path"]
        try:
            await self.app(scope, receive, send)
        finally:
            scope.update(received)
