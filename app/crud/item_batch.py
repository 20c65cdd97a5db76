"""Create many items: one SQL statement for all of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg
from sqlalchemy import ARRAY, Boolean, Float, Text, bindparam, text

from app.crud.idempotency_keys import KEEP_FIRST_ANSWER, stored_key
from app.crud.item import CONSTRAINT_ERRORS
from app.crud.item_idempotency import KEY_PREFIX
from app.database import StatementRunner, named
from app.dataclasses.item import Item
from app.errors import IdempotencyKeyReusedError

_ARRAYS = (
    bindparam("names", type_=ARRAY(Text)),
    bindparam("descriptions", type_=ARRAY(Text)),
    # Up to 15 digits, PostgreSQL converts a float to the decimal number that it was written as.
    bindparam("prices", type_=ARRAY(Float(53))),
    bindparam("activity", type_=ARRAY(Boolean)),
)

_SENT = (
    "unnest(:names, :descriptions, :prices, :activity)"
    " WITH ORDINALITY AS sent(name, description, price, is_active, place)"
)
"""The items in the order in which they were sent. Ids are given in this order, and rows are returned by their ids."""

_CLOCK = "WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS time)"
"""One time for all items: see `item._create`."""

_create = named(
    "create_items",
    text(
        f"""
{_CLOCK}, created AS (
    INSERT INTO items (name, description, price, is_active, created_at, updated_at)
    SELECT name, description, CAST(price AS numeric(12, 2)), is_active, time, time FROM clock, {_SENT} ORDER BY place
    RETURNING id, name, description, CAST(price AS float) AS price, is_active, created_at, updated_at
)
SELECT id, name, description, price, is_active, created_at, updated_at FROM created ORDER BY id
"""  # nosec  # noqa: S608  # of constants
    ).bindparams(*_ARRAYS),
)

# As for one item: see `item_idempotency`. The answer is an object, so that the statement for one item, also that of
# the release before, can read it, and finds no item in it.
_create_once = named(
    "create_items_once",
    text(
        f"""
{_CLOCK}, proposed AS MATERIALIZED (
    SELECT nextval(pg_get_serial_sequence('items', 'id')) AS id, name, description,
        CAST(price AS numeric(12, 2)) AS price, is_active, time AS created_at, time AS updated_at
    FROM clock, (SELECT * FROM {_SENT} ORDER BY place) AS ordered
), kept AS (
    INSERT INTO idempotency_keys AS known (key, fingerprint, answer, created_at)
    SELECT :key, :fingerprint,
        jsonb_build_object('first_id', min(id), 'batch', jsonb_agg(to_jsonb(proposed) ORDER BY id)), min(created_at)
    FROM proposed {KEEP_FIRST_ANSWER}
    RETURNING fingerprint, answer
), created AS (
    INSERT INTO items (id, name, description, price, is_active, created_at, updated_at)
    SELECT proposed.id, name, description, price, is_active, created_at, updated_at
    FROM proposed JOIN kept ON CAST(kept.answer ->> 'first_id' AS bigint) = (SELECT min(id) FROM proposed)
    ORDER BY proposed.id
    RETURNING id
)
SELECT stored.id, stored.name, stored.description, CAST(stored.price AS float), stored.is_active, stored.created_at,
    stored.updated_at, kept.fingerprint, NOT EXISTS (SELECT FROM created) AS is_replay
FROM kept LEFT JOIN jsonb_populate_recordset(NULL::items, kept.answer -> 'batch') AS stored ON true
ORDER BY stored.id
"""  # nosec  # noqa: S608  # of constants
    ).bindparams(*_ARRAYS),
)


async def create_many(database: StatementRunner, rows: Sequence[Mapping[str, Any]]) -> list[Item]:
    """Store new items, all or none, and return them in the order of the rows. Their ids ascend.

    Args:
        rows: For each item all columns that a client may set, by name.
    """
    created = await database.run(_create, _arrays(rows), constraint_errors=CONSTRAINT_ERRORS)
    return [Item(*row) for row in created]


async def create_many_once(
    database: StatementRunner,
    rows: Sequence[Mapping[str, Any]],
    *,
    key: str,
    fingerprint: bytes,
    owner: str | None = None,
) -> tuple[list[Item], bool]:
    """Store new items, or return those that this key has stored before.

    Args:
        rows: As for `create_many`.
        key: The client's Idempotency-Key. It is also used if it has created one item before.
        fingerprint: A hash of the request's content.
        owner: To whom the key belongs: a short text without a space. Another owner's same key is another key.

    Returns:
        The items as they were when they were created, and whether an earlier call created them.

    Raises:
        IdempotencyKeyReusedError: The key was first sent with another fingerprint.
    """
    parameters = {**_arrays(rows), "key": stored_key(KEY_PREFIX, key, owner), "fingerprint": fingerprint}
    stored: Sequence[asyncpg.Record] = await database.run(_create_once, parameters, constraint_errors=CONSTRAINT_ERRORS)
    *_, first_fingerprint, is_replay = stored[0]
    if first_fingerprint != fingerprint:
        raise IdempotencyKeyReusedError
    return [Item(*row[:-2]) for row in stored], is_replay


def _arrays(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The columns of the rows, by the names of the statement's parameters."""
    return {
        "names": [row["name"] for row in rows],
        "descriptions": [row["description"] for row in rows],
        "prices": [row["price"] for row in rows],
        "activity": [row["is_active"] for row in rows],
    }
