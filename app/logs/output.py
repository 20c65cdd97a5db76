"""Writes log lines: a bounded queue, and one thread that writes it to standard output."""

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
"""Bytes that may wait for a slow reader. Further lines are dropped and counted."""

INTERVAL_SECONDS: Final = 0.03
"""How long lines are collected before they are written together."""

_FORK_TIMEOUT_SECONDS: Final = 0.2


class Output:
    """Writes lines without blocking the caller when the reader is slow.

    Each write contains whole lines and at most PIPE_BUF bytes, unless one line is
    longer. Up to that size the lines of several processes do not mix in one pipe.

    The queue is a `SimpleQueue` because a signal handler may call its `put`
    while it interrupts another `put`. Gunicorn's master logs in signal handlers.
    """

    def __init__(self, descriptor: int = 1) -> None:
        self.descriptor = descriptor
        self._hooks_registered = False
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

    def write_immediately(self, line: bytes) -> None:
        """Queue a line, and write it without waiting for further lines."""
        self.write(line)
        if self._wake_up.empty():
            self._wake_up.put(None)

    # The methods that structlog calls on the logger it wraps.
    debug = info = write
    warning = error = critical = write_immediately

    @property
    def backlog_bytes(self) -> int:
        """The bytes of queued lines that are not written yet."""
        return self._queued - self._taken

    def flush(self, timeout_seconds: float = 1.0) -> bool:
        """Wait until all queued lines are written. False when the timeout passes first."""
        return self._wait_for(_Marker(), timeout_seconds)

    def _reset(self) -> None:
        """Start with an empty queue, as a forked child must: the parent writes the lines that it has queued."""
        self._queue: SimpleQueue[bytes | _Marker] = SimpleQueue()
        self._wake_up: SimpleQueue[None] = SimpleQueue()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._queued = 0
        self._taken = 0
        self.dropped = 0
        """Lines that were not queued because the queue was full, or could not be written."""
        self._reported = 0

    def _start(self) -> None:
        # Do not wait for the lock: a signal handler may have interrupted its holder.
        if not self._starting.acquire(blocking=False):
            return
        try:
            if self._thread is None:
                self._register_hooks()
                thread = threading.Thread(target=self._run, name="log-output", daemon=True)
                self._thread = thread
                thread.start()
        except RuntimeError:  # The interpreter is ending, or the system has no thread to give.
            self._thread = None
            self._write_ready()
        finally:
            self._starting.release()

    def _register_hooks(self) -> None:
        """Flush at the end of the process, and stop the thread before forks. Done once in each process."""
        if not self._hooks_registered:
            self._hooks_registered = True
            atexit.register(self.flush)
            # A fork while another thread runs is unsafe; Python 3.12 warns about it.
            os.register_at_fork(before=self._stop, after_in_child=self._reset)

    def _stop(self) -> None:
        thread = self._thread
        if thread is not None and self._wait_for(_Marker(last=True), _FORK_TIMEOUT_SECONDS):
            thread.join(_FORK_TIMEOUT_SECONDS)

    def _wait_for(self, marker: "_Marker", timeout_seconds: float) -> bool:
        if self._thread is None:
            if self._queue.empty():
                return True
            self._start()
        self._queue.put(marker)
        self._wake_up.put(None)
        return marker.reached.wait(timeout_seconds)

    def _run(self) -> None:
        while True:
            entry = self._queue.get()
            if isinstance(entry, bytes):
                self._collect()
            if self._write_queued(entry):
                return

    def _collect(self) -> None:
        with suppress(Empty):
            self._wake_up.get(timeout=INTERVAL_SECONDS)
            while True:
                self._wake_up.get_nowait()

    def _write_queued(self, entry: "bytes | _Marker") -> bool:
        """Write this entry and all that follow in the queue. True when the thread must end."""
        batch = bytearray()
        with suppress(Empty):
            while True:
                if isinstance(entry, _Marker):
                    self._write_batch(batch)
                    if entry.last:
                        self._thread = None
                    entry.reached.set()
                    if entry.last:
                        return True
                else:
                    if len(batch) + len(entry) > select.PIPE_BUF:
                        self._write_batch(batch)
                    batch += entry
                entry = self._queue.get_nowait()
        self._write_batch(batch)
        return False

    def _write_ready(self) -> None:
        """Write queued lines in this thread, as many as the reader takes without delay."""
        ready = select.poll()
        ready.register(self.descriptor, select.POLLOUT)
        with suppress(Empty):
            while ready.poll(0):
                entry = self._queue.get_nowait()
                if isinstance(entry, _Marker):
                    entry.reached.set()
                else:
                    self._write_batch(bytearray(entry))

    def _write_batch(self, batch: bytearray) -> None:
        if not batch:
            return
        try:
            _write_all(self.descriptor, bytes(batch))
        except OSError:  # The descriptor is closed, or its reader is gone.
            self.dropped += batch.count(b"\n")
        else:
            self._report_dropped()
        self._taken += len(batch)
        batch.clear()

    def _report_dropped(self) -> None:
        dropped = self.dropped
        if dropped > self._reported:
            event = {"event": "log_lines_dropped", "level": "warning", "timestamp": datetime.now(UTC)}
            line = orjson.dumps(event | {"lines": dropped - self._reported}, option=orjson.OPT_UTC_Z)
            with suppress(OSError):
                _write_all(self.descriptor, line + b"\n")
                self._reported = dropped


class _Marker:
    """A marker in the queue: it is reached when all lines before it are written."""

    def __init__(self, *, last: bool = False) -> None:
        self.reached = threading.Event()
        self.last = last
        """Whether the writing thread ends at this marker."""


def _write_all(descriptor: int, data: bytes) -> None:
    """Write all data, and wait for the reader for as long as necessary."""
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:  # Another process that shares the pipe has made it non-blocking.
            ready = select.poll()
            ready.register(descriptor, select.POLLOUT)
            ready.poll()
