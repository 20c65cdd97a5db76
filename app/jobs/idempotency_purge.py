"""The periodic job that deletes expired idempotency keys."""

from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

from app.crud import idempotency_keys
from app.database import Database
from app.jobs.periodic import running_periodically

SECONDS: Final = 60.0
"""All workers of all instances together delete once in this time."""

MAX_KEYS: Final = 10_000
"""The most keys that one run deletes. It takes about 0.05 s."""


class PurgeObserver(Protocol):
    """Receives what was deleted, for the metrics."""

    def keys_purged(self, keys: int) -> None:
        """This many keys were deleted just now."""


def purging_keys(database: Database, observer: PurgeObserver, *, workers: int) -> AbstractAsyncContextManager[None]:
    """Delete expired keys in the background while the block runs.

    Args:
        database: The database of this worker. It is left alone while all of its connections are in use.
        observer: Receives what was deleted.
        workers: The workers of all instances. They take turns, so each waits as many times longer.
    """

    async def purge() -> None:
        state = database.state
        if state.waiting or state.in_use == state.size:
            return
        deleted = await idempotency_keys.delete_expired(database, limit=MAX_KEYS)
        if deleted is not None:
            observer.keys_purged(deleted)

    return running_periodically(purge, name="idempotency_purge", seconds=SECONDS * workers)
