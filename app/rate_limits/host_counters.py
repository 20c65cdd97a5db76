"""The counters of this host: shared by its workers, else those of this worker alone."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from app.rate_limits.process_counters import ProcessCounters
from app.rate_limits.shared_memory_counters import SharedMemoryCounters
from app.rate_limits.window import Ahead, Decision

_LINE_INTERVAL_SECONDS: Final = 10.0

_LOCKED: Final = "Another process holds the lock of the counters."

log = structlog.get_logger(__name__)


class HostCounters:
    """Counts in shared memory. While that fails, this worker counts in its own memory: no request is left uncounted.

    Then a client can send its limit to each worker of the host. Damaged counters stay unused until the worker is
    replaced: a reload makes new ones. A lock that another process has held is used again as soon as it is free.
    """

    def __init__(self, degraded: Callable[[bool], None]) -> None:
        """Nothing is opened.

        Args:
            degraded: Called when this worker begins, and when it ends, to count alone against the settings.
        """
        self._shared = SharedMemoryCounters()
        self._own = ProcessCounters()
        self._report_degraded = degraded
        self._is_degraded = False
        self._next_line = 0.0
        self._flags = frozenset[str]()
        self.is_open = False
        """Whether requests can be counted."""
        self.remaining = self._shared.remaining
        """`SharedMemoryCounters.remaining`. Valid only while the shared counters are in use."""

    def open(self, folder: Path | None) -> None:
        """Open the counters in a folder that the workers share; without a folder, this process counts alone."""
        self.is_open = True
        if folder is None:
            return
        try:
            self._shared.open(folder)
        except self._shared.errors:
            self._shared.close()
            self._is_degraded = True
            self._report_degraded(True)
            log.exception("rate_limit_storage_refused", directory=str(folder))

    def close(self) -> None:
        """Close the counters."""
        self.is_open = False
        self._shared.close()

    def hit(
        self,
        key: bytes,
        limit: int,
        window: float,
        cost: int = 1,
        *,
        counted: int = 0,
        ahead: int | None = None,
        unspent: Ahead | None = None,
    ) -> Decision:
        """Count a request, or refuse it. The arguments are those of `SharedMemoryCounters.hit`."""
        if not self._shared.is_open:
            return self._used_alone().hit(key, limit, window, cost, counted=counted)
        try:
            decision = self._shared.hit(key, limit, window, cost, counted=counted, ahead=ahead, unspent=unspent)
        except self._shared.errors as error:
            self._failed(cause=f"{type(error).__name__}: {error}")
        else:
            if decision is not None:
                if self._is_degraded:
                    self._restored()
                return decision
            self._failed(cause=_LOCKED)
        return self._own.hit(key, limit, window, cost, counted=counted)

    def undo_hit(self, key: bytes, cost: int = 1) -> None:
        """Remove a request that was counted here and then refused elsewhere."""
        if self._counts_alone:
            self._own.undo_hit(key, cost)
            return
        self._change_shared(self._shared.undo_hit, key, cost)

    def give_back(self, key: bytes, unspent: Ahead) -> None:
        """Remove requests that were counted ahead and not sent."""
        if not self._counts_alone:
            self._change_shared(self._shared.give_back, key, unspent)

    def read(self, key: bytes) -> tuple[float, int] | None:
        """The age in seconds of the oldest request in the window, and the number of requests in it."""
        if not self._counts_alone:
            try:
                return self._shared.read(key)
            except self._shared.errors as error:
                self._failed(cause=str(error))
        return self._own.read(key)

    def delete(self, key: bytes) -> None:
        """Delete the counter of one client."""
        self._own.delete(key)
        if self._shared.is_open:
            self._change_shared(self._shared.delete, key)

    def delete_all(self) -> None:
        """Delete all counters."""
        self._own.delete_all()
        if self._shared.is_open:
            self._change_shared(self._shared.delete_all)

    def set_flag(self, name: str, on: bool) -> bool:
        """Set or clear a flag that all workers share. True for the one caller that changes it."""
        changed = on != (name in self._flags)
        self._flags = self._flags | {name} if on else self._flags - {name}
        if self._counts_alone:
            return changed
        try:
            return self._shared.set_flag(name, on)
        except self._shared.errors as error:
            self._failed(cause=str(error))
            return changed

    @property
    def _counts_alone(self) -> bool:
        return self._is_degraded or not self._shared.is_open

    def _change_shared(self, change: Callable[..., None], *arguments: bytes | int | Ahead) -> None:
        try:
            change(*arguments)
        except self._shared.errors as error:
            self._failed(cause=str(error))

    def _used_alone(self) -> ProcessCounters:
        if not self.is_open:
            raise RuntimeError("The rate limit counters are not open. Enter the application's lifespan first.")
        return self._own

    def _failed(self, cause: str) -> None:
        """Report that this worker counts alone: once, and again only after a while if it stops and starts."""
        if self._is_degraded:
            return
        self._is_degraded = True
        self._report_degraded(True)
        if time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + _LINE_INTERVAL_SECONDS
            log.warning("rate_limit_counting_failed", cause=cause, counting="this worker alone")

    def _restored(self) -> None:
        self._is_degraded = False
        self._own.delete_all()
        self._report_degraded(False)
        log.info("rate_limit_counting_restored")
