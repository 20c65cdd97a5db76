"""Index the items by `is_active` and id.

A page of the few inactive items is read without the many active ones, and the reverse.

Revision: items_0002
Revises: items_0001
"""

from migrations.indexes import create_index_concurrently, drop_index_concurrently

revision = "items_0002"
down_revision = "items_0001"
runs_beside_previous_release = True


def upgrade() -> None:
    """Create the index."""
    create_index_concurrently("ix_items_is_active_id", "items", ["is_active", "id"])


def downgrade() -> None:
    """Drop the index."""
    drop_index_concurrently("ix_items_is_active_id", "items")
