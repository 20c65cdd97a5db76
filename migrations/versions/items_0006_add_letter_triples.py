"""Add the functions that find names by any part of them.

`letter_triples` makes a lexeme of each letter of a name and the next two. So every name that
contains "abcd" has the lexemes "ABC" and "BCD", and every name that contains "ab" has a lexeme
that begins with "AB". White space and punctuation are letters here.

`planned_items_search` returns the query for such lexemes, and the planner's estimates. The estimate of
the rarest lexeme limits what the index reads.

Revision: items_0006
Revises: items_0005
"""

from alembic import op

revision = "items_0006"
down_revision = "items_0005"
runs_beside_previous_release = True

# The first of these that the server has is used. Each has Unicode's rules of case, whatever the locale of the
# database is: `und-x-icu` needs ICU, the others PostgreSQL 18 and 17.
_COLLATIONS = ("und-x-icu", "pg_unicode_fast", "pg_c_utf8")

# Lower case comes first, because upper() alone keeps some letters apart, such as ß and ẞ, or k and the Kelvin sign.
# ASCII is five times as fast in a branch of its own. The result has the collation C, so that it is compared by bytes.
_CASELESS = """
    CASE
        WHEN octet_length(text) = char_length(text) THEN upper(text COLLATE "C") COLLATE "C"
        ELSE upper(lower(text COLLATE "{collation}") COLLATE "{collation}") COLLATE "C"
    END
"""

# The function of the index does not call the other one: PostgreSQL evaluates an index without a search_path
# when it restores a dump or analyzes a table.
_FUNCTIONS = f"""
CREATE FUNCTION caseless(text text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $function$
    SELECT {_CASELESS}
$function$;

CREATE FUNCTION letter_triples(text text) RETURNS tsvector
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE COST 1000 AS $function$
DECLARE
    letters text[] := string_to_array({_CASELESS}, NULL);
BEGIN
    FOR place IN 1 .. cardinality(letters) LOOP
        letters[place] := letters[place] || coalesce(letters[place + 1] || coalesce(letters[place + 2], ''), '');
    END LOOP;
    RETURN array_to_tsvector(letters);
END
$function$;
"""

# Of a long text, twelve lexemes are enough. In a quoted lexeme of a tsquery only \ and ' have a special meaning.
# Of the many lexemes that begin with one or two letters, most have no statistics of their own, so the statistics
# of the names are asked, too. `work_mem` is raised for the transaction: if the bitmap of the pages does not fit,
# PostgreSQL splits all names of these pages again.
_PLANNED_SEARCH = r"""
CREATE FUNCTION planned_items_search(
    active boolean, q text, pattern text,
    OUT query tsquery, OUT entries bigint, OUT matches bigint, OUT all_rows bigint
)
LANGUAGE plpgsql AS $$
DECLARE
    searched text := caseless(q);
    triples integer := greatest(char_length(searched) - 2, 1);
    lexeme text;
    plan json;
BEGIN
    FOR place IN 1 .. triples BY (triples + 11) / 12 LOOP
        lexeme := substr(searched, place, 3);
        lexeme := '''' || replace(replace(lexeme, '\', '\\'), '''', '''''') || ''''
            || CASE WHEN char_length(lexeme) < 3 THEN '\:*' ELSE '' END;
        query := coalesce(query && CAST(lexeme AS tsquery), CAST(lexeme AS tsquery));
        EXECUTE 'EXPLAIN (FORMAT JSON) SELECT FROM items WHERE letter_triples(name) @@ '
            || format('CAST(%L AS tsquery)', lexeme) INTO plan;
        entries := least(entries, CAST(plan -> 0 -> 'Plan' ->> 'Plan Rows' AS bigint));
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
    """Create the functions."""
    op.execute(_functions())
    op.execute(_PLANNED_SEARCH)


def downgrade() -> None:
    """Drop the functions."""
    op.execute("DROP FUNCTION planned_items_search(boolean, text, text)")
    op.execute("DROP FUNCTION letter_triples(text)")
    op.execute("DROP FUNCTION caseless(text)")


def _functions() -> str:
    branches = " ELSIF ".join(
        f"EXISTS (SELECT FROM pg_collation WHERE collname = '{name}') THEN {_FUNCTIONS.format(collation=name)}"  # nosec
        for name in _COLLATIONS
    )
    return f"DO $$ BEGIN IF {branches} ELSE {_FUNCTIONS.format(collation='default')} END IF; END $$"
