"""Containers on a private network, as far as several tests need them."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.cluster import ROLES
from tests.deploy.engine import Engine
from tests.deploy.manifests import docker_flags
from tests.processes.server import free_port

OVERLAY = "development"

PASSWORD = "throw-away"


@contextmanager
def database(engine: Engine) -> Iterator[str]:
    """A network with a PostgreSQL in it, migrated by the service's image. It yields the network's name."""
    network = "items-test"
    engine.docker("network", "create", network)
    secret = engine.folder / "superuser"
    secret.write_text(PASSWORD)
    secret.chmod(0o444)
    engine.docker(
        "run", "--detach", "--name=postgres", f"--network={network}", "--user=postgres",
        f"--volume={secret}:/superuser:ro",
        "--env=POSTGRES_PASSWORD_FILE=/superuser", "--env=POSTGRES_USER=postgres", "--env=POSTGRES_DB=items",
        "--env=POSTGRES_INITDB_ARGS=--auth=trust", f"--volume={ROLES}:/roles.sql:ro", "postgres:17",
        "postgres", "-c", "fsync=off",
    )  # fmt: skip
    try:
        ask = ("exec", "postgres", "psql", "--quiet", "--host=127.0.0.1", "--username=postgres", "--dbname=items")
        eventually(lambda: "1 row" in engine.docker(*ask, "--command=SELECT 1", check=False), "PostgreSQL answers")
        engine.docker(*ask, "--set=ON_ERROR_STOP=1", "--file=/roles.sql")
        engine.docker(
            "exec", "postgres", "psql", "--quiet", "--host=127.0.0.1", "--username=postgres", "--dbname=items",
            *(f"--command=ALTER ROLE {role} PASSWORD '{PASSWORD}'" for role in ("items_owner", "items_app")),
        )  # fmt: skip
        engine.docker(
            "run", "--rm", f"--network={network}", "--read-only", "--tmpfs=/tmp",
            f"--env=MIGRATION_DATABASE_URL={url('items_owner')}", "items-api:local", "alembic", "upgrade", "head",
        )  # fmt: skip
        yield network
    finally:
        engine.docker("rm", "--force", "--volumes", "postgres")
        engine.docker("network", "rm", network, check=False)


def url(role: str) -> str:
    """Where that PostgreSQL is."""
    return f"postgresql://{role}:{PASSWORD}@postgres:5432/items"


@contextmanager
def service(engine: Engine, name: str, network: str, **variables: str) -> Iterator[int]:
    """The service in a container that is as restricted as its pod. It yields its port on this machine."""
    port = free_port()
    environment = {"DATABASE_URL": url("items_app"), "WEB_CONCURRENCY": "2", "RATE_LIMIT_ENABLED": "false"} | variables
    engine.docker(
        "run", "--detach", f"--name={name}", f"--network={network}", *docker_flags(OVERLAY),
        f"--publish=127.0.0.1:{port}:8000", "--health-interval=1s",
        *(f"--env={key}={value}" for key, value in environment.items()), "items-api:local",
    )  # fmt: skip
    try:
        eventually(lambda: healthy(engine, name), f"{name} is healthy")
        yield port
    finally:
        engine.docker("rm", "--force", name, check=False)


def healthy(engine: Engine, name: str) -> bool:
    """What the image's own HEALTHCHECK found, and whether it lives at all."""
    state = engine.inspect(name)["State"]
    assert state["Running"], engine.docker("logs", name, check=False)[-4000:]
    return bool(state["Health"]["Status"] == "healthy")


def eventually(look: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Wait until it is so."""
    end = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.2)
