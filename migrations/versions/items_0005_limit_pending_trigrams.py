"""Limit the pending list of the trigram index.

Every search reads the whole list. 256 kB are at most 32 pages, and the write that flushes
the list takes less time. The server's default is 4 MB.

Revision: items_0005
Revises: items_0004
"""

from alembic import op

revision = "items_0005"
down_revision = "items_0004"
runs_beside_previous_release = True


def upgrade() -> None:
    """Limit the list, if the index exists."""
    op.execute("ALTER INDEX IF EXISTS ix_items_name_trgm SET (gin_pending_list_limit = 256)")


def downgrade() -> None:
    """Return to the server's default."""
    op.execute("ALTER INDEX IF EXISTS ix_items_name_trgm RESET (gin_pending_list_limit)")
