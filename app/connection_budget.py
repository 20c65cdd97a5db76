"""The connection budget: each worker's share of an instance's connections, and all instances' share of the server's."""

from dataclasses import dataclass

from app.errors import StartupError


def check_budget(*, budget: int, workers: int) -> None:
    """Refuse a budget that is too small: while a worker is replaced, `workers + 1` processes need a connection each.

    Raises:
        StartupError: With what to set.
    """
    if budget < workers + 1:
        alternative = f", or WEB_CONCURRENCY to at most {budget - 1}" if budget > 1 else ""
        raise StartupError(
            f"DATABASE_CONNECTIONS is {budget}, too few for WEB_CONCURRENCY {workers} and one worker that replaces "
            f"another: set it to at least {workers + 1}{alternative}."
        )


def share(*, budget: int, parts: int, number: int) -> int:
    """The connections of one of these parts, counted from 0. The first ones have one more if they cannot be equal."""
    return budget // parts + (number < budget % parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The connections that all instances may open, and those that the server allows."""

    instances: int
    connections_per_instance: int

    migrator_connections: int = 2
    """`alembic upgrade head` runs beside the service with two connections: one migrates, one monitors it."""

    server_connections: int
    """`max_connections` minus the slots that are reserved for superusers."""

    role_connections: int | None = None
    """The connection limit of the role, None if it has none."""

    database_connections: int | None = None
    """The connection limit of the database, None if it has none."""

    @property
    def wanted(self) -> int:
        """The connections that are open when every instance uses all of its own and a migration runs."""
        return self.instances * self.connections_per_instance + self.migrator_connections

    @property
    def available(self) -> int:
        """The connections that the server allows this role."""
        limits = (self.server_connections, self.role_connections, self.database_connections)
        return min(limit for limit in limits if limit is not None)

    @property
    def fits(self) -> bool:
        """Whether the server allows every connection within the budget."""
        return self.wanted <= self.available
