"""Statements compiled to SQL, once each."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

from sqlalchemy import Dialect, Executable, SelectBase
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.sql import visitors
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import ClauseElement

from app.database.lanes import SLOW_OPTION

COMPILED_STATEMENTS = 200
"""More than this code has. A statement that is built again for each call would fill the memory unnoticed."""

NAME_OPTION: Final = "statement_name"

_UNNAMED: Final = "other"

S = TypeVar("S", bound=Executable)

_dialect = cast(Dialect, cast(Any, PGDialect_asyncpg)())


def named(name: str, statement: S) -> S:
    """This statement, with the name by which the metrics show its duration: a verb and a noun, such as `get_item`.

    A statement without a name is shown as `other`.
    """
    return statement.execution_options(**{NAME_OPTION: name})


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledStatement:
    """A statement as the driver takes it."""

    sql: str
    name: str
    """The name in the metrics."""

    defaults: Mapping[str, Any]
    """The parameters in the order of their numbers, with the values that the statement itself gives them."""

    may_write: bool
    """Whether running it may change the database. False for a SELECT without INSERT, UPDATE or DELETE in it."""

    is_slow: bool
    """Whether it runs in the slow lane."""

    def values(self, parameters: Mapping[str, Any]) -> list[Any]:
        """The values of the parameters, in the order of their numbers."""
        return [parameters.get(name, default) for name, default in self.defaults.items()]


class StatementCompiler:
    """Compiles each statement once and keeps the result."""

    def __init__(self) -> None:
        self._compiled: dict[ClauseElement, CompiledStatement] = {}

    def compile(self, statement: ClauseElement) -> CompiledStatement:
        """This statement, compiled.

        Raises:
            RuntimeError: There are more than COMPILED_STATEMENTS.
        """
        compiled = self._compiled.get(statement)
        if compiled is None:
            if len(self._compiled) == COMPILED_STATEMENTS:
                raise RuntimeError("Too many statements: build each one once, not again for each call.")
            compiled = self._compiled[statement] = _compile(statement)
        return compiled


def _compile(statement: ClauseElement) -> CompiledStatement:
    compiled = cast(SQLCompiler, statement.compile(dialect=_dialect))
    names = compiled.positiontup or ()
    options = statement.get_execution_options() if isinstance(statement, Executable) else {}
    return CompiledStatement(
        sql=compiled.string,
        name=options.get(NAME_OPTION, _UNNAMED),
        defaults={name: compiled.params[name] for name in names},
        may_write=_may_write(statement),
        is_slow=SLOW_OPTION in options,
    )


def _may_write(statement: ClauseElement) -> bool:
    """By the statement's type. A text may write: its SQL is not parsed here."""
    return not isinstance(statement, SelectBase) or any(
        getattr(element, "is_dml", False) for element in visitors.iterate(statement)
    )
