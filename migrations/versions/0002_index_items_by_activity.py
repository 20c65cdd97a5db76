"""Index the items by activity, in the order of their ids.

The few inactive items among many active ones, or the other way about, are found
without reading the others.

Revision: 0002
Revises: 0001
"""

from migrations.indexes import create_index_concurrently, drop_index_concurrently

revision = "0002"
down_revision = "0001"
runs_beside_previous_release = True


def upgrade() -> None:
    """Make the index."""
    create_index_concurrently("ix_items_is_active_id", "items", ["is_active", "id"])


def downgrade() -> None:
    """Drop it."""
    drop_index_concurrently("ix_items_is_active_id", "items")
