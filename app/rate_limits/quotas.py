"""A quota: how many requests of one kind a client may send in a window, and the headers that say so."""

from math import ceil

from limits import parse

from app.rate_limits.window import Decision

Headers = list[tuple[bytes, bytes]]


class Quota:
    """The requests of one kind that a client may send in a window."""

    def __init__(self, name: str, limit: str) -> None:
        """Parse a limit as it is written in the settings, like `600/minute`."""
        entry = parse(limit)
        self.name = name
        self.text = limit
        self.limit = entry.amount
        self.window_seconds = entry.get_expiry()
        # The key contains the limit, so counting starts from zero when a reload changes the limit.
        self._prefix = f"{name}/{self.limit}/{self.window_seconds}/"
        self._policy = b"ratelimit-policy", f'"{name}";q={self.limit};w={self.window_seconds}'.encode()
        self._state = f'"{name}";r='.encode() + b"%d;t=%d"

    def key(self, client: str) -> bytes:
        """The key under which a client's requests of this kind are counted."""
        return (self._prefix + client).encode()

    def headers(self, remaining: int, reset_seconds: float) -> Headers:
        """`RateLimit-Policy` and `RateLimit`, as in draft-ietf-httpapi-ratelimit-headers-10. See `Decision`."""
        seconds = ceil(reset_seconds)
        if not 1 <= seconds <= self.window_seconds:
            # Requests that were counted ahead leave the counters up to a tenth of a second later.
            seconds = min(max(1, seconds), self.window_seconds)
        return [self._policy, (b"ratelimit", self._state % (remaining, seconds))]

    def retry_seconds(self, decision: Decision) -> int:
        """Whole seconds after which a refused request is admitted, if the client sends nothing until then."""
        return max(1, ceil(decision.retry_seconds))
