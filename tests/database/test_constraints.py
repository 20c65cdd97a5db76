"""How violated constraints are answered, with tables of the tests' own."""

import asyncio
from functools import partial
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    bindparam,
    delete,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.sql.elements import ClauseElement

from app.errors import (
    ConstraintViolatedError,
    InvalidFieldError,
    ReferenceInUseError,
    ReferenceMissingError,
    UniqueViolatedError,
    UnstorableTextError,
    root_cause,
)
from tests.cluster import execute
from tests.databases import assert_all_connections_work, connected

metadata = MetaData()
authors = Table(
    "authors", metadata, Column("id", Integer, primary_key=True), Column("email", String), Column("age", Integer)
)
books = Table("books", metadata, Column("id", Integer, primary_key=True), Column("author_id", ForeignKey("authors.id")))
employees = Table(
    "employees", metadata, Column("id", Integer, primary_key=True), Column("boss_id", ForeignKey("employees.id"))
)

SCHEMA = """
CREATE TABLE authors (
    id int PRIMARY KEY,
    email text NOT NULL CONSTRAINT uq_authors_email UNIQUE,
    age int CONSTRAINT ck_authors_age CHECK (age > 0)
);
CREATE TABLE books (
    id int PRIMARY KEY,
    author_id int CONSTRAINT fk_books_author REFERENCES authors DEFERRABLE,
    CONSTRAINT ex_books_author EXCLUDE USING btree (author_id WITH =)
);
CREATE TABLE employees (id int PRIMARY KEY, boss_id int CONSTRAINT fk_employees_boss REFERENCES employees);
INSERT INTO authors VALUES (1, 'hunter2@example.com'), (2, 'two@example.com');
INSERT INTO books VALUES (1, 1);
INSERT INTO employees VALUES (1, NULL), (2, 1);
GRANT ALL ON authors, books, employees TO items_app;
"""

VALUES = {"email": "three@example.com", "age": 1}
new_author = insert(authors).values(id=3, email=bindparam("email"), age=bindparam("age"))
new_book = insert(books).values(id=2, author_id=bindparam("author_id"))
deleted_author = delete(authors).where(authors.c.id == 1).returning(authors.c.id).cte("deleted")

VIOLATIONS = {
    "unique": (new_author, VALUES | {"email": "hunter2@example.com"}, 409, "unique_violated", "uq_authors_email"),
    "not null": (new_author, VALUES | {"email": None}, 422, "not_null_violated", None),
    "check": (new_author, VALUES | {"age": -1}, 422, "check_violated", "ck_authors_age"),
    "exclusion": (new_book, {"author_id": 1}, 409, "exclusion_violated", "ex_books_author"),
}

MISSING = {
    "insert": (new_book, {"author_id": 9}),
    "insert by a text": (text('insert  into public."books" VALUES (2, 9)'), {}),
    "update": (update(books).values(author_id=9), {}),
    "insert into a table that refers to itself": (insert(employees).values(id=3, boss_id=9), {}),
    "update of a table that refers to itself": (update(employees).where(employees.c.id == 2).values(boss_id=9), {}),
}

IN_USE: dict[str, tuple[ClauseElement, dict[str, Any]]] = {
    "delete": (delete(authors).where(authors.c.id == 1), {}),
    "delete by a text": (text("DELETE FROM authors WHERE id = 1"), {}),
    "delete in a CTE": (select(deleted_author.c.id), {}),
    "update of a key": (update(authors).where(authors.c.id == 1).values(id=4), {}),
    "delete from a table that refers to itself": (delete(employees).where(employees.c.id == 1), {}),
}


@pytest.fixture
async def with_tables(database, sql):
    """A database with authors, books and employees."""
    await sql.execute(SCHEMA)
    return database


async def violated(database, statement, values):
    """The error that a statement raises; afterwards all connections work."""
    with pytest.raises(ConstraintViolatedError) as raised:
        await database.run(statement, values)
    await assert_all_connections_work(database)
    return raised.value


@pytest.mark.parametrize("case", VIOLATIONS)
async def test_a_violated_constraint_has_its_code(with_tables, case):
    """It is 409 where another row is in the way and 422 where the value is wrong; no value of a row is shown."""
    statement, values, status, code, constraint = VIOLATIONS[case]

    error = await violated(with_tables, statement, values)

    assert (status, code, constraint) == (error.status, error.code, error.constraint)
    assert "example.com" not in f"{error} {root_cause(error)} {error.__cause__}"
    assert constraint is None or constraint in str(root_cause(error))


@pytest.mark.parametrize("case", MISSING)
async def test_a_reference_to_a_missing_row_is_unprocessable(with_tables, case):
    """The row that is written refers to nothing: 422."""
    error = await violated(with_tables, *MISSING[case])

    assert isinstance(error, ReferenceMissingError)
    assert 422 == error.status


@pytest.mark.parametrize("case", IN_USE)
async def test_a_row_that_is_referred_to_is_in_conflict(with_tables, case):
    """Other rows refer to the row that would go: 409."""
    error = await violated(with_tables, *IN_USE[case])

    assert isinstance(error, ReferenceInUseError)
    assert 409 == error.status


@pytest.mark.parametrize(
    ("statement", "values", "error"),
    [
        (new_book, {"author_id": 9}, ReferenceMissingError),
        (delete(authors).where(authors.c.id == 1), {}, ReferenceInUseError),
    ],
)
async def test_a_deferred_constraint_is_named_at_the_commit(with_tables, sql, statement, values, error):
    """The transaction is rolled back, and the error has the same code as at once."""
    with pytest.raises(error):  # noqa: PT012  # a block fails at its end
        async with with_tables.transaction() as transaction:
            await transaction.run(text("SET CONSTRAINTS ALL DEFERRED"), {})
            await transaction.run(statement, values)

    assert [1, 2] == [row["id"] for row in await sql.fetch("SELECT id FROM authors ORDER BY id")]
    assert [1] == [row["id"] for row in await sql.fetch("SELECT id FROM books")]
    await assert_all_connections_work(with_tables)


async def test_a_caller_names_the_constraints_that_it_knows(with_tables):
    """Its own error is raised for them, by name, also in a transaction; for others the general one."""
    known = {"ck_authors_age": partial(InvalidFieldError, "age", "must be positive")}

    with pytest.raises(InvalidFieldError):
        await with_tables.run(new_author, VALUES | {"age": -1}, constraint_errors=known)
    with pytest.raises(InvalidFieldError):
        async with with_tables.transaction() as transaction:
            await transaction.run(new_author, VALUES | {"age": -1}, constraint_errors=known)
    with pytest.raises(ConstraintViolatedError):
        await with_tables.run(new_author, VALUES | {"email": None}, constraint_errors=known)


DEFERRED = """
ALTER TABLE authors ADD CONSTRAINT uq_authors_age UNIQUE (age) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE books DROP CONSTRAINT fk_books_author;
ALTER TABLE books ADD CONSTRAINT fk_books_author FOREIGN KEY (author_id) REFERENCES authors
    DEFERRABLE INITIALLY DEFERRED;
UPDATE authors SET age = 1 WHERE id = 1;
"""


@pytest.mark.parametrize(
    ("statement", "values", "constraint", "general"),
    [
        (new_author, VALUES, "uq_authors_age", UniqueViolatedError),
        (new_book, {"author_id": 9}, "fk_books_author", ReferenceMissingError),
        (delete(authors).where(authors.c.id == 1), {}, "fk_books_author", ReferenceInUseError),
    ],
)
async def test_a_caller_names_the_deferred_constraints_that_it_knows(  # noqa: PLR0917  # by name
    with_tables, sql, statement, values, constraint, general
):
    """Its own error is raised at the commit, too, whatever runs before and after the statement."""
    await sql.execute(DEFERRED)
    known = {constraint: partial(InvalidFieldError, "age", "is in use")}
    with pytest.raises(InvalidFieldError):
        await with_tables.run(statement, values, constraint_errors=known)
    with pytest.raises(InvalidFieldError):  # noqa: PT012  # a block fails at its end
        async with with_tables.transaction() as transaction:
            await transaction.run(select(authors.c.id), {})
            await transaction.run(statement, values, constraint_errors=known)
            await transaction.run(text("SELECT 1"), {}, constraint_errors={"other": known[constraint]})
    with pytest.raises(general):
        async with with_tables.transaction() as transaction:
            await transaction.run(statement, values)
    await assert_all_connections_work(with_tables)


LIMITS = """
CREATE TABLE limited (code varchar(3), amount numeric(3, 1), small smallint, long text);
CREATE INDEX ON limited (long);
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION '% has paid with hunter2', OLD USING HINT = 'Ask hunter2.'; END $$;
CREATE TRIGGER refuse BEFORE DELETE ON authors FOR EACH ROW EXECUTE FUNCTION refuse();
CREATE CONSTRAINT TRIGGER refuse_later AFTER UPDATE ON authors DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION refuse();
GRANT ALL ON limited TO items_app;
"""


@pytest.mark.parametrize(
    ("column", "value"), [("code", "'hunter2'"), ("amount", "123.4"), ("small", "123456"), ("long", "random_text()")]
)
async def test_a_value_that_the_column_does_not_take_is_unprocessable(with_tables, sql, column, value):
    """A text that is too long, a number out of range, and a value too large for its index are 422."""
    await sql.execute(LIMITS)
    value = value.replace(
        "random_text()", "(SELECT string_agg(md5(n::text || 'hunter2'), '') FROM generate_series(1, 400) AS n)"
    )

    error = await violated(with_tables, text(f"INSERT INTO limited ({column}) SELECT {value}"), {})

    assert (422, "check_violated", None) == (error.status, error.code, error.constraint)
    assert "hunter2" not in f"{error} {root_cause(error)} {error.__cause__}"


async def test_an_exception_of_a_trigger_is_a_conflict(with_tables, sql):
    """409, at once or at the commit. Its message, which can have values of the row, is neither answered nor logged."""
    await sql.execute(LIMITS)
    errors = [await violated(with_tables, delete(authors).where(authors.c.id == 2), {})]
    errors.append(await violated(with_tables, update(authors).values(age=5), {}))
    with pytest.raises(ConstraintViolatedError) as raised:
        async with with_tables.transaction() as transaction:
            await transaction.run(update(authors).values(age=5), {})
    errors.append(raised.value)

    for error in errors:
        assert (409, "constraint_violated") == (error.status, error.code)
        shown = f"{error} {root_cause(error)} {error.__cause__}"
        assert "raised in PL/pgSQL function refuse() line 2 at RAISE" in shown
        assert not [value for value in ("hunter2", "example.com", "paid") if value in shown]


async def test_a_text_that_the_encoding_lacks_is_unprocessable(cluster):
    """In a database that is not UTF-8 some characters cannot be stored: 422, and never NUL in any."""
    await asyncio.to_thread(
        execute,
        cluster.url,
        "CREATE DATABASE latin TEMPLATE template0 ENCODING LATIN1 LOCALE_PROVIDER libc LC_COLLATE 'C' LC_CTYPE 'C'",
    )
    echo = select(bindparam("text", type_=String))
    async with connected(cluster.url.replace("/postgres?", "/latin?")) as database:
        assert "é" == (await database.run(echo, {"text": "é"}))[0][0]
        for unstorable in ("鍋", "a\0b"):
            with pytest.raises(UnstorableTextError):
                await database.run(echo, {"text": unstorable})
        await assert_all_connections_work(database)
    await asyncio.to_thread(execute, cluster.url, "DROP DATABASE latin")


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "k"}])
async def test_a_violation_is_answered_with_its_code(client, sql, headers):
    """A constraint that was added to the table is 409 over HTTP, and neither the answer nor the log shows a row."""
    await sql.execute("ALTER TABLE samples ADD CONSTRAINT uq_samples_name UNIQUE (name)")
    assert 201 == (await client.post("/samples", json={"name": "hunter2"})).status_code

    answer = await client.post("/samples", json={"name": "hunter2"}, headers=headers)

    assert (409, "unique_violated") == (answer.status_code, answer.json()["code"])
    assert "hunter2" not in answer.text
    assert "application/problem+json" == answer.headers["content-type"]


async def test_a_missing_privilege_is_answered_with_its_code(client, sql):
    """Reads go on, and a write that the role may not do is 503, not an internal error."""
    await sql.execute("REVOKE INSERT ON samples FROM items_app")

    answer = await client.post("/samples", json={"name": "Kettle"})

    assert (503, "database_permission_denied") == (answer.status_code, answer.json()["code"])
    assert 200 == (await client.get("/samples")).status_code
