"""Counters that all workers of a host share: LMDB in shared memory."""

import fcntl
import os
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import inf
from pathlib import Path
from typing import Final

import lmdb
import structlog

from app.rate_limits.shared_remaining import SharedRemaining, place_of
from app.rate_limits.window import (
    Ahead,
    Decision,
    Log,
    count_ahead,
    count_request,
    give_back,
    is_expired,
    pack,
    remove_expired,
    remove_latest,
    unpack,
)

MAX_KEYS: Final = 10_000
"""Keys that are kept: one for each client and quota. A new key past this evicts one whose window ends soon."""

_MAP_BYTES: Final = 16 * 1024 * 1024
"""Twice the size that MAX_KEYS of the longest logs took in the worst order of inserts and deletes."""

CHECK_SECONDS: Final = 0.5
"""How often a worker looks whether the file still has a name. A deleted file is not shared with new workers."""

_LOCK_TIMEOUT_SECONDS: Final = 0.05
_START_LOCK_TIMEOUT_SECONDS: Final = 2.0
_ENTRIES_PER_EVICTION: Final = 4

_FLAG: Final[Log] = (inf, 0, 0, 1)
"""A log that never expires, so that it is never evicted."""

_CHECKSUM_OF_ALL: Final = 0x2144DF1C
"""The CRC-32 of any data that is followed by its own CRC-32."""

_OTHER_CONTENT: Final = (lmdb.InvalidError, lmdb.VersionMismatchError, lmdb.CorruptedError, lmdb.MapResizedError)
"""What LMDB raises when it opens a file that it has not written."""

_log = structlog.get_logger(__name__)


class DamagedError(OSError):
    """Another program has changed the file of the counters."""


class SharedMemoryCounters:
    """Counts requests exactly over all processes of the host.

    LMDB's own lock has no timeout, so a worker that was stopped while holding it would block the others
    for ever. LMDB's lock is therefore off, and `flock` takes its place: the kernel releases it when its
    holder dies, and a request that does not get it in time is not counted. A process that is killed
    while it writes leaves the previous state.

    Each entry has a checksum. When damage is found, the file is deleted and these counters close: the other workers
    notice it within half a second, and a worker that is started later creates a new file.
    """

    errors: Final = (lmdb.Error, OSError)
    """The exceptions that opening and counting may raise."""

    def __init__(self) -> None:
        self._environment: lmdb.Environment | None = None
        self._file = self._lock_file = -1
        self._remaining = SharedRemaining()
        self.remaining = self._remaining.read
        """What was left after the last request that was counted, without a lock. None if it is not known."""
        self._size = 0
        self._next_check = 0.0
        # Synchronous handlers run in threads, and all threads of a process share one file lock.
        self._thread_lock = threading.Lock()
        self._lock_timeout = _LOCK_TIMEOUT_SECONDS
        self._eviction_cursor = b""

    def open(self, directory: Path) -> None:
        """Open the counters in a folder. A file with other content is replaced.

        Raises:
            OSError: The folder cannot be written, or another process holds the lock.
            lmdb.Error: The file cannot be created.
        """
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock_file = os.open(directory / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        # Two workers must not create the file at the same time.
        if not self._acquire(_START_LOCK_TIMEOUT_SECONDS):
            raise TimeoutError(f"Another process holds {directory / 'lock'}.")
        self._path = directory / "counters"
        try:
            self._environment = _open_environment(self._path)
            self._file = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
            _reserve_space(self._file)
            self._remaining.open(directory / "remaining")
            self._size = os.fstat(self._file).st_size
        finally:
            self._release()

    def close(self) -> None:
        """Close the counters."""
        if self._environment is not None:
            self._environment.close()
            self._environment = None
        for file in {self._file, self._lock_file} - {-1}:
            os.close(file)
        self._file = self._lock_file = -1
        self._remaining.close()

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
    ) -> Decision | None:
        """Count a request, or refuse it. None when the lock was not free in time.

        Args:
            key: Identifies client and quota, at most 64 bytes.
            limit: Requests that the window admits.
            window: In seconds, always the same for one key.
            cost: How many requests this one counts as.
            counted: How many of them are counted already.
            ahead: How many further requests to count, if this one is admitted and enough remains. None if no worker
                counts requests of this key ahead: then `remaining` does not know it.
            unspent: What was counted ahead before and is given back now.
        """
        if not self._acquire_in_time():
            return None
        try:  # as in `_transaction`, without the cost of a generator
            with self._checked_environment().begin(write=True) as transaction:
                stored = transaction.get(key)
                # Read under the lock, so that no entry has a later time than this.
                now = time.monotonic()
                log = _unseal(stored) if stored else (window, now)
                if unspent:
                    log = give_back(log, now, unspent)
                decision, log = count_request(log, now, limit, cost, counted)
                if decision.admitted:
                    if ahead:
                        decision, log = count_ahead(decision, log, now, ahead)
                    if stored is None:
                        self._evict(transaction, now)
                if decision.admitted or unspent:
                    transaction.put(key, _seal(log))
                else:
                    transaction.abort()
                if ahead is not None:
                    left = decision.remaining - (decision.ahead.requests if decision.ahead else 0)
                    self._remaining.write(place_of(key), left)
                return decision
        except self.errors as error:
            self._abandon_if_damaged(error)
            raise
        finally:
            self._release()

    def undo_hit(self, key: bytes, cost: int = 1) -> None:
        """Remove a request that was counted here and then refused elsewhere."""
        with self._transaction() as transaction:
            if transaction and (stored := transaction.get(key)):
                log = remove_latest(_unseal(stored), cost)
                if len(log) > 2:
                    transaction.put(key, _seal(log))
                else:
                    transaction.delete(key)

    def give_back(self, key: bytes, unspent: Ahead) -> None:
        """Remove requests that were counted ahead and not sent."""
        with self._transaction() as transaction:
            if transaction and (stored := transaction.get(key)):
                transaction.put(key, _seal(give_back(_unseal(stored), time.monotonic(), unspent)))

    def set_flag(self, name: str, on: bool) -> bool:
        """Set or clear a flag that all workers share. True for the one caller that changes it."""
        key = b"\0" + name.encode()
        with self._transaction() as transaction:
            if transaction is None:
                return True
            return transaction.put(key, _seal(_FLAG), overwrite=False) if on else transaction.delete(key)

    def read(self, key: bytes) -> tuple[float, int] | None:
        """The age in seconds of the oldest request in the window, and the number of requests in it."""
        with self._transaction() as transaction:
            stored = transaction.get(key) if transaction else None
        now = time.monotonic()
        log = remove_expired(_unseal(stored), now) if stored else ()
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
        """A transaction under the lock. None if the lock was not free in time."""
        if not self._acquire_in_time():
            yield None
            return
        try:
            with self._checked_environment().begin(write=True) as transaction:
                yield transaction
        except self.errors as error:
            self._abandon_if_damaged(error)
            raise
        finally:
            self._release()

    def _checked_environment(self) -> lmdb.Environment:
        """The environment, if its file is whole: reading a page that was cut off would end the process by SIGBUS."""
        if self._environment is None:
            raise DamagedError("The counters were damaged, and are closed.")
        if os.lseek(self._file, 0, os.SEEK_END) < self._size:
            raise DamagedError("The file of the counters was truncated.")
        now = time.monotonic()
        if now >= self._next_check:
            self._next_check = now + CHECK_SECONDS
            if not os.fstat(self._file).st_nlink:
                raise DamagedError("The file of the counters was deleted.")
        return self._environment

    def _abandon_if_damaged(self, error: Exception) -> None:
        """Close damaged counters, and delete their file unless another worker has replaced it. The lock is held."""
        if isinstance(error, lmdb.MapFullError):
            return
        self._environment = None
        with suppress(OSError):
            if os.path.samestat(self._path.stat(), os.fstat(self._file)):
                self._path.unlink()

    def _acquire_in_time(self) -> bool:
        """Acquire the lock. After one lock timeout the following calls do not wait, until the lock is free again."""
        if self._environment is None:
            raise RuntimeError("The rate limit counters are not open. Enter the application's lifespan first.")
        if self._acquire(self._lock_timeout):
            self._lock_timeout = _LOCK_TIMEOUT_SECONDS
            return True
        self._lock_timeout = 0.0
        return False

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
                log = _unseal(cursor.value())
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


def _seal(log: Log) -> bytes:
    """Write a log as bytes, with a checksum."""
    packed = pack(log)
    return packed + zlib.crc32(packed).to_bytes(4, "little")


def _unseal(stored: bytes | memoryview) -> Log:
    """Read what `_seal` wrote.

    Raises:
        DamagedError: The checksum is another one.
    """
    if zlib.crc32(stored) != _CHECKSUM_OF_ALL:
        raise DamagedError("An entry of the counters has a wrong checksum.")
    return unpack(stored)


def _open_environment(path: Path) -> lmdb.Environment:
    try:
        return _open_file(path)
    except _OTHER_CONTENT as error:
        _log.warning("rate_limit_counters_replaced", cause=str(error))
        path.unlink()
        return _open_file(path)


def _open_file(path: Path) -> lmdb.Environment:
    return lmdb.open(
        str(path),
        subdir=False,
        mode=0o600,
        map_size=_MAP_BYTES,
        sync=False,
        metasync=False,
        lock=False,
        readahead=False,
    )


def _reserve_space(file: int) -> None:
    """Reserve the space now: otherwise LMDB would fail later, during a request. Not every system can reserve it."""
    if os.fstat(file).st_blocks * 512 >= _MAP_BYTES:  # another worker has done it, and requests wait for the lock
        return
    with suppress(AttributeError):
        os.posix_fallocate(file, 0, _MAP_BYTES)
