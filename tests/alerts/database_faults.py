"""Faults of PostgreSQL and of the network before it."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import asyncpg

from app import NAME
from tests.alerts.scene import Scene, creation, from_client
from tests.cluster import (
    as_role,
    create_samples,
    execute,
    migrate,
    processes_stopped,
    slow_down_creations,
    throw_away_cluster,
)
from tests.processes.server import Server
from tests.proxy import proxy_beside

OF_SERVICE = f"application_name = '{NAME}' AND datname = current_database()"
END_SESSIONS = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {OF_SERVICE}"
END_A_WRITE = f"{END_SESSIONS} AND state = 'active' AND query LIKE '%INSERT%' AND pid <> pg_backend_pid() LIMIT 1"


@contextmanager
def own_cluster(scene: Scene) -> Iterator[tuple[Server, Callable[[], object], Callable[[], object]]]:
    """A server with a PostgreSQL of its own, and what stops and freezes that."""
    with throw_away_cluster() as cluster:
        migrate(cluster.url)
        create_samples(cluster.url)
        execute(cluster.url, "INSERT INTO samples (name) SELECT 'seeded' FROM generate_series(1, 20)")

        def freeze() -> None:
            with processes_stopped(cluster):
                scene.hold()

        with scene.serving(cluster.url, clients=50) as server:
            scene.begin()
            yield server, lambda: cluster.stop("fast"), freeze


def database_stopped(scene: Scene) -> None:
    """PostgreSQL is not reachable."""
    with own_cluster(scene) as (_, stop, _):
        stop()
        scene.hold()


def database_frozen(scene: Scene) -> None:
    """PostgreSQL is frozen."""
    with own_cluster(scene) as (_, _, freeze):
        freeze()


def packets_dropped(scene: Scene) -> None:
    """The network drops packets to PostgreSQL."""
    with proxy_beside(scene.url) as (proxy, call), scene.serving(proxy.url, clients=50):
        scene.begin()
        call(proxy.freeze)
        scene.hold()


def connections_closed(scene: Scene) -> None:
    """Idle connections are closed, every minute."""
    with scene.serving():
        scene.begin()
        for _ in scene.every(60):
            execute(scene.owner_url, f"{END_SESSIONS} AND state = 'idle'")


def connections_forgotten(scene: Scene) -> None:
    """The network forgets connections once."""
    with proxy_beside(scene.url) as (proxy, call), scene.serving(proxy.url):
        scene.begin()
        call(proxy.forget)
        scene.hold()


def password_changed(scene: Scene) -> None:
    """The password changes, the file keeps the old one, and connections are closed."""
    execute(scene.owner_url, "CREATE ROLE guarded LOGIN PASSWORD 'old' IN ROLE items_app")
    with scene.serving(as_role(scene.owner_url, "guarded:old")):
        scene.begin()
        execute(scene.owner_url, "ALTER ROLE guarded PASSWORD 'new'")
        execute(scene.owner_url, END_SESSIONS)
        scene.hold()


def one_host_frozen(scene: Scene) -> None:
    """One host of two is frozen."""
    with proxy_beside(scene.url) as (stuck, call), proxy_beside(scene.url) as (alive, _):
        stuck_host, alive_host = (url.split("@")[1].split("/")[0] for url in (stuck.url, alive.url))
        with scene.serving(alive.url.replace(alive_host, f"{stuck_host},{alive_host}")):
            scene.begin()
            call(stuck.freeze)
            scene.hold()


def database_read_only(scene: Scene) -> None:
    """PostgreSQL becomes read-only."""
    with scene.serving():
        scene.begin()
        name = scene.owner_url.partition("?")[0].rpartition("/")[2]
        execute(scene.owner_url, f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
        execute(scene.owner_url, END_SESSIONS)
        scene.hold()


def table_locked(scene: Scene) -> None:
    """A table is locked."""
    with scene.serving(clients=200), asyncio.Runner() as runner:
        connection = runner.run(asyncpg.connect(scene.owner_url))
        scene.begin()
        runner.run(connection.execute("BEGIN; LOCK TABLE samples IN ACCESS EXCLUSIVE MODE"))
        scene.hold()
        runner.run(connection.close())


def writes_broken(scene: Scene) -> None:
    """A connection breaks during a write, every second."""
    slow_down_creations(scene.owner_url, seconds=0.2)
    with scene.serving(clients=50, request=lambda number: from_client(number, creation(number))):
        scene.begin()
        for _ in scene.every(1):
            execute(scene.owner_url, END_A_WRITE)
