r"""Add the function that plans a search of bounded cost.

`planned_items_search` puts up to twelve lexemes into the query, and PostgreSQL reads the entries of all of
them. If one is rare and the others are in millions of names, that takes 0.2 s at ten million items.
`bounded_items_search` leaves out the most common lexemes.

The release before calls `planned_items_search`, and may still run; the next release drops it.

Revision: items_0009
Revises: items_0008
"""

from alembic import op

revision = "items_0009"
down_revision = "items_0008"
runs_beside_previous_release = True

# Of a long text, twelve lexemes are enough. In a quoted lexeme of a tsquery only \ and ' have a special meaning.
# Of the many lexemes that begin with one or two letters, most have no statistics of their own, so the statistics
# of the names are asked, too. `work_mem` is raised for the transaction: if the bitmap of the pages does not fit,
# PostgreSQL splits all names of these pages again.
_BOUNDED_SEARCH = r"""
CREATE FUNCTION bounded_items_search(
    active boolean, q text, pattern text, entry_limit bigint,
    OUT query tsquery, OUT entries bigint, OUT matches bigint, OUT all_rows bigint
)
LANGUAGE plpgsql AS $$
DECLARE
    searched text := caseless(q);
    triples integer := greatest(char_length(searched) - 2, 1);
    lexeme text;
    lexemes text[] := '{}';
    estimates bigint[] := '{}';
    plan json;
    part record;
    total bigint := 0;
BEGIN
    FOR place IN 1 .. triples BY (triples + 11) / 12 LOOP
        lexeme := substr(searched, place, 3);
        lexeme := '''' || replace(replace(lexeme, '\', '\\'), '''', '''''') || ''''
            || CASE WHEN char_length(lexeme) < 3 THEN '\:*' ELSE '' END;
        CONTINUE WHEN lexeme = ANY (lexemes);
        EXECUTE 'EXPLAIN (FORMAT JSON) SELECT FROM items WHERE letter_triples(name) @@ '
            || format('CAST(%L AS tsquery)', lexeme) INTO plan;
        lexemes := lexemes || lexeme;
        estimates := estimates || CAST(plan -> 0 -> 'Plan' ->> 'Plan Rows' AS bigint);
    END LOOP;
    FOR part IN
        SELECT planned.lexeme, planned.estimate FROM unnest(lexemes, estimates) AS planned(lexeme, estimate)
        ORDER BY planned.estimate
    LOOP
        total := total + part.estimate;
        EXIT WHEN total > entry_limit AND query IS NOT NULL;
        query := coalesce(query && CAST(part.lexeme AS tsquery), CAST(part.lexeme AS tsquery));
        entries := least(entries, part.estimate);
    END LOOP;
    IF char_length(searched) < 3 THEN
        entries := greatest(entries, estimated_items(NULL, pattern));
    END IF;
    IF pg_size_bytes(current_setting('work_mem')) < pg_size_bytes('32MB') THEN
        PERFORM set_config('work_mem', '32MB', true);
    END IF;
    all_rows := estimated_items(active, NULL);
    matches := least(estimated_items(active, pattern), entries);
END
$$
"""


def upgrade() -> None:
    """Create the function."""
    op.execute(_BOUNDED_SEARCH)


def downgrade() -> None:
    """Drop the function."""
    op.execute("DROP FUNCTION bounded_items_search(boolean, text, text, bigint)")
