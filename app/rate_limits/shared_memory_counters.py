"""Counters that all workers of a host share: LMDB in shared memory."""

import fcntl
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import inf
from pathlib import Path
from typing import Final

import lmdb

from app.rate_limits.window import Decision, count_request, is_expired, pack, remove_expired, remove_latest, unpack
from app.settings.shared_memory import temporary_folder

MAX_KEYS: Final = 10_000
"""Keys that are kept: one for each client and quota. A new key past this evicts one whose window ends soon."""

_MAP_BYTES: Final = 16 * 1024 * 1024
"""Twice the size that MAX_KEYS of the longest logs took in the worst order of inserts and deletes."""

_LOCK_TIMEOUT_SECONDS: Final = 0.05
_START_LOCK_TIMEOUT_SECONDS: Final = 2.0
_ENTRIES_PER_EVICTION: Final = 4

_FLAG: Final = pack((inf, 0, 0, 1))
"""A log that never expires, so that it is never evicted."""


class SharedMemoryCounters:
    """Counts requests exactly over all processes of the host.

    LMDB's own lock has no timeout, so a worker that was stopped while holding it would block the others
    for ever. LMDB's lock is therefore off, and `flock` takes its place: the kernel releases it when its
    holder dies, and a request that does not get it in time is not counted. A process that is killed
    while it writes leaves the previous state.
    """

    errors: Final = (lmdb.Error, OSError)
    """The exceptions that opening and counting may raise."""

    def __init__(self) -> None:
        self._environment: lmdb.Environment | None = None
        self._lock_file = -1
        # Synchronous handlers run in threads, and all threads of a process share one file lock.
        self._thread_lock = threading.Lock()
        self._lock_timeout = _LOCK_TIMEOUT_SECONDS
        self._eviction_cursor = b""

    def open(self, directory: Path | None) -> None:
        """Open the counters in a folder; without a folder, open counters for this process alone.

        Raises:
            OSError: The folder cannot be written.
            lmdb.Error: The folder contains other data.
        """
        if directory is None:
            with tempfile.TemporaryDirectory(prefix="rate-limits-", dir=temporary_folder()) as folder:
                # The files exist, without a name, until they are closed.
                self.open(Path(folder))
            return
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock_file = os.open(directory / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        # Two workers must not create the file at the same time.
        if not self._acquire(_START_LOCK_TIMEOUT_SECONDS):
            raise TimeoutError(f"Another process holds {directory / 'lock'}.")
        try:
            self._environment = _open_environment(directory / "counters")
        finally:
            self._release()

    def close(self) -> None:
        """Close the counters. Counters of this process alone are deleted by it."""
        if self._environment is not None:
            self._environment.close()
            self._environment = None
        if self._lock_file >= 0:
            os.close(self._lock_file)
            self._lock_file = -1

    def hit(self, key: bytes, limit: int, window: float, cost: int = 1) -> Decision | None:
        """Count a request, or refuse it. None when the lock was not free in time.

        Args:
            key: Identifies client and quota, at most 64 bytes.
            limit: Requests that the window admits.
            window: In seconds, always the same for one key.
            cost: How many requests this one counts as.
        """
        environment = self._acquire_environment()
        if environment is None:
            return None
        try:
            with environment.begin(write=True) as transaction:
                packed = transaction.get(key)
                # Read under the lock, so that no entry has a later time than this.
                now = time.monotonic()
                decision, log = count_request(unpack(packed) if packed else (window, now), now, limit, cost)
                if not decision.admitted:
                    transaction.abort()
                    return decision
                if packed is None:
                    self._evict(transaction, now)
                transaction.put(key, pack(log))
            return decision
        finally:
            self._release()

    def undo_hit(self, key: bytes, cost: int = 1) -> None:
        """Remove a request that was counted here and then refused elsewhere."""
        with self._transaction() as transaction:
            if transaction and (packed := transaction.get(key)):
                log = remove_latest(unpack(packed), cost)
                if len(log) > 2:
                    transaction.put(key, pack(log))
                else:
                    transaction.delete(key)

    def set_flag(self, name: str, on: bool) -> bool:
        """Set or clear a flag that all workers share. True for the one caller that changes it."""
        key = b"\0" + name.encode()
        with self._transaction() as transaction:
            if transaction is None:
                return True
            return transaction.put(key, _FLAG, overwrite=False) if on else transaction.delete(key)

    def read(self, key: bytes) -> tuple[float, int] | None:
        """The age in seconds of the oldest request in the window, and the number of requests in it."""
        with self._transaction() as transaction:
            packed = transaction.get(key) if transaction else None
        now = time.monotonic()
        log = remove_expired(unpack(packed), now) if packed else ()
        return (now - log[2], int(sum(log[3::2]))) if len(log) > 2 else None

    def delete(self, key: bytes) -> None:
        """Delete the counter of one client."""
        with self._transaction() as transaction:
            if transaction:
                transaction.delete(key)

    def delete_all(self) -> None:
        """Delete all counters."""
        with self._transaction() as transaction:
            if transaction and self._environment:
                transaction.drop(self._environment.open_db(None, txn=transaction), delete=False)

    @property
    def is_open(self) -> bool:
        """Whether requests can be counted."""
        return self._environment is not None

    @contextmanager
    def _transaction(self) -> Iterator[lmdb.Transaction | None]:
        environment = self._acquire_environment()
        if environment is None:
            yield None
            return
        try:
            with environment.begin(write=True) as transaction:
                yield transaction
        finally:
            self._release()

    def _acquire_environment(self) -> lmdb.Environment | None:
        """Acquire the lock. After one lock timeout the following calls do not wait, until the lock is free again."""
        if self._environment is None:
            raise RuntimeError("The rate limit counters are not open. Enter the application's lifespan first.")
        if self._acquire(self._lock_timeout):
            self._lock_timeout = _LOCK_TIMEOUT_SECONDS
            return self._environment
        self._lock_timeout = 0.0
        return None

    def _acquire(self, timeout: float) -> bool:
        self._thread_lock.acquire()
        deadline = 0.0
        try:
            while True:
                try:
                    fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    now = time.monotonic()
                    deadline = deadline or now + timeout
                    if now >= deadline:
                        self._thread_lock.release()
                        return False
                    time.sleep(0)
                else:
                    return True
        except BaseException:
            self._thread_lock.release()
            raise

    def _release(self) -> None:
        fcntl.flock(self._lock_file, fcntl.LOCK_UN)
        self._thread_lock.release()

    def _evict(self, transaction: lmdb.Transaction, now: float) -> None:
        """Delete expired entries among the next few, and one more at MAX_KEYS.

        Each new key checks four entries, so expired entries are deleted faster than new keys arrive.
        """
        soonest, soonest_key = inf, b""
        with transaction.cursor() as cursor:
            found = cursor.set_range(self._eviction_cursor) or cursor.first()
            for _ in range(_ENTRIES_PER_EVICTION):
                if not found:
                    break
                log = unpack(cursor.value())
                if is_expired(log, now):
                    cursor.delete()
                    found = bool(cursor.key())
                    continue
                if (ends := log[-2] + log[0]) < soonest:
                    soonest, soonest_key = ends, bytes(cursor.key())
                found = cursor.next()
            self._eviction_cursor = bytes(cursor.key()) if found else b""
        if soonest_key and transaction.stat()["entries"] >= MAX_KEYS:
            transaction.delete(soonest_key)


def _open_environment(path: Path) -> lmdb.Environment:
    environment = lmdb.open(
        str(path),
        subdir=False,
        mode=0o600,
        map_size=_MAP_BYTES,
        sync=False,
        metasync=False,
        lock=False,
        readahead=False,
    )
    # Reserve the space now: otherwise LMDB would fail later, during a request. Not every system can reserve it.
    with suppress(AttributeError):
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.posix_fallocate(file, 0, _MAP_BYTES)
        finally:
            os.close(file)
    return environment
