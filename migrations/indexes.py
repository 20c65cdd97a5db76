"""Creates and drops indexes concurrently, on tables that are in use.

A revision that calls these functions does nothing else: each of them commits by
itself, and the revision must work when it is run again after a failure.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import structlog
from alembic import op
from sqlalchemy import ColumnElement, TextClause, text

from migrations.session import timeouts

log = structlog.get_logger("migrations")

_IS_VALID = text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(quote_ident(:name))")


def create_index_concurrently(
    name: str, table: str, columns: Sequence[str | TextClause | ColumnElement[Any]], **options: Any
) -> None:
    """Create an index. Keep a valid index of this name, and re-create an invalid one that a failed run left."""
    with _outside_a_transaction():
        if not op.get_context().as_sql:
            is_valid = op.get_bind().scalar(_IS_VALID, {"name": name})
            if is_valid:
                log.info("index_kept", index=name)
                return
            if is_valid is False:
                log.warning("index_invalid", index=name)
        _drop(name, table)
        op.create_index(name, table, columns, postgresql_concurrently=True, **options)


def drop_index_concurrently(name: str, table: str) -> None:
    """Drop an index, if it exists."""
    with _outside_a_transaction():
        _drop(name, table)


def _drop(name: str, table: str) -> None:
    op.drop_index(name, table, if_exists=True, postgresql_concurrently=True)


@contextmanager
def _outside_a_transaction() -> Iterator[None]:
    """Run the block without a transaction and without timeouts.

    A concurrent build blocks only other migrations, so it may take as long as it needs. Its waits
    for older transactions have no limit: PostgreSQL would leave a finished index invalid, and
    the next attempt would build it again. `migrations.monitor` logs what it waits for.
    """
    options = op.get_context().opts
    with op.get_context().autocommit_block():
        op.execute(timeouts(lock_seconds=0, statement_seconds=0))
        yield
        op.execute(timeouts(lock_seconds=options["lock_seconds"], statement_seconds=options["statement_seconds"]))
