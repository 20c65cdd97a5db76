"""Which requests this server is meant to get: one Host header, of a name that is served, at the right port."""

from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import HostError, NotFoundError
from app.health import paths


class HostCheck:
    """Refuses a request without one Host header, or for a host that is not served."""

    def __init__(self, app: ASGIApp, allowed: Sequence[str]) -> None:
        self.app = app
        self._any = "*" in allowed
        self._names = {name.lower() for name in allowed}
        self._suffixes = tuple(name[1:].lower() for name in allowed if name.startswith("*."))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check, then go on."""
        if scope["type"] == "http":
            self._check(scope)
        await self.app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if len(hosts) != 1 or not hosts[0]:
            raise HostError("Send exactly one Host header.")
        if self._any or scope["path"] in paths.PROBES:  # requested by address, not by name
            return
        name = _without_port(hosts[0].decode("latin-1").lower())
        if name not in self._names and not (self._suffixes and name.endswith(self._suffixes)):
            raise HostError("This host is not served here.")


def _without_port(host: str) -> str:
    if host.startswith("["):  # an IPv6 address
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]


class OpsPort:
    """Keeps what is for operators at a port of its own, and all the rest away from it."""

    def __init__(self, app: ASGIApp, port: int) -> None:
        self.app = app
        self._port = port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass where it belongs."""
        if scope["type"] == "http":
            server = scope.get("server")
            at_ops_port = server is not None and server[1] == self._port
            if scope["path"] != paths.LIVE and at_ops_port != (scope["path"] in paths.OPS_PORT_ONLY):
                raise NotFoundError
        await self.app(scope, receive, send)
