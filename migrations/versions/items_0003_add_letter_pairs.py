"""Add the functions that find names by one or two letters.

A trigram needs three letters. `letter_pairs` makes a lexeme of each letter of a name and
the next one; the last letter's lexeme ends with a space. So every name that contains the
two letters "ab" has the lexeme "ab", and every name that contains "a" has a lexeme that
begins with "a".

Revision: items_0003
Revises: items_0002
"""

from alembic import op

revision = "items_0003"
down_revision = "items_0002"
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

# The query is a prefix match. In a quoted lexeme of a tsquery only \ and ' have a special meaning.
_LETTER_PAIR_OF = r"""
CREATE FUNCTION letter_pair_of(text text) RETURNS tsquery
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT CAST('''' || replace(replace(left(lower(text), 2), '\', '\\'), '''', '''''') || ''':*' AS tsquery)
$$
"""


def upgrade() -> None:
    """Create the functions."""
    op.execute(_LETTER_PAIRS)
    op.execute(_LETTER_PAIR_OF.replace(":*", r"\:*"))


def downgrade() -> None:
    """Drop the functions."""
    op.execute("DROP FUNCTION letter_pair_of(text)")
    op.execute("DROP FUNCTION letter_pairs(text)")
