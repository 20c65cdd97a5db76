"""Add the functions that find names by one or two letters.

Trigrams begin at three. Each letter of a name and the one after it make a lexeme, the
last one with a space: a name that contains a text has a lexeme that begins with the
text's first two letters, and one that contains a single letter has one that begins with it.

Revision: 0003
Revises: 0002
"""

from alembic import op

revision = "0003"
down_revision = "0002"
runs_beside_previous_release = True

_LETTER_PAIRS = """
CREATE FUNCTION letter_pairs(text text) RETURNS tsvector
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    letters text[] := string_to_array(lower(text), NULL);
BEGIN
    FOR place IN 1 .. cardinality(letters) LOOP
        letters[place] := letters[place] || coalesce(letters[place + 1], ' ');
    END LOOP;
    RETURN array_to_tsvector(letters);
END
$$
"""

# It asks for a lexeme's beginning. Between quotes, a tsquery takes all but these two for themselves.
_LETTER_PAIR_OF = r"""
CREATE FUNCTION letter_pair_of(text text) RETURNS tsquery
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT CAST('''' || replace(replace(left(lower(text), 2), '\', '\\'), '''', '''''') || ''':*' AS tsquery)
$$
"""


def upgrade() -> None:
    """Add them."""
    op.execute(_LETTER_PAIRS)
    op.execute(_LETTER_PAIR_OF.replace(":*", r"\:*"))


def downgrade() -> None:
    """Drop them."""
    op.execute("DROP FUNCTION letter_pair_of(text)")
    op.execute("DROP FUNCTION letter_pairs(text)")
