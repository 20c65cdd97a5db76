"""Index the items in the order of their changes, for the feed.

Revision: items_0010
Revises: items_0009
"""

from migrations.indexes import create_index_concurrently, drop_index_concurrently

revision = "items_0010"
down_revision = "items_0009"
runs_beside_previous_release = True


def upgrade() -> None:
    """Create the index."""
    create_index_concurrently("ix_items_updated_at_id", "items", ["updated_at", "id"])


def downgrade() -> None:
    """Drop the index."""
    drop_index_concurrently("ix_items_updated_at_id", "items")
