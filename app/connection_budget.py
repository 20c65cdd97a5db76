"""Arithmetic: the connection budget of an instance, and each worker's share of it."""

from dataclasses import dataclass

from app.errors import StartupError


def worker_share(*, budget: int, workers: int) -> int:
    """The connections that one worker may hold.

    While a worker is being replaced there is one more of them than `workers`;
    the budget is divided so that it holds during that time too.

    Raises:
        StartupError: A worker would get none.
    """
    connections = budget // (workers + 1)
    if connections < 1:
        raise StartupError(
            f"DATABASE_CONNECTIONS is {budget}, too few for {workers} workers and the one that replaces another: "
            f"set it to at least {workers + 1}, or WEB_CONCURRENCY to at most {budget - 1}."
        )
    return connections


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What all instances together may ask of the server, and what the server has."""

    instances: int
    connections_per_instance: int

    migrator_connections: int = 2
    """`alembic upgrade head` runs beside the service: on one connection it works, from the other it watches."""

    server_connections: int
    """`max_connections` less the slots reserved for superusers."""

    role_connections: int | None = None
    """The role's own limit, None without one."""

    database_connections: int | None = None
    """The database's own limit, None without one."""

    @property
    def wanted(self) -> int:
        """Connections that may be open at once, every instance full and a migration running."""
        return self.instances * self.connections_per_instance + self.migrator_connections

    @property
    def available(self) -> int:
        """Connections that the server grants this role."""
        limits = (self.server_connections, self.role_connections, self.database_connections)
        return min(limit for limit in limits if limit is not None)

    @property
    def fits(self) -> bool:
        """Whether no instance can ever be refused a connection within its budget."""
        return self.wanted <= self.available
