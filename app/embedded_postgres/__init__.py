"""Development only: a private PostgreSQL in a folder, used when DATABASE_URL is not set."""

import atexit
import hashlib
import logging
import os
from pathlib import Path

from app.embedded_postgres.cluster import Cluster
from app.embedded_postgres.programs import SET_URL, run
from app.errors import StartupError

_log = logging.getLogger(__name__)

_MAX_SOCKET_FOLDER_BYTES = 85
"""The path of a socket in the folder may have 103 bytes on some systems."""


def start(folder: Path) -> str:
    """Start the cluster in the folder, create it when it is missing, and return its URL.

    It is stopped when this process ends. Processes that use the same folder at
    the same time share the cluster, and the last of them stops it.

    Raises:
        StartupError: PostgreSQL was not found, or cannot run here.
    """
    cluster = Cluster(_usable_folder(folder))
    if cluster.folder != folder.resolve():
        _log.warning("PostgreSQL cannot use %s. The embedded PostgreSQL keeps its data in %s.", folder, cluster.folder)
    _log.warning("DATABASE_URL is not set: a private PostgreSQL for development is started in %s.", cluster.folder)
    cluster.start()
    starter = os.getpid()
    # Forked workers run this too when they end, and must not stop the server that they share.
    atexit.register(lambda: cluster.stop() if os.getpid() == starter else None)
    return cluster.url


def running_url(folder: Path) -> str:
    """The URL of the cluster in the folder, which another process has started.

    Raises:
        StartupError: Its server does not run.
    """
    cluster = Cluster(_usable_folder(folder))
    if not cluster.is_running():
        raise StartupError(
            f"DATABASE_URL is not set, and the embedded PostgreSQL in {cluster.folder} does not run: "
            f"start it with `make run` in another terminal, {SET_URL}."
        )
    _log.warning("DATABASE_URL is not set: the private PostgreSQL for development in %s is used.", cluster.folder)
    return cluster.url


def _usable_folder(folder: Path) -> Path:
    """The folder itself, or a folder below /var/tmp if PostgreSQL's user cannot reach it or its path is too long."""
    folder = folder.resolve()
    fits = len(os.fsencode(folder)) <= _MAX_SOCKET_FOLDER_BYTES and "," not in str(folder)
    if fits and run(["test", "-x", str(folder.parent)]).returncode == 0:
        return folder
    name = f"items-{os.getuid()}-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}"
    return Path("/var/tmp", name)  # noqa: S108  # nosec B108
