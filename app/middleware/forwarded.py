"""Reports an `X-Forwarded-For` that was ignored, because the peer is not trusted."""

from collections.abc import Sequence
from typing import Final

import structlog
from starlette.types import Scope
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from app.metrics.instruments import Metrics
from app.settings.addresses import with_mapped_networks

_HEADER: Final = b"x-forwarded-for"

log = structlog.get_logger(__name__)


class ForwardedCheck:
    """Compares the client of a request with its `X-Forwarded-For`.

    Uvicorn takes the client's address from this header if FORWARDED_ALLOW_IPS names the peer, and ignores the header
    otherwise, because every client can write one. If the peer is a proxy after all, all of its clients share the
    proxy's address and its quota: each such request is counted, and the first one of a worker is logged.
    """

    def __init__(self, trusted: Sequence[str], metrics: Metrics) -> None:
        networks = list(with_mapped_networks(tuple(trusted)))
        self._trusted = ProxyHeadersMiddleware(None, networks).trusted_hosts  # type: ignore[arg-type]
        self._metrics = metrics
        self._has_logged = False

    def check(self, scope: Scope) -> None:
        """Report the request if its `X-Forwarded-For` was ignored. Call it for a request that has one."""
        client = scope["client"]
        # Uvicorn's client from the header has the port 0, and so has a peer on a Unix socket, whose address is local.
        if client is None or (client[1] == 0 and client[0] != "127.0.0.1"):
            return
        values = b", ".join(value for name, value in scope["headers"] if name == _HEADER).decode("latin-1")
        forwarded = self._trusted.get_trusted_client_address(values)
        if not forwarded[0] or forwarded == tuple(client):
            return
        self._metrics.forwarded_for_ignored.inc()
        if not self._has_logged:
            self._has_logged = True
            log.warning(
                "forwarded_for_ignored",
                peer=client[0],
                advice="If this peer is your proxy, add its address to FORWARDED_ALLOW_IPS.",
            )
