"""The client of a request that came through a proxy, by `X-Forwarded-For` and `X-Forwarded-Proto`."""

from collections.abc import Sequence
from typing import Any, Final

import structlog
from starlette.types import Scope
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from app.metrics.instruments import Metrics
from app.settings.addresses import with_mapped_networks

_FOR: Final = b"x-forwarded-for"

HEADERS: Final = (_FOR, b"x-forwarded-proto")

log = structlog.get_logger(__name__)


class Forwarded:
    """Takes the client's address and the scheme from the headers of a proxy that FORWARDED_ALLOW_IPS names.

    Uvicorn's middleware does it. Headers of another peer are ignored, because every client can write them. If that
    peer is a proxy after all, all of its clients share its address and its quota: each such request is counted, and
    the first one of a worker is logged.
    """

    def __init__(self, trusted: Sequence[str], metrics: Metrics) -> None:
        self._apply: Any = ProxyHeadersMiddleware(_do_nothing, list(with_mapped_networks(tuple(trusted))))
        self._metrics = metrics
        self._has_logged = False

    async def apply(self, scope: Scope) -> None:
        """Set the client and the scheme of a request that has one of the headers, or report that it was ignored."""
        peer = scope["client"]
        await self._apply(scope, None, None)
        if scope["client"] is peer and peer is not None:
            self._check(scope, peer)

    def _check(self, scope: Scope, peer: Any) -> None:
        values = b", ".join(value for name, value in scope["headers"] if name == _FOR).decode("latin-1")
        forwarded = self._apply.trusted_hosts.get_trusted_client_address(values)
        if not forwarded[0] or forwarded == tuple(peer):  # applied by the server
            return
        self._metrics.forwarded_for_ignored.inc()
        if not self._has_logged:
            self._has_logged = True
            log.warning(
                "forwarded_for_ignored",
                peer=peer[0],
                advice="If this peer is your proxy, add its address to FORWARDED_ALLOW_IPS.",
            )


async def _do_nothing(_scope: Any, _receive: Any, _send: Any) -> None:
    """The application that the middleware calls."""
