"""Index the letter pairs of the items' names.

New entries of such an index gather in a list that every search reads as well. It is
kept short: 256 kB where the server's default is 4 MB.

Revision: 0004
Revises: 0003
"""

import sqlalchemy as sa

from migrations.indexes import create_index_concurrently, drop_index_concurrently

revision = "0004"
down_revision = "0003"
runs_beside_previous_release = True


def upgrade() -> None:
    """Make the index."""
    create_index_concurrently(
        "ix_items_letter_pairs",
        "items",
        [sa.text("letter_pairs(name)")],
        postgresql_using="gin",
        postgresql_with={"gin_pending_list_limit": 256},
    )


def downgrade() -> None:
    """Drop it."""
    drop_index_concurrently("ix_items_letter_pairs", "items")
