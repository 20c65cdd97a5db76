"""Bound the list in which new trigrams gather.

Every search reads it through. 256 kB, where the server's default is 4 MB, is at
most 32 pages, and makes the write that empties it wait less.

Revision: 0005
Revises: 0004
"""

from alembic import op

revision = "0005"
down_revision = "0004"
runs_beside_previous_release = True


def upgrade() -> None:
    """Bound it, where the server has trigrams."""
    op.execute("ALTER INDEX IF EXISTS ix_items_name_trgm SET (gin_pending_list_limit = 256)")


def downgrade() -> None:
    """Take the server's default again."""
    op.execute("ALTER INDEX IF EXISTS ix_items_name_trgm RESET (gin_pending_list_limit)")
