"""Development only: a private PostgreSQL in a folder, for when no DATABASE_URL is set."""

import atexit
import hashlib
import logging
import os
from pathlib import Path

from app.embedded_postgres.cluster import Cluster
from app.embedded_postgres.programs import run

_log = logging.getLogger(__name__)

_LONGEST_SOCKET_FOLDER = 85
"""In bytes: a socket's whole path may have 103 on some systems."""


def start(folder: Path) -> str:
    """Start the cluster kept in the folder, made when it is missing, and return its URL.

    It is stopped when this process ends. Processes that use one folder at the
    same time share the cluster, and the last of them stops it.

    Raises:
        StartupError: There is no PostgreSQL to run, or it cannot run here.
    """
    cluster = Cluster(_usable_folder(folder))
    cluster.start()
    starter = os.getpid()
    # Forked workers run this as well when they end, and must not stop what they share.
    atexit.register(lambda: cluster.stop() if os.getpid() == starter else None)
    return cluster.url


def _usable_folder(folder: Path) -> Path:
    """The folder itself, or one below /var/tmp when PostgreSQL's user cannot reach it or its path is too long."""
    folder = folder.resolve()
    fits = len(os.fsencode(folder)) <= _LONGEST_SOCKET_FOLDER and "," not in str(folder)
    if fits and run(["test", "-x", str(folder.parent)]).returncode == 0:
        return folder
    name = f"items-{os.getuid()}-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}"
    instead = Path("/var/tmp", name)  # noqa: S108  # nosec B108
    _log.warning("PostgreSQL cannot work in %s, so the embedded one keeps its data in %s.", folder, instead)
    return instead
