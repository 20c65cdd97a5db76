"""A primary and its standby, and what makes one of them freeze, follow or lead."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from app.embedded_postgres.cluster import Cluster
from tests.cluster import create_samples, execute, migrate, throw_away_cluster


@contextmanager
def primary_and_standby() -> Iterator[tuple[Cluster, Cluster]]:
    """A migrated primary and a standby that follows it. A commit waits for the standby, so that it lacks none."""
    durable = {"synchronous_commit": "on"}
    with throw_away_cluster(durable) as primary:
        migrate(primary.url)
        create_samples(primary.url)
        with throw_away_cluster(durable, standby_of=primary) as standby:
            wait_for_standby(primary, "*")
            yield primary, standby


def wait_for_standby(primary: Cluster, name: str) -> None:
    """Let each commit of the primary wait for the standby of this name, soon; `*` stands for any."""
    execute(primary.url, f"ALTER SYSTEM SET synchronous_standby_names = '{name}'")
    execute(primary.url, "SELECT pg_reload_conf()")


def url_of(*clusters: Cluster, parameters: str = "") -> str:
    """The URL that names these servers in this order."""
    folders = ",".join(str(cluster.data) for cluster in clusters)
    return f"postgresql://postgres@/postgres?host={folders}&port=5432{parameters}"


@contextmanager
def frozen(cluster: Cluster) -> Iterator[float]:
    """Every process of the server is stopped (SIGSTOP), and at the end killed: it takes no write after that.

    Yields:
        When they were stopped, by the monotonic clock.
    """
    postmaster = psutil.Process(int(Path(cluster.data, "postmaster.pid").read_text().split()[0]))
    postmaster.suspend()  # first, so that it starts no other process
    processes = [postmaster, *postmaster.children(recursive=True)]
    for process in processes:
        process.suspend()
    try:
        yield time.monotonic()
    finally:
        for process in processes:
            process.kill()
        psutil.wait_procs(processes, timeout=10)


def promote(cluster: Cluster) -> float:
    """Make the standby a primary, and return when it is one, by the monotonic clock."""
    execute(cluster.url, "SELECT pg_promote()")
    return time.monotonic()
