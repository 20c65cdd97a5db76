"""Index the letter triples of the items' names.

The searches of this release use this index only. The indexes of trigrams and of letter pairs
stay for the release before, which may still run; the next release drops them.

Revision: items_0007
Revises: items_0006
"""

import sqlalchemy as sa

from migrations.indexes import create_index_concurrently, drop_index_concurrently

revision = "items_0007"
down_revision = "items_0006"
runs_beside_previous_release = True


def upgrade() -> None:
    """Create the index."""
    create_index_concurrently(
        "ix_items_letter_triples",
        "items",
        [sa.text("letter_triples(name)")],
        postgresql_using="gin",
        postgresql_with={"gin_pending_list_limit": 256},
    )


def downgrade() -> None:
    """Drop the index."""
    drop_index_concurrently("ix_items_letter_triples", "items")
