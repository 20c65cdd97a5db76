"""The worker that Gunicorn runs, and the master that replaces it without a gap."""

import os
import signal
from contextlib import suppress
from typing import Any

from uvicorn_worker import UvicornWorker

from app.worker.connection import Connection
from app.worker.limits import Limits as Limits
from app.worker.server import Server
from app.worker.stage import Stage, tell, told


class Worker(UvicornWorker):
    """One process that serves, from the first import to the last answer."""

    CONFIG_KWARGS: dict[str, Any] = {  # noqa: RUF012
        "access_log": False,
        "http": Connection,
        "lifespan": "on",
        "limit_max_requests": None,
        "loop": "uvloop",
        "reset_contextvars": True,
        "server_header": False,
        "ws": "none",
    }

    limits: Limits
    """Set after the fork."""

    pid: int  # type: ignore[assignment]

    slot = -1
    """A small number that no other living worker has."""

    generation = 0
    """How many reloads came before it."""

    spawned_at = 0.0
    serving_since: float | None = None
    stop_by: float | None = None
    """The master's notes, by the monotonic clock; `stop_by` is set once it was told to stop."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.stage = Stage.STARTING
        # Gunicorn watches only workers that have given a sign of life: one that hangs in its start must count.
        self.notify()

    def notify(self) -> None:
        """Show the master a sign of life."""
        tell(self.tmp, self.stage)

    def enter(self, stage: Stage) -> None:
        """Tell the master at once how far this worker is."""
        self.stage = stage
        self.notify()
        if os.getppid() == self.ppid:
            # SIGCHLD says that something about a child has changed, and wakes the master's loop.
            with suppress(OSError):
                os.kill(self.ppid, signal.SIGCHLD)

    def told_stage(self) -> Stage:
        """How far the worker was when it last told, as the master sees it."""
        return told(self.tmp)

    def load_wsgi(self) -> None:
        """Import and build the application; it may take one `timeout`."""
        self.notify()
        super().load_wsgi()

    def run(self) -> None:
        """Open the application, in one more `timeout`, and serve until told to stop."""
        self.notify()
        self.config.timeout_graceful_shutdown = self.limits.graceful_seconds  # type: ignore[assignment]
        super().run()

    async def _serve(self) -> None:
        self.config.app = self.wsgi
        # The bare sockets: uvloop closes them by itself, and Gunicorn's wrappers would close a number twice.
        await Server(self).serve([listener.sock for listener in self.sockets])  # type: ignore[attr-defined]
