"""The counters as a storage of `limits`, which is what slowapi counts in."""

import time
from hashlib import blake2b
from typing import Final

from limits.storage import MovingWindowSupport, Storage

from app.rate_limits.shared_memory import SharedMemory

_LONGEST_KEY: Final = 64


class SharedMemoryStorage(Storage, MovingWindowSupport):
    """Counts for the strategy `moving-window`, and for no other."""

    STORAGE_SCHEME = ["lmdb"]  # noqa: RUF012 -- as limits declares it

    def __init__(self, _uri: str | None = None, counters: SharedMemory | None = None) -> None:
        super().__init__()
        self._counters = counters or SharedMemory()

    @property
    def base_exceptions(self) -> tuple[type[Exception], ...]:
        """What this storage may raise."""
        return self._counters.errors

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Count a request, or refuse it. One that cannot be counted in time is admitted."""
        decision = self._counters.hit(_short(key), limit, expiry, amount)
        return decision is None or decision.admitted

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:  # noqa: ARG002 -- as limits calls it
        """Date of the oldest request that still counts, in seconds since 1970, and how many do."""
        age, spent = self._counters.read(_short(key)) or (0, 0)
        return time.time() - age, spent

    def clear(self, key: str) -> None:
        """Forget a client."""
        self._counters.forget(_short(key))

    def reset(self) -> None:
        """Forget everybody."""
        self._counters.forget_all()

    def check(self) -> bool:
        """Whether requests can be counted."""
        return self._counters.is_open

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Refuse: fixed windows are not counted here."""
        raise NotImplementedError("Take the strategy moving-window.")

    def get(self, key: str) -> int:
        """Refuse: fixed windows are not counted here."""
        raise NotImplementedError("Take the strategy moving-window.")

    def get_expiry(self, key: str) -> float:
        """Refuse: fixed windows are not counted here."""
        raise NotImplementedError("Take the strategy moving-window.")


def _short(key: str) -> bytes:
    """The key, or a digest of one that is longer than the counters take."""
    encoded = key.encode()
    return encoded if len(encoded) <= _LONGEST_KEY else blake2b(encoded, digest_size=32).digest()
