"""Indexes on tables that are in use: made and dropped beside their readers and writers.

A revision that calls these holds nothing else: each of them commits by itself, and
must find its way when the revision is run again.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import structlog
from alembic import op
from sqlalchemy import TextClause, text

from migrations.session import limits

log = structlog.get_logger("migrations")

_IS_VALID = text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(quote_ident(:name))")


def create_index_concurrently(name: str, table: str, columns: Sequence[str | TextClause], **options: Any) -> None:
    """Make an index. One that was left behind invalid by a run that failed is made again."""
    with _beside_readers_and_writers():
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
    """Drop an index, if it is there."""
    with _beside_readers_and_writers():
        _drop(name, table)


def _drop(name: str, table: str) -> None:
    op.drop_index(name, table, if_exists=True, postgresql_concurrently=True)


@contextmanager
def _beside_readers_and_writers() -> Iterator[None]:
    """Outside of a transaction, and for as long as it takes: nobody waits for this but other migrations.

    Only the waits for older transactions are bounded, by what is left of the run's patience.
    """
    options = op.get_context().opts
    lock_seconds = max(options["patience"].left, options["lock_seconds"])
    with op.get_context().autocommit_block():
        op.execute(limits(lock_seconds=lock_seconds, statement_seconds=0))
        yield
        op.execute(limits(lock_seconds=options["lock_seconds"], statement_seconds=options["statement_seconds"]))
