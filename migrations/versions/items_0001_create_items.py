"""Create the tables of the items and of the idempotency keys.

Revision: items_0001
Revises: nothing
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "items_0001"
down_revision = None
runs_beside_previous_release = True

_TRIGRAM_INDEX = """
DO $$
DECLARE
    extension_schema text;
BEGIN
    IF EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_trgm') THEN
        BEGIN
            CREATE EXTENSION IF NOT EXISTS pg_trgm;
        EXCEPTION WHEN insufficient_privilege THEN
            RAISE WARNING 'The role % may not create the extension pg_trgm, so there is no index ix_items_name_trgm. '
                'Only the previous release needs it.', current_user;
        END;
    END IF;
    SELECT nspname INTO extension_schema
    FROM pg_extension JOIN pg_namespace ON extnamespace = pg_namespace.oid WHERE extname = 'pg_trgm';
    IF NOT has_schema_privilege(extension_schema, 'USAGE') THEN
        RAISE WARNING 'The role % may not use the schema % of the extension pg_trgm, so there is no index '
            'ix_items_name_trgm. Run GRANT USAGE ON SCHEMA % TO %, then create the index.',
            current_user, extension_schema, quote_ident(extension_schema), quote_ident(current_user);
    ELSIF extension_schema IS NOT NULL THEN
        -- The schema is searched last, until the end of the transaction.
        PERFORM set_config(
            'search_path', concat_ws(', ', nullif(current_setting('search_path'), ''), quote_ident(extension_schema)),
            true
        );
        CREATE INDEX ix_items_name_trgm ON items USING gin (name gin_trgm_ops);
    END IF;
END
$$
"""

_ESTIMATE = """
CREATE FUNCTION estimated_items(active boolean, pattern text) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    conditions text := 'true';
    plan json;
BEGIN
    IF active IS NOT NULL THEN
        conditions := conditions || format(' AND is_active = %L', active);
    END IF;
    IF pattern IS NOT NULL THEN
        conditions := conditions || format(' AND name ILIKE %L', pattern);
    END IF;
    EXECUTE 'EXPLAIN (FORMAT JSON) SELECT FROM items WHERE ' || conditions INTO plan;
    RETURN plan -> 0 -> 'Plan' ->> 'Plan Rows';
END
$$
"""


def upgrade() -> None:
    """Create the tables, their indexes, and the function that returns the planner's estimate."""
    op.create_table(
        "items",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("price", sa.Numeric(12, 2), nullable=True),
        sa.Column("is_active", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_items")),
        sa.CheckConstraint("char_length(name) BETWEEN 1 AND 255", name=op.f("ck_items_name_length")),
        sa.CheckConstraint("char_length(description) <= 10000", name=op.f("ck_items_description_length")),
        sa.CheckConstraint("price BETWEEN 0 AND 9999999999.99", name=op.f("ck_items_price_range")),
    )
    op.execute(_TRIGRAM_INDEX)
    op.execute(_ESTIMATE)
    op.create_table(
        "idempotency_keys",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("answer", JSONB(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_idempotency_keys")),
    )
    op.create_index(op.f("ix_idempotency_keys_created_at"), "idempotency_keys", ["created_at"])


def downgrade() -> None:
    """Drop the tables and the function. The extension stays, as other tables may use it."""
    op.drop_table("idempotency_keys")
    op.execute("DROP FUNCTION estimated_items(boolean, text)")
    op.drop_table("items")
