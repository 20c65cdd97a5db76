"""What a worker reports to its master."""

import os
import signal
from collections.abc import Callable
from contextlib import suppress

from app.worker.stage import Stage, StageTable


class WorkerStatus:
    """A worker's stage and heartbeat. The worker reports them, and the master reads the stage."""

    def __init__(self, *, slot: int, stages: StageTable, heartbeat: Callable[[], None], master_pid: int) -> None:
        self.heartbeat = heartbeat
        """Shows the master that this worker is alive. Gunicorn kills a worker without a heartbeat for `timeout`."""
        self._slot = slot
        self._stages = stages
        self._master_pid = master_pid
        stages.write_stage(slot, Stage.STARTING)

    @property
    def stage(self) -> Stage:
        """The stage that the worker has reported last."""
        return self._stages.read_stage(self._slot)

    def report_stage(self, stage: Stage) -> None:
        """Set the stage and wake the master."""
        self._stages.write_stage(self._slot, stage)
        self.heartbeat()
        if self.master_is_alive():
            # SIGCHLD means that something about a child has changed. It wakes the master's loop.
            with suppress(OSError):
                os.kill(self._master_pid, signal.SIGCHLD)

    def master_is_alive(self) -> bool:
        """Whether the process that started this worker still runs."""
        return os.getppid() == self._master_pid
