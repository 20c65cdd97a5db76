"""A primary and its standby, and what makes one of them freeze, follow or lead."""

import os
import signal
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


def freeze(cluster: Cluster) -> None:
    """Stop every process of the server (SIGSTOP), for good: it is killed at the end."""
    postmaster = psutil.Process(int(Path(cluster.data, "postmaster.pid").read_text().split()[0]))
    for process in [postmaster, *postmaster.children(recursive=True)]:
        os.kill(process.pid, signal.SIGSTOP)


def promote(cluster: Cluster) -> None:
    """Make the standby a primary, and wait until it is one."""
    execute(cluster.url, "SELECT pg_promote()")
