"""Add the functions that read the items in the order of their changes, without missing a late commit.

`writes_complete_until` returns a time. All writes of a table whose time is earlier are committed, or will never
be. `changed_items` reads the items up to that time. docs/decisions/0046 has the proof.

The times of a new item are the start of its statement by default. Until now they were the start of the transaction,
which can be long before the lock by which a write is recognized. Both defaults change, so that the times stay equal.

Revision: items_0011
Revises: items_0010
"""

from alembic import op

revision = "items_0011"
down_revision = "items_0010"
runs_beside_previous_release = True

# The time is read before the locks, and the locks are read before the snapshot of the rows is taken.
# The owner sees the transactions of other roles only as a member of pg_read_all_stats. A writer whose
# transaction is hidden, or is prepared, has no known start: nothing is complete then.
_COMPLETE_UNTIL = """
CREATE FUNCTION writes_complete_until(written regclass) RETURNS timestamptz
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    complete_until timestamptz := clock_timestamp();
    writers integer[];
BEGIN
    IF pg_is_in_recovery() THEN
        RAISE read_only_sql_transaction USING MESSAGE = 'a standby does not know the transactions of its primary';
    END IF;
    SELECT array_agg(pid) INTO writers FROM pg_locks
    WHERE locktype = 'relation' AND relation = written AND mode = 'RowExclusiveLock'
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND pid IS DISTINCT FROM pg_backend_pid();
    IF writers IS NULL THEN
        RETURN complete_until;
    END IF;
    PERFORM pg_stat_clear_snapshot();
    SELECT least(complete_until, min(
        CASE WHEN writer IS NULL OR (pid IS NOT NULL AND coalesce(state, 'disabled') = 'disabled')
        THEN '-infinity' ELSE xact_start END
    )) INTO complete_until
    FROM unnest(writers) AS writer LEFT JOIN LATERAL pg_stat_get_activity(coalesce(writer, 0)) ON true;
    RETURN complete_until;
END
$$
"""

# The function is volatile, so that its second statement has a snapshot of its own, which is newer than the locks.
# Without a sort, the only plan is the index in its order, also if the plan is kept for all parameters.
_CHANGED_ITEMS = """
CREATE FUNCTION changed_items(after timestamptz, after_id bigint, row_limit integer) RETURNS SETOF items
LANGUAGE plpgsql VOLATILE ROWS 20 SET enable_sort = off AS $$
DECLARE
    complete_until timestamptz := writes_complete_until('items');
BEGIN
    RETURN QUERY SELECT * FROM items
    WHERE (updated_at, id) > (after, after_id) AND updated_at < complete_until
    ORDER BY updated_at, id LIMIT row_limit;
END
$$
"""

_SET_DEFAULTS = "ALTER TABLE items ALTER COLUMN created_at SET DEFAULT {0}, ALTER COLUMN updated_at SET DEFAULT {0}"


def upgrade() -> None:
    """Create the functions, and change the defaults."""
    op.execute(_COMPLETE_UNTIL)
    op.execute(_CHANGED_ITEMS)
    op.execute(_SET_DEFAULTS.format("statement_timestamp()"))


def downgrade() -> None:
    """Restore the defaults, and drop the functions."""
    op.execute(_SET_DEFAULTS.format("now()"))
    op.execute("DROP FUNCTION changed_items(timestamptz, bigint, integer)")
    op.execute("DROP FUNCTION writes_complete_until(regclass)")
