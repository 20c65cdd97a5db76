"""Create an item at most once for an Idempotency-Key: one SQL statement."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Numeric, bindparam, text

from app.crud.idempotency_keys import KEEP_FIRST_ANSWER, stored_key
from app.crud.item import CONSTRAINT_ERRORS
from app.database import StatementRunner, named
from app.dataclasses.item import Item
from app.errors import IdempotencyKeyReusedError

KEY_PREFIX = ""
"""What is put before a key that is stored. The keys of each resource have a prefix of their own, so that one key can be
used for several resources. A prefix ends with a space, which a client's key cannot contain."""

# This request is the first if the stored id is the one that it has proposed.
_create_once = named(
    "create_item_once",
    text(
        f"""
WITH proposed AS (
    SELECT nextval(pg_get_serial_sequence('items', 'id')) AS id, CAST(:name AS text) AS name,
        CAST(:description AS text) AS description, CAST(:price AS numeric(12, 2)) AS price,
        CAST(:is_active AS boolean) AS is_active, clock.time AS created_at, clock.time AS updated_at
    FROM (SELECT clock_timestamp() AS time) AS clock
), kept AS (
    INSERT INTO idempotency_keys AS known (key, fingerprint, answer, created_at)
    SELECT :key, :fingerprint, to_jsonb(proposed), created_at FROM proposed {KEEP_FIRST_ANSWER}
    RETURNING fingerprint, answer
), created AS (
    INSERT INTO items (id, name, description, price, is_active, created_at, updated_at)
    SELECT proposed.* FROM proposed JOIN kept ON proposed.id = CAST(kept.answer ->> 'id' AS bigint)
    RETURNING id
)
SELECT stored.id, stored.name, stored.description, CAST(stored.price AS float), stored.is_active, stored.created_at,
    stored.updated_at, kept.fingerprint, created.id IS NULL AS is_replay
FROM kept CROSS JOIN jsonb_populate_record(NULL::items, kept.answer) AS stored LEFT JOIN created ON true
"""  # nosec  # noqa: S608  # of constants
    ).bindparams(bindparam("price", type_=Numeric(12, 2))),
)


async def create_once(
    database: StatementRunner, values: Mapping[str, Any], *, key: str, fingerprint: bytes, owner: str | None = None
) -> tuple[Item, bool]:
    """Store a new item, or return the one that this key has stored before.

    Args:
        values: All columns that a client may set, by name.
        key: The client's Idempotency-Key.
        fingerprint: A hash of the request's content.
        owner: To whom the key belongs: a short text without a space. Another owner's same key is another key.

    Returns:
        The item as it was when it was created, and whether an earlier call created it.

    Raises:
        IdempotencyKeyReusedError: The key was first sent with another fingerprint.
    """
    parameters = {**values, "key": stored_key(KEY_PREFIX, key, owner), "fingerprint": fingerprint}
    rows = await database.run(_create_once, parameters, constraint_errors=CONSTRAINT_ERRORS)
    *item, first_fingerprint, is_replay = rows[0]
    if first_fingerprint != fingerprint:
        raise IdempotencyKeyReusedError
    return Item(*item), is_replay
