"""Fills a migrated database with names like English: words of all frequencies, and of English syllables."""

import random
from typing import Any

import asyncpg

VARIED_ROWS = 1_000_000
"""So many names are made. A larger table has copies of them, which takes a fifth of the time."""

_BATCH_ROWS = 100_000

_FREQUENT_WORDS = """
the of and a to in for is on with by at from it as an be this that are or not your all new more one was can have
has but our out up set use no so we if do my me he she they his her you two three four five old red blue black
white green grey brown small large big little long short light dark soft hard hot cold dry wet clean fresh sweet
fine good best great first last high low deep wide thin thick round square flat open closed full empty heavy strong
simple plain pure clear bright silver gold steel iron copper brass wood oak pine glass stone clay paper cotton wool
silk linen leather rubber plastic ceramic table chair desk lamp shelf box bag cup mug plate bowl dish pan pot
kettle knife fork spoon board bread cheese butter milk water tea coffee juice sugar salt pepper oil rice bean corn
apple pear plum cherry berry orange lemon garden house kitchen bath bed room door window wall floor roof candle
fire fan clock watch ring chain hook nail screw bolt tool hammer saw drill brush broom bucket rope wire cable plug
switch battery phone radio camera screen printer book pen pencil ink card stamp letter folder case cover frame
stand holder rack tray basket bottle jar lid cap hat coat shirt dress skirt shoe boot sock glove scarf belt towel
sheet blanket pillow curtain carpet rug mat toy doll ball game puzzle bike car truck boat train plane wheel tyre
seat lock key handle cutting mixing measuring rolling serving baking cooking outdoor indoor travel winter summer
spring autumn night day morning evening year week hour children women men baby dog cat horse bird fish classic
modern vintage natural organic premium professional portable folding adjustable waterproof wireless electric manual
automatic digital replacement original
"""

# Rarer words are made of these. A dash stands for nothing.
_ONSETS = "b c d f g h l m n p r s t v w br ch cl cr dr fl fr gr pl pr sc sh sl sp st str th tr wh qu j k"
_NUCLEI = "a e i o u ea ee ou ai io oo"
_CODAS = "- - - n r s t l d m ng nd nt st ck rs ll rd ss th x z"
_ENDINGS = "- - s er ing ed ly tion ness able al ive ment ity es ist y"

# The frequency of a word is inversely proportional to its rank, as in a natural text.
_INSERT = """
INSERT INTO items (name, is_active, created_at, updated_at)
SELECT
    initcap((
        SELECT string_agg(
            words[1 + floor(exp(u * ln(cardinality(words))))::int],
            CASE WHEN k % 7 = 0 THEN '  ' ELSE ' ' END ORDER BY k
        )
        FROM (
            SELECT k, (hashint8extended(n * 16 + k, 7) & 1048575) / 1048576.0 AS u
            FROM generate_series(
                1, 2 + (hashint8extended(n, 3) & 7)::int % 5 + CASE WHEN n % 40 = 0 THEN 9 ELSE 0 END
            ) AS k
        ) AS chosen
    ))
    || CASE WHEN n % 6 = 0 THEN ' ' || (hashint8(n) & 1023) ELSE '' END
    || CASE
        WHEN n % 31 = 0 THEN ' \u2013 größe' WHEN n % 37 = 0 THEN ' (50% off)' WHEN n % 41 = 0 THEN ', set of 2' ELSE ''
    END,
    n % 50000 <> 0,
    moment,
    moment
FROM
    generate_series($1::bigint, $2::bigint) AS n,
    LATERAL (SELECT timestamptz '2026-01-01' + n * interval '1 second' AS moment) AS made,
    (SELECT $3::text[] AS words) AS vocabulary
"""

_COPY = """
INSERT INTO items (name, is_active, created_at, updated_at)
SELECT name, is_active, created_at, updated_at FROM items WHERE id <= $1 ORDER BY id
"""

_OLD_INDEXES = "DROP INDEX IF EXISTS ix_items_name_trgm, ix_items_letter_pairs"

_SECONDARY = """
SELECT indexrelid::regclass::text AS name, pg_get_indexdef(indexrelid) AS definition
FROM pg_index WHERE indrelid = 'items'::regclass AND NOT indisprimary
"""


def vocabulary(words: int = 20_000) -> list[str]:
    """Words, the most frequent first."""
    chosen = random.Random(1)
    onsets, nuclei = _ONSETS.split(), _NUCLEI.split()
    codas, endings = ([part.strip("-") for part in parts.split()] for parts in (_CODAS, _ENDINGS))
    found = dict.fromkeys(_FREQUENT_WORDS.split())
    while len(found) < words:
        syllables = chosen.choice([1, 1, 2, 2, 2, 3])
        word = "".join(
            chosen.choice(onsets) + chosen.choice(nuclei) + chosen.choice(codas) for _ in range(syllables)
        ) + chosen.choice(endings)
        if 2 < len(word) < 16:
            found[word] = None
    return list(found)


async def load(connection: asyncpg.Connection, rows: int) -> None:
    """Fill the empty table. The indexes that only the previous release uses are dropped."""
    await connection.execute(
        "SET maintenance_work_mem = '1GB'; SET statement_timeout = 0; SET synchronous_commit = off"
    )
    await connection.execute(_OLD_INDEXES)
    indexes: list[Any] = await connection.fetch(_SECONDARY)
    for index in indexes:
        await connection.execute(f"DROP INDEX {index['name']}")
    words = vocabulary()
    varied = min(rows, VARIED_ROWS)
    for first in range(1, varied + 1, _BATCH_ROWS):
        await connection.execute(_INSERT, first, min(first + _BATCH_ROWS - 1, varied), words)
    for first in range(varied, rows, varied):
        await connection.execute(_COPY, min(varied, rows - first))
    for index in indexes:
        await connection.execute(index["definition"])
    await connection.execute("VACUUM (ANALYZE) items")
