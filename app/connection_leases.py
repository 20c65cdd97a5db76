"""Leases of database connections: the workers of an instance never open more than its budget, whatever ends them.

A worker holds a lease for each connection that it may open. A lease is a lock on a few bytes of a file in shared
memory, so no two processes have the same one, and the kernel releases it when its holder dies. The master creates the
file before it starts a worker, and says in it how many processes share the budget. Its layout changes with a restart
only.
"""

import fcntl
import os
import struct
import tempfile
import time
from collections.abc import Iterable
from math import inf
from pathlib import Path
from typing import Final

from app.connection_budget import share
from app.errors import StartupError

VARIABLE: Final = "CONNECTION_LEASES"
"""The environment variable with the descriptor that workers inherit, and the process id of the master."""

REST_SECONDS: Final = 1.0
"""How long a lease rests whose holder has died. By then the server has ended the session of the dead process: at once
if it was idle, and within `client_connection_check_interval` if it ran a statement."""

_PART: Final = struct.Struct("=HH")
"""In how many parts the budget is divided, and which of them a worker has, from 0. One for each slot."""

_SLOTS: Final = 512
"""WEB_CONCURRENCY allows 256 workers, and one more lives while it replaces another."""

_MARK: Final = struct.Struct("=d")
"""When a lease may be taken, by the monotonic clock, which all processes share; infinity while it is held."""

_MOST_LEASES: Final = 10_000
"""The greatest DATABASE_CONNECTIONS."""

_SERVERS: Final = 4
"""The primary, and as many replicas as DATABASE_REPLICA_URL may name."""

_MARKS_AT: Final = _SLOTS * _PART.size
_FILE_BYTES: Final = _MARKS_AT + _SERVERS * _MOST_LEASES * _MARK.size


class LeaseFile:
    """The master's side: creates the file, divides the budget, and notes when a worker has ended.

    The file has no name, so it is gone with the last process that has it open. Nothing may close its descriptor
    before that: a process that closes any descriptor of a file loses its locks on it.
    """

    def __init__(self, folder: Path) -> None:
        """Create the file in this folder, which should be in shared memory.

        Raises:
            StartupError: There is no room for it.
        """
        try:
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
            # Written now: later there might be no room.
            self._file.write(bytes(_FILE_BYTES))
        except OSError as error:
            raise StartupError(
                f"The file of the connection leases cannot be written in {folder}: {error.strerror}. "
                f"Give the service a writable folder there with {_FILE_BYTES // 1024 + 1} KiB."
            ) from None
        self._descriptor = self._file.fileno()
        self._slots: tuple[int, ...] = ()
        self._parts = 0
        os.environ[VARIABLE] = f"{self._descriptor}/{os.getpid()}"

    def divide(self, slots: Iterable[int], *, at_least: int) -> None:
        """Divide the budget among the workers in these slots, in at least so many parts."""
        ordered = tuple(sorted(slots))
        parts = max(at_least, len(ordered))
        if (ordered, parts) == (self._slots, self._parts):
            return
        for number, slot in enumerate(ordered):
            os.pwrite(self._descriptor, _PART.pack(parts, number), slot * _PART.size)
        self._slots, self._parts = ordered, parts

    def worker_gone(self) -> None:
        """Let the leases rest, from now on, that a worker has not given back before its end."""
        marks = os.pread(self._descriptor, _FILE_BYTES - _MARKS_AT, _MARKS_AT)
        for number, (free_at,) in enumerate(_MARK.iter_unpack(marks)):
            offset = _MARKS_AT + number * _MARK.size
            if free_at == inf and _lock(self._descriptor, offset):
                os.pwrite(self._descriptor, _MARK.pack(time.monotonic() + REST_SECONDS), offset)
                _unlock(self._descriptor, offset)


class Leases:
    """The leases that one worker holds for its connections to one server."""

    def __init__(self, descriptor: int, *, slot: int, budget: int, server: int = 0) -> None:
        """Hold no lease yet.

        Args:
            descriptor: That of the file, inherited from the master.
            slot: The slot of this worker.
            budget: The connections of all workers together.
            server: A number below 4, another one for each server with a budget of its own.
        """
        self._descriptor = descriptor
        self._part_at = slot * _PART.size
        self._marks_at = _MARKS_AT + server * _MOST_LEASES * _MARK.size
        self._budget = budget
        self._held: list[int] = []

    def adjust(self, sessions: int) -> int:
        """Give back the leases that are beyond this worker's share, and take those that it lacks.

        Args:
            sessions: The sessions that this worker has or may be opening. It keeps a lease for each.

        Returns:
            How many connections the worker may use from now on. There can be fewer leases than its share, while other
            workers have not given back theirs.
        """
        parts, number = _PART.unpack(os.pread(self._descriptor, _PART.size, self._part_at))
        wanted = share(budget=self._budget, parts=parts, number=number) if parts else 0
        while len(self._held) > max(wanted, sessions):
            self._give_back(self._held.pop())
        if len(self._held) < wanted:
            self._take(wanted)
        return min(wanted, len(self._held))

    def give_back(self) -> None:
        """Give back all leases. The server has ended every session of this worker."""
        while self._held:
            self._give_back(self._held.pop())

    def _take(self, wanted: int) -> None:
        held = set(self._held)
        for lease in range(self._budget):
            if lease not in held and self._try(self._marks_at + lease * _MARK.size):
                self._held.append(lease)
                if len(self._held) == wanted:
                    return

    def _try(self, offset: int) -> bool:
        """Take the lease at this offset, unless another process has it or it rests."""
        if not _lock(self._descriptor, offset):
            return False
        now = time.monotonic()
        (free_at,) = _MARK.unpack(os.pread(self._descriptor, _MARK.size, offset))
        if free_at == inf:
            # Its holder has died, and the master has not noticed yet.
            free_at = now + REST_SECONDS
            os.pwrite(self._descriptor, _MARK.pack(free_at), offset)
        if free_at > now:
            _unlock(self._descriptor, offset)
            return False
        os.pwrite(self._descriptor, _MARK.pack(inf), offset)
        return True

    def _give_back(self, lease: int) -> None:
        offset = self._marks_at + lease * _MARK.size
        os.pwrite(self._descriptor, _MARK.pack(0.0), offset)
        _unlock(self._descriptor, offset)


def worker_connections(*, budget: int, workers: int, slot: int, server: int = 0) -> Leases | int:
    """The connections of this worker: leases of the budget, or their number where no master shares it out.

    Args:
        budget: The connections of all workers together.
        workers: The number of workers, which have equal parts if there is no master.
        slot: The slot of this worker.
        server: A number below 4, another one for each server with a budget of its own.
    """
    descriptor, _, master = os.environ.get(VARIABLE, "").partition("/")
    if master != str(os.getppid()):
        return max(1, budget // workers)
    return Leases(int(descriptor), slot=slot, budget=budget, server=server)


def _lock(descriptor: int, offset: int) -> bool:
    """Lock the mark at this offset. False if another process has it."""
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, _MARK.size, offset)
    except (BlockingIOError, PermissionError):  # which of the two depends on the system
        return False
    return True


def _unlock(descriptor: int, offset: int) -> None:
    fcntl.lockf(descriptor, fcntl.LOCK_UN, _MARK.size, offset)
