"""The worker class that Gunicorn runs."""

import sys
from typing import Any

from gunicorn.arbiter import Arbiter
from uvicorn_worker import UvicornWorker

from app.worker.connection import Connection
from app.worker.limits import Limits
from app.worker.server import Server
from app.worker.stack_file import StackFile
from app.worker.stage import StageTable
from app.worker.status import WorkerStatus


class Worker(UvicornWorker):
    """One process that serves the application.

    The master makes the object before the fork, so both processes have a copy.
    """

    CONFIG_KWARGS: dict[str, Any] = {  # noqa: RUF012
        "access_log": False,
        "http": Connection,
        "lifespan": "on",
        "limit_max_requests": None,
        "loop": "uvloop",
        "proxy_headers": False,
        "reset_contextvars": True,
        "server_header": False,
        "ws": "none",
    }

    limits: Limits
    """Set in the worker, after the fork."""

    slot: int
    """A small number that no other living worker has. Set by the master before the fork, as is `status`."""

    status: WorkerStatus

    pid: int  # type: ignore[assignment]

    generation = 0
    """How many reloads there were before the master started this worker. Only the master uses this and what follows."""

    spawned_at = 0.0
    """By the monotonic clock, as are the next two."""

    serving_since: float | None = None

    stop_by: float | None = None
    """When the worker is killed. Set once it has been asked to stop."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.stack_file = StackFile(self.cfg.worker_tmp_dir)
        # Gunicorn times out only workers that have sent a heartbeat. This is the first, so a hanging start is noticed.
        self.notify()

    def assign_slot(self, slot: int, stages: StageTable) -> None:
        """Give the worker its slot. Called before the fork."""
        self.slot = slot
        self.status = WorkerStatus(slot=slot, stages=stages, heartbeat=self.notify, master_pid=self.ppid)

    def init_signals(self) -> None:
        """Set the signal handlers, and have the stacks written when the master ends this worker with SIGABRT."""
        super().init_signals()
        self.stack_file.enable()

    def load_wsgi(self) -> None:
        """Import and build the application. This may take one `timeout`."""
        self.notify()
        super().load_wsgi()

    def run(self) -> None:
        """Start the application, which may take one more `timeout`, and serve until the worker is asked to stop."""
        if not hasattr(self, "limits"):
            self.log.error(
                "This worker needs the hooks of the service's gunicorn.conf.py: "
                "start gunicorn in the folder of that file, without --config."
            )
            sys.exit(Arbiter.APP_LOAD_ERROR)  # the master stops too, in place of starting workers again and again
        self.notify()
        self.config.timeout_graceful_shutdown = self.limits.graceful_seconds  # type: ignore[assignment]
        super().run()

    async def _serve(self) -> None:
        self.config.app = self.wsgi
        server = Server(self.config, limits=self.limits, status=self.status, max_requests=self.max_requests)
        # The plain sockets: uvloop closes them itself, and Gunicorn's wrappers would close a descriptor a second time.
        await server.serve([listener.sock for listener in self.sockets])  # type: ignore[attr-defined]
