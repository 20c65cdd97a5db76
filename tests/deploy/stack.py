"""Containers on a private network that several tests use."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.cluster import ROLES
from tests.deploy.engine import IMAGE, Engine
from tests.deploy.manifests import docker_flags
from tests.processes.server import free_port

OVERLAY = "development"

PASSWORD = "throw-away"


@contextmanager
def database(engine: Engine) -> Iterator[str]:
    """A network with a PostgreSQL that the service's image has migrated. Yields the name of the network."""
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
        psql = ("exec", "postgres", "psql", "--quiet", "--host=127.0.0.1", "--username=postgres", "--dbname=items")
        eventually(lambda: "1 row" in engine.docker(*psql, "--command=SELECT 1", check=False), "PostgreSQL answers")
        engine.docker(*psql, "--set=ON_ERROR_STOP=1", "--file=/roles.sql")
        engine.docker(
            "exec", "postgres", "psql", "--quiet", "--host=127.0.0.1", "--username=postgres", "--dbname=items",
            *(f"--command=ALTER ROLE {role} PASSWORD '{PASSWORD}'" for role in ("items_owner", "items_app")),
        )  # fmt: skip
        engine.docker(
            "run", "--rm", f"--network={network}", "--read-only", "--tmpfs=/tmp",
            f"--env=MIGRATION_DATABASE_URL={url('items_owner')}", IMAGE, "alembic", "upgrade", "head",
        )  # fmt: skip
        yield network
    finally:
        engine.docker("rm", "--force", "--volumes", "postgres")
        engine.docker("network", "rm", network, check=False)


def url(role: str) -> str:
    """The URL of that PostgreSQL for a role."""
    return f"postgresql://{role}:{PASSWORD}@postgres:5432/items"


@contextmanager
def service(engine: Engine, name: str, network: str, *flags: str, **variables: str) -> Iterator[int]:
    """The service in a container with the restrictions of its pod. Yields its port on this machine.

    Args:
        flags: More options of `docker run`. They replace those of the pod.
        variables: The environment.
    """
    port = free_port()
    environment = {"DATABASE_URL": url("items_app"), "WEB_CONCURRENCY": "2", "RATE_LIMIT_ENABLED": "false"} | variables
    engine.docker(
        "run", "--detach", f"--name={name}", f"--network={network}", *docker_flags(OVERLAY), *flags,
        f"--publish=127.0.0.1:{port}:8000", "--health-interval=1s",
        *(f"--env={key}={value}" for key, value in environment.items()), IMAGE,
    )  # fmt: skip
    try:
        eventually(lambda: healthy(engine, name), f"{name} is healthy")
        yield port
    finally:
        engine.docker("rm", "--force", name, check=False)


def healthy(engine: Engine, name: str) -> bool:
    """Whether the HEALTHCHECK of the image succeeds. A container that has exited is an error."""
    state = engine.inspect(name)["State"]
    assert state["Running"], engine.docker("logs", name, check=False)[-4000:]
    return bool(state["Health"]["Status"] == "healthy")


def eventually(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Wait until the condition is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.2)
