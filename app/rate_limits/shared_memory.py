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

from app.rate_limits.window import Decision, current, expired, pack, spend, take_back, unpack
from app.settings.shared_memory import temporary_folder

MAX_KEYS: Final = 10_000
"""Clients that are remembered, each for reading and for writing; past that one whose window ends soon makes room."""

_MAP_BYTES: Final = 16 * 1024 * 1024
"""Twice the room that MAX_KEYS of the longest logs were seen to take, in the worst order of coming and going."""

_PATIENCE_SECONDS: Final = 0.05
_START_PATIENCE_SECONDS: Final = 2.0
_LOOKED_AT: Final = 4

_MARK: Final = pack((inf, 0, 0, 1))
"""A log that never ends, so that it is never forgotten."""


class SharedMemory:
    """Counts requests exactly, whichever process of the host takes them.

    LMDB's own lock waits without end, for example for a worker that was stopped inside of it. So
    its lock is off and `flock` stands in: the kernel frees it when its holder dies, and who does not
    get it in time does not count. A process killed while writing leaves the state as it was before.
    """

    errors: Final = (lmdb.Error, OSError)
    """What opening and counting may raise."""

    def __init__(self) -> None:
        self._environment: lmdb.Environment | None = None
        self._lock_file = -1
        # Synchronous handlers run in threads, and all of them share one file lock.
        self._threads = threading.Lock()
        self._patience = _PATIENCE_SECONDS
        self._hand = b""

    def open(self, directory: Path | None) -> None:
        """Join the counters in a folder; without one, begin counters of this process alone.

        Raises:
            OSError: The folder cannot be written.
            lmdb.Error: The folder holds something else.
        """
        if directory is None:
            with tempfile.TemporaryDirectory(prefix="rate-limits-", dir=temporary_folder()) as folder:
                # The files last for as long as they are open.
                self.open(Path(folder))
            return
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock_file = os.open(directory / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        # Two workers must not both begin the file.
        if not self._acquire(_START_PATIENCE_SECONDS):
            raise TimeoutError(f"Another process holds {directory / 'lock'}.")
        try:
            self._environment = _open_environment(directory / "counters")
        finally:
            self._unlock()

    def close(self) -> None:
        """Leave the counters; those of this process alone are gone then."""
        if self._environment is not None:
            self._environment.close()
            self._environment = None
        if self._lock_file >= 0:
            os.close(self._lock_file)
            self._lock_file = -1

    def hit(self, key: bytes, limit: int, window: float, cost: int = 1) -> Decision | None:
        """Count a request, or refuse it. None when it could not be counted in time.

        Args:
            key: Who and what, at most 64 bytes.
            window: In seconds, the same for a key each time.
        """
        environment = self._lock()
        if environment is None:
            return None
        try:
            with environment.begin(write=True) as transaction:
                packed = transaction.get(key)
                # Taken under the lock, so that no entry is dated later than this.
                now = time.monotonic()
                decision, log = spend(unpack(packed) if packed else (window, now), now, limit, cost)
                if not decision.admitted:
                    transaction.abort()
                    return decision
                if packed is None:
                    self._make_room(transaction, now)
                transaction.put(key, pack(log))
            return decision
        finally:
            self._unlock()

    def take_back(self, key: bytes, cost: int = 1) -> None:
        """Forget a request that was counted and then not admitted after all."""
        with self._transaction() as transaction:
            if transaction and (packed := transaction.get(key)):
                log = take_back(unpack(packed), cost)
                if len(log) > 2:
                    transaction.put(key, pack(log))
                else:
                    transaction.delete(key)

    def mark(self, name: str, on: bool) -> bool:
        """Set or remove a mark that all workers see. True when it was not so before, for one of them only."""
        key = b"\0" + name.encode()
        with self._transaction() as transaction:
            if transaction is None:
                return True
            return transaction.put(key, _MARK, overwrite=False) if on else transaction.delete(key)

    def read(self, key: bytes) -> tuple[float, int] | None:
        """How many seconds ago the oldest request was sent that still counts, and how many do."""
        with self._transaction() as transaction:
            packed = transaction.get(key) if transaction else None
        now = time.monotonic()
        log = current(unpack(packed), now) if packed else ()
        return (now - log[2], int(sum(log[3::2]))) if len(log) > 2 else None

    def forget(self, key: bytes) -> None:
        """Forget a client."""
        with self._transaction() as transaction:
            if transaction:
                transaction.delete(key)

    def forget_all(self) -> None:
        """Forget everybody."""
        with self._transaction() as transaction:
            if transaction and self._environment:
                transaction.drop(self._environment.open_db(None, txn=transaction), delete=False)

    @property
    def is_open(self) -> bool:
        """Whether requests can be counted."""
        return self._environment is not None

    @contextmanager
    def _transaction(self) -> Iterator[lmdb.Transaction | None]:
        environment = self._lock()
        if environment is None:
            yield None
            return
        try:
            with environment.begin(write=True) as transaction:
                yield transaction
        finally:
            self._unlock()

    def _lock(self) -> lmdb.Environment | None:
        """Take the lock, or give up after a moment; while the holder hangs, at once."""
        if self._environment is None:
            raise RuntimeError("The counters of the rate limits are not open: the lifespan opens them.")
        if self._acquire(self._patience):
            self._patience = _PATIENCE_SECONDS
            return self._environment
        self._patience = 0.0
        return None

    def _acquire(self, patience: float) -> bool:
        self._threads.acquire()
        deadline = 0.0
        try:
            while True:
                try:
                    fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    now = time.monotonic()
                    deadline = deadline or now + patience
                    if now >= deadline:
                        self._threads.release()
                        return False
                    time.sleep(0)
                else:
                    return True
        except BaseException:
            self._threads.release()
            raise

    def _unlock(self) -> None:
        fcntl.flock(self._lock_file, fcntl.LOCK_UN)
        self._threads.release()

    def _make_room(self, transaction: lmdb.Transaction, now: float) -> None:
        """Forget a few clients whose time is up. Two for one that comes, so they cannot pile up."""
        soonest, soonest_key = inf, b""
        with transaction.cursor() as cursor:
            found = cursor.set_range(self._hand) or cursor.first()
            for _ in range(_LOOKED_AT):
                if not found:
                    break
                log = unpack(cursor.value())
                if expired(log, now):
                    cursor.delete()
                    found = bool(cursor.key())
                    continue
                if (ends := log[-2] + log[0]) < soonest:
                    soonest, soonest_key = ends, bytes(cursor.key())
                found = cursor.next()
            self._hand = bytes(cursor.key()) if found else b""
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
    # Without the room LMDB would fail later, in the middle of requests. Not every system can reserve it.
    with suppress(AttributeError):
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.posix_fallocate(file, 0, _MAP_BYTES)
        finally:
            os.close(file)
    return environment
