"""The client on whose behalf statements run, so that one client cannot use all connections."""

from contextvars import ContextVar

current_client: ContextVar[str | None] = ContextVar("current_client", default=None)
"""Set for each request, as the rate limits name its client. None outside of requests: in scripts, in the service's
own tasks and for probes."""
