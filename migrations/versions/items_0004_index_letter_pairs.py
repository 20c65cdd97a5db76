"""Index the letter pairs of the items' names.

New entries of a GIN index go into a pending list, which every search reads too. The list
is limited to 256 kB; the server's default is 4 MB.

Revision: items_0004
Revises: items_0003
"""

import sqlalchemy as sa

from migrations.indexes import create_index_concurrently, drop_index_concurrently

revision = "items_0004"
down_revision = "items_0003"
runs_beside_previous_release = True


def upgrade() -> None:
    """Create the index."""
    create_index_concurrently(
        "ix_items_letter_pairs",
        "items",
        [sa.text("letter_pairs(name)")],
        postgresql_using="gin",
        postgresql_with={"gin_pending_list_limit": 256},
    )


def downgrade() -> None:
    """Drop the index."""
    drop_index_concurrently("ix_items_letter_pairs", "items")
