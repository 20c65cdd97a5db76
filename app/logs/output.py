"""Where log lines go: a bounded queue that one thread empties into standard output."""

import atexit
import os
import select
import threading
from contextlib import suppress
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from typing import Final

import orjson

CAPACITY_BYTES: Final = 4 * 1024 * 1024
"""What may wait for a slow reader; past it lines are dropped and counted."""

INTERVAL_SECONDS: Final = 0.03
"""How long lines gather before they are written together."""

_FORK_SECONDS: Final = 0.2


class Output:
    """Writes lines without ever making the caller wait for whoever reads them.

    Every write is of whole lines and of at most PIPE_BUF bytes unless a line is
    longer: up to there the lines of several processes do not mix in one pipe.

    The queue is a `SimpleQueue` because its `put` may be called by a signal
    handler that interrupts another `put`; Gunicorn's master logs in one.
    """

    def __init__(self, descriptor: int = 1) -> None:
        self.descriptor = descriptor
        self._hooked = False
        self._reset()

    def write(self, line: bytes) -> None:
        """Queue a line that ends in a newline."""
        if self._queued - self._taken > CAPACITY_BYTES:
            self.dropped += 1
            return
        self._queued += len(line)
        self._queue.put(line)
        if self._thread is None:
            self._start()

    def write_at_once(self, line: bytes) -> None:
        """Queue a line that does not wait for others to gather."""
        self.write(line)
        if self._hurry.empty():
            self._hurry.put(None)

    # What structlog calls on the logger it wraps.
    debug = info = write
    warning = error = critical = write_at_once

    def flush(self, timeout_seconds: float = 1.0) -> bool:
        """Wait until what was queued is written; false when that took too long."""
        return self._mark(_Mark(), timeout_seconds)

    def _reset(self) -> None:
        """Begin empty, as a forked child must: what its parent queued, its parent writes."""
        self._queue: SimpleQueue[bytes | _Mark] = SimpleQueue()
        self._hurry: SimpleQueue[None] = SimpleQueue()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._queued = 0
        self._taken = 0
        self.dropped = 0
        """Lines that found the queue full or could not be written."""
        self._told = 0

    def _start(self) -> None:
        # The lock is only tried: a signal handler may have interrupted its holder.
        if not self._starting.acquire(blocking=False):
            return
        try:
            if self._thread is None:
                self._hook()
                thread = threading.Thread(target=self._run, name="log-output", daemon=True)
                self._thread = thread
                thread.start()
        except RuntimeError:  # The interpreter is ending and starts no more threads.
            self._thread = None
            self.dropped += 1
        finally:
            self._starting.release()

    def _hook(self) -> None:
        """Once in the life of a process: write out at its end, and stop around forks."""
        if not self._hooked:
            self._hooked = True
            atexit.register(self.flush)
            # Python 3.12 warns of a fork beside a running thread, and rightly.
            os.register_at_fork(before=self._stop, after_in_child=self._reset)

    def _stop(self) -> None:
        thread = self._thread
        if thread is not None and self._mark(_Mark(last=True), _FORK_SECONDS):
            thread.join(_FORK_SECONDS)

    def _mark(self, mark: "_Mark", timeout_seconds: float) -> bool:
        if self._thread is None:
            if self._queue.empty():
                return True
            self._start()
        self._queue.put(mark)
        self._hurry.put(None)
        return mark.reached.wait(timeout_seconds)

    def _run(self) -> None:
        while True:
            item = self._queue.get()
            if isinstance(item, bytes):
                self._gather()
            if self._write_queued(item):
                return

    def _gather(self) -> None:
        with suppress(Empty):
            self._hurry.get(timeout=INTERVAL_SECONDS)
            while True:
                self._hurry.get_nowait()

    def _write_queued(self, item: "bytes | _Mark") -> bool:
        """Write this and all that waits behind it; true when this thread is to end."""
        batch = bytearray()
        with suppress(Empty):
            while True:
                if isinstance(item, _Mark):
                    self._write_batch(batch)
                    if item.last:
                        self._thread = None
                    item.reached.set()
                    if item.last:
                        return True
                else:
                    if len(batch) + len(item) > select.PIPE_BUF:
                        self._write_batch(batch)
                    batch += item
                item = self._queue.get_nowait()
        self._write_batch(batch)
        return False

    def _write_batch(self, batch: bytearray) -> None:
        if not batch:
            return
        try:
            _write_all(self.descriptor, bytes(batch))
        except OSError:  # Closed, or its reader is gone: there is nobody left to tell.
            self.dropped += batch.count(b"\n")
        else:
            self._tell_dropped()
        self._taken += len(batch)
        batch.clear()

    def _tell_dropped(self) -> None:
        dropped = self.dropped
        if dropped > self._told:
            event = {"event": "log_lines_dropped", "level": "warning", "timestamp": datetime.now(UTC)}
            line = orjson.dumps(event | {"lines": dropped - self._told}, option=orjson.OPT_UTC_Z)
            with suppress(OSError):
                _write_all(self.descriptor, line + b"\n")
                self._told = dropped


class _Mark:
    """A place in the queue: reached once all that was queued before it is written."""

    def __init__(self, *, last: bool = False) -> None:
        self.reached = threading.Event()
        self.last = last
        """Whether the writing thread ends here."""


def _write_all(descriptor: int, data: bytes) -> None:
    """Write everything, waiting for room as long as it takes."""
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:  # Whoever shares the pipe has made it non-blocking.
            ready = select.poll()
            ready.register(descriptor, select.POLLOUT)
            ready.poll()
