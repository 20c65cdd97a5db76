"""A temporary PostgreSQL cluster that all sides of a comparison share."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import urlsplit

from tests.cluster import execute, migrate, throw_away_cluster

ITEMS = 10_000
"""Rows of the table before a measurement."""

_FILL = f"""
INSERT INTO items (name, description, price, is_active)
SELECT 'Kettle ' || n, 'Boils a litre in two minutes.', n % 10000 / 100.0, n % 10 <> 0
FROM generate_series(1, {ITEMS}) AS n
"""


class Databases:
    """Creates databases with equal content."""

    def __init__(self, url: str) -> None:
        self._server = url
        self._names: list[str] = []
        self._template = "template0"
        filled = self.create()
        migrate(filled)
        execute(filled, _FILL)
        execute(filled, "VACUUM (FREEZE, ANALYZE)")
        self._template = self._names[0]

    def create(self) -> str:
        """Create a database with `ITEMS` items, and return its URL."""
        name = f"items_benchmark_{len(self._names)}"
        execute(self._server, f'CREATE DATABASE "{name}" TEMPLATE "{self._template}" STRATEGY FILE_COPY')
        self._names.append(name)
        return urlsplit(self._server)._replace(path=f"/{name}").geturl()


def create_migrated(server: str, name: str) -> str:
    """Create an empty database with the current schema, and return its URL."""
    execute(server, f'CREATE DATABASE "{name}"')
    url = urlsplit(server)._replace(path=f"/{name}").geturl()
    migrate(url)
    return url


def restore(url: str) -> None:
    """Delete the items that a measurement has created."""
    execute(url, f"DELETE FROM items WHERE id > {ITEMS}")
    execute(url, "VACUUM (ANALYZE) items")


@contextmanager
def databases(options: Mapping[str, str] | None = None) -> Iterator[Databases]:
    """Start a temporary cluster with these settings for databases, and remove it at the end."""
    with throw_away_cluster(options) as cluster:
        yield Databases(cluster.url)
