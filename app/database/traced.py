"""A database whose statements are shown in the traces of requests."""

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext
from contextvars import ContextVar
from time import time_ns
from typing import Any

import asyncpg
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, get_current_span
from sqlalchemy.sql.elements import ClauseElement

from app.database import Database, Transaction
from app.database.executor import StatementObserver
from app.database.failures import NONE_KNOWN, ConstraintErrors
from app.errors import RequestError


class TracedDatabase(Database):
    """A `Database` that makes a span for each statement and each transaction of a request that is traced.

    A span has the statement's name, and no values. It has an event when its statement gets a connection.
    """

    def __init__(
        self, *args: Any, tracer: Tracer, may_be_traced: Callable[[], bool], observer: StatementObserver, **limits: Any
    ) -> None:
        """Open nothing.

        Args:
            args: Those of `Database`.
            tracer: Makes the spans.
            may_be_traced: Whether there may be a span of a request now. Asked first, because it takes less time.
            observer: As for `Database`.
            limits: As for `Database`.
        """
        super().__init__(*args, observer=_StatementEvents(observer), **limits)
        self._tracer = tracer
        self._may_be_traced = may_be_traced

    def run(
        self,
        statement: ClauseElement,
        parameters: Mapping[str, Any],
        *,
        constraint_errors: ConstraintErrors = NONE_KNOWN,
    ) -> Coroutine[Any, Any, Sequence[asyncpg.Record]]:
        """Run one statement, as `Database.run` does."""
        running = Database.run(self, statement, parameters, constraint_errors=constraint_errors)
        return (
            self._in_span(statement, running)
            if self._may_be_traced() and get_current_span().is_recording()
            else running
        )

    async def _in_span(
        self, statement: ClauseElement, running: Awaitable[Sequence[asyncpg.Record]]
    ) -> Sequence[asyncpg.Record]:
        with self._span(self._compiler.compile(statement).name):
            return await running

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Several statements in one transaction, as in `Database.transaction`. The span has an event for each."""
        is_traced = self._may_be_traced() and get_current_span().is_recording()
        with self._span("transaction", lists=True) if is_traced else nullcontext():
            async with super().transaction() as transaction:
                yield transaction

    @contextmanager
    def _span(self, name: str, *, lists: bool = False) -> Iterator[None]:
        """A span around what runs in the block. If it `lists` its statements, it has an event for each."""
        with self._tracer.start_as_current_span(
            name,
            kind=SpanKind.CLIENT,
            attributes={"db.system.name": "postgresql", "db.query.summary": name},
            record_exception=False,  # its message can contain values
            set_status_on_exception=False,
        ) as span:
            token = _running.set(_Running(span, lists=lists))
            try:
                yield
            except BaseException as error:
                kind = error.code if isinstance(error, RequestError) else type(error).__qualname__
                span.set_attribute("error.type", kind)
                span.set_status(StatusCode.ERROR)
                raise
            finally:
                _running.reset(token)


class _Running:
    """The span of what runs now."""

    def __init__(self, span: Span, *, lists: bool) -> None:
        self._span = span
        self._lists = lists
        self._started = time_ns()
        self._has_connection = False

    def statement_ran(self, name: str, seconds: float) -> None:
        """A statement has ended that ran for so long. The first one of the span shows when it got its connection."""
        began = time_ns() - int(seconds * 1e9)
        if not self._has_connection:
            self._has_connection = True
            waited = max(0, began - self._started) / 1e9
            self._span.add_event("connection_acquired", {"wait_seconds": waited}, began)
        if self._lists:
            self._span.add_event("statement_ran", {"db.query.summary": name, "seconds": seconds})


_running: ContextVar[_Running | None] = ContextVar("running_span", default=None)


class _StatementEvents:
    """Passes the observations of statements on, and adds them to the span of what runs now."""

    def __init__(self, observer: StatementObserver) -> None:
        self._observer = observer

    def statement_ran(self, name: str, seconds: float) -> None:
        """A statement with this name ran for so long."""
        self._observer.statement_ran(name, seconds)
        if running := _running.get():
            running.statement_ran(name, seconds)
