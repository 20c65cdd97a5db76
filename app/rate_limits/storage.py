"""The counters of this host as a storage of the `limits` library, which slowapi needs."""

import time
from hashlib import blake2b
from typing import Final

from limits.storage import MovingWindowSupport, Storage

from app.rate_limits.host_counters import HostCounters

_MAX_KEY_BYTES: Final = 64


class HostStorage(Storage, MovingWindowSupport):
    """A storage for the strategy `moving-window`; it refuses the other strategies."""

    STORAGE_SCHEME = ["host"]  # noqa: RUF012 -- as limits declares it

    def __init__(self, _uri: str | None = None, counters: HostCounters | None = None) -> None:
        super().__init__()
        self._counters = counters or HostCounters(lambda _: None)

    @property
    def base_exceptions(self) -> tuple[type[Exception], ...]:
        """The exceptions that this storage may raise."""
        return ()

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Count a request, or refuse it."""
        return self._counters.hit(_short(key), limit, expiry, amount).admitted

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:  # noqa: ARG002 -- limits' signature
        """The date of the oldest request in the window, in seconds since 1970, and the number of requests."""
        age, count = self._counters.read(_short(key)) or (0, 0)
        return time.time() - age, count

    def clear(self, key: str) -> None:
        """Delete the counter of one client."""
        self._counters.delete(_short(key))

    def reset(self) -> None:
        """Delete all counters."""
        self._counters.delete_all()

    def check(self) -> bool:
        """Whether requests can be counted."""
        return self._counters.is_open

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Refuse: fixed windows are not supported."""
        raise NotImplementedError("Use the strategy moving-window.")

    def get(self, key: str) -> int:
        """Refuse: fixed windows are not supported."""
        raise NotImplementedError("Use the strategy moving-window.")

    def get_expiry(self, key: str) -> float:
        """Refuse: fixed windows are not supported."""
        raise NotImplementedError("Use the strategy moving-window.")


def _short(key: str) -> bytes:
    """The key, or its digest if the key is longer than the counters allow."""
    encoded = key.encode()
    return encoded if len(encoded) <= _MAX_KEY_BYTES else blake2b(encoded, digest_size=32).digest()
