"""How many connections a worker can have with the descriptors that the operating system allows."""

import resource
from typing import Final

import structlog

from app.errors import StartupError

RESERVED: Final = 40
"""The descriptors of a worker besides those of connections: listeners, event loop, log, metrics and rate limits, and
what is opened for a moment, such as files that a scrape reads."""

_LEAST_CONNECTIONS: Final = 8

log = structlog.get_logger(__name__)


def connections_with_descriptors(max_connections: int, database_connections: int) -> int:
    """The most client connections of one worker: as many as are set, or fewer if there are fewer descriptors.

    The soft limit of this process, which the workers inherit, is raised as far as needed. On many systems it is 1,024,
    for programs that use `select`, and the hard limit is much higher.

    Args:
        max_connections: MAX_CONNECTIONS.
        database_connections: DATABASE_CONNECTIONS, for the primary and again for each replica. A worker has all of
            them if it is the only one.

    Raises:
        StartupError: Almost no descriptor is left for clients.
    """
    needed = RESERVED + database_connections
    descriptors = _raised_limit(needed + max_connections)
    if resource.RLIM_INFINITY != descriptors < needed + _LEAST_CONNECTIONS:
        raise StartupError(
            f"The limit of open files is {descriptors}, and a worker with {database_connections} database connections "
            f"needs more: raise it to at least {needed + _LEAST_CONNECTIONS} (`ulimit -n`), "
            "or lower DATABASE_CONNECTIONS."
        )
    if descriptors == resource.RLIM_INFINITY or descriptors >= needed + max_connections:
        return max_connections
    log.warning(
        "max_connections_lowered",
        max_connections=max_connections,
        lowered_to=descriptors - needed,
        open_files=descriptors,
        needed=needed + max_connections,
    )
    return descriptors - needed


def _raised_limit(wanted: int) -> int:
    """The limit of open files of this process, after its soft limit was raised, at most to the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    reachable = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft == resource.RLIM_INFINITY or soft >= reachable:
        return soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (reachable, hard))
    return reachable
