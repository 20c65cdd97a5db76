"""The names under which idempotency keys are stored, which answer a key keeps, and how expired ones are deleted."""

from typing import Final

from sqlalchemy import text

from app.database import StatementRunner, named, slow

KEEP_FIRST_ANSWER: Final = """
    ON CONFLICT (key) DO UPDATE SET
        fingerprint = CASE WHEN excluded.created_at - known.created_at > interval '24 hours'
            THEN excluded.fingerprint ELSE known.fingerprint END,
        answer = CASE WHEN excluded.created_at - known.created_at > interval '24 hours'
            THEN excluded.answer ELSE known.answer END,
        created_at = CASE WHEN excluded.created_at - known.created_at > interval '24 hours'
            THEN excluded.created_at ELSE known.created_at END
"""
"""How `INSERT INTO idempotency_keys AS known` ends: the first answer to a key stays for 24 hours.

`ON CONFLICT DO UPDATE` waits for a first request that is still running and then, unlike `DO NOTHING`, returns what that
one has stored.
"""

# The lock ends with the statement, so it works behind PgBouncer, too. A key that a request uses again at this moment is
# skipped. An expired key counts as unused, deleted or not: see docs/decisions/0004-idempotency-in-one-statement.md.
_delete_expired = slow(
    named(
        "purge_idempotency_keys",
        text("""
WITH permit AS MATERIALIZED (
    SELECT pg_try_advisory_xact_lock(hashtextextended('purge of idempotency_keys', 0)) AS is_granted
), expired AS MATERIALIZED (
    SELECT key FROM idempotency_keys
    WHERE created_at < now() - interval '24 hours' AND (SELECT is_granted FROM permit)
    ORDER BY created_at LIMIT :limit FOR UPDATE SKIP LOCKED
), deleted AS (
    DELETE FROM idempotency_keys USING expired WHERE idempotency_keys.key = expired.key RETURNING expired.key
)
SELECT is_granted, (SELECT count(*) FROM deleted) AS keys FROM permit
"""),
    )
)


def stored_key(prefix: str, key: str, owner: str | None) -> str:
    """The name under which a client's key is stored.

    Args:
        prefix: That of the resource: empty, or ending with a space.
        key: What the client sent. It has no space.
        owner: To whom the key belongs: a text without a space. None if it belongs to nobody.
    """
    return f"{prefix}{key}" if owner is None else f"{prefix}{owner} {key}"


async def delete_expired(database: StatementRunner, *, limit: int) -> int | None:
    """Delete expired keys, those that expired first, and return how many.

    Args:
        limit: The most keys to delete.

    Returns:
        None if another worker is deleting at this moment.
    """
    ((is_granted, keys),) = await database.run(_delete_expired, {"limit": limit})
    return keys if is_granted else None
