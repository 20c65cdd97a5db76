"""Checks of a request's Host header and port."""

from collections.abc import Sequence

from starlette.types import Scope

from app.errors import HostError, NotFoundError
from app.health import paths
from app.middleware.header_fields import HeaderFields

_NO_HOST = b""


class HostCheck:
    """Refuses a request that has not exactly one Host header, or one that ALLOWED_HOSTS does not list.

    A request by HTTP/1.0 may have none. It is served where every host is allowed, and on the paths of the probes.
    """

    def __init__(self, allowed: Sequence[str]) -> None:
        self._allow_any = "*" in allowed
        self._names = {name.lower() for name in allowed}
        self._suffixes = tuple(name[1:].lower() for name in allowed if name.startswith("*."))

    def check(self, scope: Scope, fields: HeaderFields) -> None:
        """Refuse the request, or return."""
        hosts = fields.get(b"host", [])
        # Health checks of HAProxy, Nagios and keepalived use HTTP/1.0 and send no Host.
        if not hosts and scope["http_version"] == "1.0":
            hosts = [_NO_HOST]
        elif len(hosts) != 1 or not hosts[0]:
            raise HostError("Send exactly one Host header.")
        if self._allow_any or scope["path"] in paths.PROBES:  # probes connect to an address, not to a name
            return
        name = _without_port(hosts[0].decode("latin-1").lower())
        if name not in self._names and not (self._suffixes and name.endswith(self._suffixes)):
            raise HostError("This host is not served here.")


def _without_port(host: str) -> str:
    if host.startswith("["):  # an IPv6 address
        return host.partition("]")[0] + "]"
    return host.partition(":")[0].removesuffix(".")  # `example.com.` is the same name, written in full


class OpsPort:
    """Serves the operators' paths on OPS_PORT only, and all other paths on the main port only."""

    def __init__(self, port: int) -> None:
        self._port = port

    def check(self, scope: Scope, _fields: HeaderFields) -> None:
        """Refuse the request if its path is not served on the port it arrived at."""
        at_ops_port = at_port(scope, self._port)
        if scope["path"] != paths.LIVE and at_ops_port != (scope["path"] in paths.OPS_PORT_ONLY):
            raise NotFoundError


def at_port(scope: Scope, port: int) -> bool:
    """Whether the request arrived at this port."""
    server = scope.get("server")
    return server is not None and server[1] == port
