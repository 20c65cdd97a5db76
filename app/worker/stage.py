"""How far a worker is, told to the master through the times of its heartbeat file."""

import os
import time
from enum import IntEnum

from gunicorn.workers.workertmp import WorkerTmp


class Stage(IntEnum):
    """What a worker is doing."""

    STARTING = 1
    """It imports the application and opens its parts."""

    SERVING = 2
    """It accepts connections."""

    WORN = 3
    """It accepts connections, and has answered so many requests that it asks to be replaced."""

    DRAINING = 4
    """It accepts no more connections and ends the requests it has."""


def tell(file: WorkerTmp, stage: Stage) -> None:
    """Show the master a sign of life and the stage, in one call that cannot be seen half done.

    Gunicorn reads the sign of life from the time of modification. Nobody reads
    the file, so its time of access is free to carry the stage.
    """
    os.utime(file.fileno(), (stage, time.monotonic()))


def told(file: WorkerTmp) -> Stage:
    """The stage that the worker told last."""
    return Stage(int(os.fstat(file.fileno()).st_atime))
