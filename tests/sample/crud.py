"""Create, get, list, change and delete samples: one SQL statement each."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from datetime import datetime
from functools import cache, partial
from http import HTTPStatus
from typing import Any

from sqlalchemy import ARRAY, BigInteger, DateTime, Float, TextClause, bindparam, insert, select, text

from app.crud.idempotency_keys import stored_key
from app.database import StatementRunner
from app.errors import IdempotencyKeyReusedError, InvalidFieldError, PreconditionFailedError, RequestError
from tests.sample.dataclasses import Sample, SamplePage
from tests.sample.table import samples

COLUMNS = ", ".join(field.name for field in fields(Sample))

CONSTRAINT_ERRORS: Mapping[str, Callable[[], RequestError]] = {
    "ck_samples_name_length": partial(InvalidFieldError, "name", "must have 1 to 255 characters"),
    "ck_samples_amount_range": partial(InvalidFieldError, "amount", "must be at least 0"),
}


class SampleNotFoundError(RequestError):
    """No sample has the given id."""

    code = "sample_not_found"
    status = HTTPStatus.NOT_FOUND

    def __init__(self, sample_id: int) -> None:
        super().__init__(f"No sample has the id {sample_id}.")


_columns = [samples.c[field.name] for field in fields(Sample)]
_create = (
    insert(samples).values({name: bindparam(name) for name in ("name", "description", "amount")}).returning(*_columns)
)
_get = select(*_columns).where(samples.c.id == bindparam("sample_id"))
_page_after = (
    select(*_columns)
    .where(samples.c.id > bindparam("after"))
    .order_by(samples.c.id)
    .limit(bindparam("limit", type_=BigInteger))
)
_page = (
    text(f"""
SELECT counted.total, found.* FROM (SELECT count(*) AS total FROM samples) AS counted
LEFT JOIN (SELECT {COLUMNS} FROM samples ORDER BY id LIMIT :limit OFFSET :offset) AS found ON true ORDER BY found.id
""")
    .bindparams(bindparam("limit", type_=BigInteger), bindparam("offset", type_=BigInteger))
    .columns()
)  # a SELECT


def _listed(source: str) -> str:
    """The columns of this part of a statement. A `*` would include those that a later migration adds."""
    return ", ".join(f"{source}.{field.name}" for field in fields(Sample))


_create_once = text(f"""
WITH proposed AS (
    SELECT nextval(pg_get_serial_sequence('samples', 'id')) AS id, CAST(:name AS text) AS name,
        CAST(:description AS text) AS description, :amount AS amount, now() AS created_at, now() AS updated_at
), kept AS (
    INSERT INTO idempotency_keys AS known (key, fingerprint, answer, created_at)
    SELECT :key, :fingerprint, to_jsonb(proposed), created_at FROM proposed
    ON CONFLICT (key) DO UPDATE SET key = known.key RETURNING fingerprint, answer
), created AS (
    INSERT INTO samples (id, name, description, amount, created_at, updated_at)
    SELECT proposed.* FROM proposed JOIN kept ON proposed.id = CAST(kept.answer ->> 'id' AS bigint) RETURNING id
)
SELECT {_listed("stored")}, kept.fingerprint, created.id IS NULL AS is_replay
FROM kept CROSS JOIN jsonb_populate_record(NULL::samples, kept.answer) AS stored LEFT JOIN created ON true
""").bindparams(bindparam("amount", type_=Float(53)))


async def create(database: StatementRunner, values: Mapping[str, Any]) -> Sample:
    """Store a new sample and return it."""
    parameters = {"description": None, "amount": None, **values}
    rows = await database.run(_create, parameters, constraint_errors=CONSTRAINT_ERRORS)
    return Sample(*rows[0])


async def create_once(
    database: StatementRunner, values: Mapping[str, Any], *, key: str, fingerprint: bytes, owner: str | None = None
) -> tuple[Sample, bool]:
    """Store a new sample, or return the one that this key has stored before; the second value tells which.

    Raises:
        IdempotencyKeyReusedError: The key was first sent with another fingerprint.
    """
    parameters = {
        "description": None,
        "amount": None,
        **values,
        "key": stored_key("samples ", key, owner),
        "fingerprint": fingerprint,
    }
    rows = await database.run(_create_once, parameters, constraint_errors=CONSTRAINT_ERRORS)
    *stored, first_fingerprint, is_replay = rows[0]
    if first_fingerprint != fingerprint:
        raise IdempotencyKeyReusedError
    return Sample(*stored), is_replay


async def get(database: StatementRunner, sample_id: int) -> Sample:
    """The sample with this id.

    Raises:
        SampleNotFoundError: There is no such sample.
    """
    rows = await database.run(_get, {"sample_id": sample_id})
    if not rows:
        raise SampleNotFoundError(sample_id)
    return Sample(*rows[0])


async def page(database: StatementRunner, *, limit: int, offset: int) -> SamplePage:
    """One page in the order of the ids, and how many samples there are."""
    rows = await database.run(_page, {"limit": limit + 1, "offset": offset})
    found = [Sample(*row[1:]) for row in rows[:limit] if row["id"] is not None]
    return SamplePage(samples=found, has_more=len(rows) > limit, total=rows[0]["total"], total_is_exact=True)


async def page_after(database: StatementRunner, after: int, *, limit: int) -> SamplePage:
    """The samples whose ids are greater than `after`."""
    rows = await database.run(_page_after, {"after": after, "limit": limit + 1})
    found = [Sample(*row) for row in rows[:limit]]
    return SamplePage(samples=found, has_more=len(rows) > limit, total=None, total_is_exact=None)


async def change(
    database: StatementRunner,
    sample_id: int,
    changes: Mapping[str, Any],
    *,
    versions: Collection[datetime] | None = None,
) -> Sample:
    """Overwrite the named columns and return the sample as it now is.

    Raises:
        SampleNotFoundError: There is no such sample.
        PreconditionFailedError: `versions` is given, and the sample has another version.
    """
    return await _write(database, _change(tuple(sorted(changes))), sample_id, versions, changes)


async def delete(database: StatementRunner, sample_id: int, *, versions: Collection[datetime] | None = None) -> Sample:
    """Delete the row and return the sample as it was.

    Raises:
        SampleNotFoundError, PreconditionFailedError: As `change` does.
    """
    return await _write(database, _delete, sample_id, versions, {})


async def _write(
    database: StatementRunner,
    statement: TextClause,
    sample_id: int,
    versions: Collection[datetime] | None,
    changes: Mapping[str, Any],
) -> Sample:
    parameters = {**changes, "sample_id": sample_id, "versions": versions}
    rows = await database.run(statement, parameters, constraint_errors=CONSTRAINT_ERRORS)
    if not rows:
        raise SampleNotFoundError(sample_id)
    if rows[0]["id"] is None:
        raise PreconditionFailedError("sample", sample_id)
    return Sample(*rows[0])


def _guarded(write: str) -> TextClause:
    """The write, for a sample of one of the expected versions only. A row of nulls means another version."""
    return text(f"""
WITH target AS (SELECT id, updated_at FROM samples WHERE id = :sample_id FOR UPDATE),
written AS ({write} target WHERE samples.id = target.id
    AND (:versions IS NULL OR target.updated_at = ANY(:versions)) RETURNING samples.*)
SELECT {_listed("written")} FROM target LEFT JOIN written ON true
""").bindparams(bindparam("sample_id", type_=BigInteger), bindparam("versions", type_=ARRAY(DateTime(True))))


_delete = _guarded("DELETE FROM samples USING")


@cache
def _change(names: tuple[str, ...]) -> TextClause:
    values = "".join(f"{name} = :{name}, " for name in names)
    version = "greatest(clock_timestamp(), samples.updated_at + interval '1 microsecond')"
    statement = _guarded(f"UPDATE samples SET {values}updated_at = {version} FROM")
    return statement.bindparams(*[bindparam("amount", type_=Float(53))] if "amount" in names else [])
