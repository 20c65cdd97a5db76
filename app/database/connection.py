"""How each connection of a worker is opened, and with which limits."""

import asyncio
import secrets
import socket
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import count
from typing import Any, Final, cast

import asyncpg
import structlog
from asyncpg.protocol import NO_TIMEOUT
from asyncpg.protocol import Protocol as DriverProtocol

from app import NAME
from app.database.connecting import HostOrder, Prepare, connect
from app.database.failures import DRIVER_ERRORS, connect_failure, loggable
from app.database.logins import Login
from app.database.peer import PARAMETERS_REFUSED, PARAMETERS_REFUSED_BY_POOLER, check_peer
from app.database.statement_timer import StatementTimer
from app.database_url import WRITING, DatabaseHost, DatabaseUrl
from app.errors import DatabaseSetupError, StartupError

log = structlog.get_logger(__name__)

CONNECT_SECONDS = 1.5
"""How long a request waits for one server. A server that is alive answers within milliseconds."""

ANSWER_SECONDS = 0.5
"""How much longer than the statement's time the client waits before it closes the connection:
the server cancels the statement first, unless it is frozen or cut off."""

_random = secrets.SystemRandom()

_LOGIN_REFUSED: Final = (
    asyncpg.InvalidAuthorizationSpecificationError,  # its class: the password, the role, or the rules in pg_hba.conf
    asyncpg.InsufficientPrivilegeError,  # the role may not connect to the database
    asyncpg.ProtocolViolationError,  # PgBouncer has this one SQLSTATE for a wrong password and for almost all else
)
"""Errors of a login that another user or password may not have."""

_NO_ANSWER: Final = "no answer in time"

CHECK_INTERVAL_SECONDS: Final = 0.25
"""How often PostgreSQL looks whether the client still exists while it runs a statement. When a worker is killed, its
sessions end before others are opened in their place."""

_KEEPALIVE: Final = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
"""An idle connection is probed after 30 seconds, which also keeps it known to a NAT or balancer
between. It is closed when it has not answered for 30 seconds more."""


class Connection(asyncpg.Connection):
    """A connection that knows its age, and whose prepared statements have names that no other connection uses."""

    __slots__ = ("_statement_numbers", "expires_at", "host", "opened_at", "statement_prefix")

    _protocol: DriverProtocol | None
    _stmt_cache: Any
    _transport: Any
    host: DatabaseHost
    """The host of the URL that it is connected to."""
    opened_at: float
    """Before it was opened, by `perf_counter`."""
    expires_at: float
    """When it is too old, by `perf_counter`."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.statement_prefix = f"stmt_{secrets.token_hex(8)}_"
        """Of the names of this connection's prepared statements. asyncpg would count from 1 in every process, so
        behind a pooler a statement could run another process's statement of the same name."""
        self._statement_numbers = count(1)

    async def run(self, sql: str, values: Sequence[Any], timer: StatementTimer) -> list[asyncpg.Record]:
        """Run a statement within the timer's time, and fetch all its rows. It raises what `fetch` raises.

        A prepared statement skips the layers of `fetch`, which are five coroutines and a timer for each statement.
        One whose plan is stale is prepared again when the caller repeats it.
        """
        prepared = self._stmt_cache.get((sql, asyncpg.Record, False))
        if prepared is None or self._protocol is None:
            return await self.fetch(sql, *values, timeout=timer.seconds)
        with timer:
            try:
                return await self._protocol.bind_execute(prepared, values, "", 0, False, NO_TIMEOUT)
            except (asyncpg.OutdatedSchemaCacheError, asyncpg.InvalidCachedStatementError):
                await self.reload_schema_state()
                raise

    @property
    def executions(self) -> int:
        """How many statements were sent to be executed; preparing one does not count. -1 after `terminate`."""
        return -1 if self._protocol is None else self._protocol.queries_count

    def is_cancelling(self) -> bool:
        """Whether the server has been asked to cancel the last statement, and has not answered yet."""
        return self._protocol is not None and self._protocol._is_cancelling()  # noqa: SLF001

    def is_reusable(self) -> bool:
        """Whether another request may use it: it is neither closed nor inside a transaction."""
        protocol = self._protocol
        return protocol is not None and protocol.is_connected() and not protocol.is_in_transaction()

    async def cancelled(self, seconds: float) -> bool:
        """Wait until the server has ended the cancelled statement. If it takes longer, close the connection.

        Returns:
            Whether the server has answered in time.
        """
        if self._protocol is not None:
            try:
                await self._protocol._wait_for_cancellation(seconds)  # noqa: SLF001
            except TimeoutError:
                self.terminate()
                return False
        return True

    async def end(self, seconds: float) -> None:
        """Close the connection, and return when the server has ended the session, or after this time."""
        with suppress(OSError, asyncpg.InterfaceError, asyncpg.PostgresError, asyncpg.InternalClientError):
            await self.close(timeout=seconds)

    def keep_alive(self) -> None:
        """Have the operating system probe the connection while it is idle."""
        peer = self._transport.get_extra_info("socket")
        if peer.family == socket.AF_UNIX:
            return
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if option := getattr(socket, name, None):  # as each system has them
                peer.setsockopt(socket.IPPROTO_TCP, option, value)

    def _get_unique_id(self, _prefix: str) -> str:
        return f"{self.statement_prefix}{next(self._statement_numbers):x}"


class Connector:
    """Opens the connections of one pool; the arguments are those of `database.connect`."""

    def __init__(
        self,
        read_url: Callable[[], DatabaseUrl],
        *,
        wait_seconds: float,
        statement_seconds: float,
        connection_seconds: float,
        through_pgbouncer: bool,
        prepared_statements: bool,
    ) -> None:
        self._read_url = read_url
        self._url = read_url()
        self._order = HostOrder()
        self._order_of_checks = HostOrder()
        self._wait_seconds = wait_seconds
        self._connection_seconds = connection_seconds
        self._through_pgbouncer = through_pgbouncer
        self._prepared_statements = prepared_statements
        self._options = _options(
            statement_seconds, through_pgbouncer=through_pgbouncer, prepared_statements=prepared_statements
        )
        self._logged_problem = ""

    async def open(self, late: list[Login]) -> Connection:
        """Open a connection.

        Args:
            late: Receives the logins that go on: if no connection is opened in time, or if the caller is cancelled.

        Raises:
            DatabaseUnavailableError, DatabasePermissionDeniedError: The server cannot be reached, or refuses the login.
            DatabaseSetupError: The settings do not fit the database.
        """
        url = self._url
        try:
            connection = await self._connect_again_if_refused(late)
        except DatabaseSetupError as error:
            self._log_once(error.problem)
            raise
        except Exception as error:  # noqa: BLE001  # it is raised again, by its name
            raise connect_failure(error) from _without_url(error, url, self._url)
        finally:
            for login in late:
                login.task.add_done_callback(self._learn_from)
        self._logged_problem = ""
        return connection

    def close(self) -> None:
        """Give up the logins that go on."""
        for login in (*self._order.late, *self._order_of_checks.late):
            login.task.cancel()

    @property
    def can_fail_over(self) -> bool:
        """Whether the URL names another server that may take writes, and each can be asked whether it answers."""
        url = self._url
        return len(url.hosts) > 1 and url.session_attributes in WRITING and not url.tls.is_direct

    def number(self, host: DatabaseHost) -> int:
        """The number of this host in the URL, from 1; 0 if the URL has changed. Its name is a part of the URL."""
        return self._url.hosts.index(host) + 1 if host in self._url.hosts else 0

    async def another_takes_writes(self, host: DatabaseHost) -> bool:
        """Whether another host takes writes. New connections try this one last from then on."""
        others = tuple(other for other in self._url.hosts if other != host)
        if not others:
            return False
        url = replace(self._url, hosts=others)
        late: list[Login] = []
        try:
            connection, _ = await self._connect_any(url, self._order_of_checks, late)
        except (*DRIVER_ERRORS, UnicodeError):  # a name that cannot be encoded
            return False
        finally:
            for login in late:
                login.leave()
        self._order.failed(host)
        connection.terminate()
        return True

    async def _connect_again_if_refused(self, late: list[Login]) -> Connection:
        """Read the URL again when the server refuses the login: its password may have been changed."""
        url = self._url
        try:
            return await self._connect(url, late)
        except _LOGIN_REFUSED:
            self._read_url_again()
            if self._url == url:
                raise
        return await self._connect(self._url, late)

    def _read_url_again(self) -> None:
        try:
            self._url = self._read_url()
        except StartupError as error:
            raise DatabaseSetupError(str(error)) from None

    def _learn_from(self, ended: "asyncio.Task[asyncpg.Connection]") -> None:
        """Do for a login that has ended late what `open` does for one that ends in time."""
        error = None if ended.cancelled() else ended.exception()
        try:
            if isinstance(error, _LOGIN_REFUSED):
                self._read_url_again()
            elif isinstance(error, DatabaseSetupError):
                raise error
        except DatabaseSetupError as problem:
            self._log_once(problem.problem)

    async def _connect(self, url: DatabaseUrl, late: list[Login]) -> Connection:
        try:
            connection, _ = await self._connect_any(url, self._order, late, prepare=self._prepare)
        except asyncpg.ProtocolViolationError as error:
            if "startup parameter" not in str(error):
                raise
            problem = PARAMETERS_REFUSED_BY_POOLER if self._through_pgbouncer else PARAMETERS_REFUSED
            raise DatabaseSetupError(problem) from None
        return cast(Connection, connection)

    async def _connect_any(
        self, url: DatabaseUrl, order: HostOrder, late: list[Login], prepare: Prepare | None = None
    ) -> tuple[asyncpg.Connection, DatabaseHost]:
        # PgBouncer notices at once that its client has gone. A host whose TLS begins without a question is not probed.
        goes_on = not self._through_pgbouncer and not url.tls.is_direct
        return await connect(
            url,
            order,
            host_seconds=self._host_seconds(url),
            late=late if goes_on else None,
            prepare=prepare,
            connection_class=Connection,
            **self._options,
        )

    async def _prepare(self, opened: asyncpg.Connection, host: DatabaseHost, started: float) -> None:
        connection = cast(Connection, opened)
        try:
            connection.host = host
            connection.opened_at = started
            # Not all at the same time: connections that were opened together would be replaced together.
            connection.expires_at = started + self._connection_seconds * _random.uniform(0.9, 1.0)
            connection.keep_alive()
            await check_peer(
                connection,
                statement_prefix=connection.statement_prefix,
                through_pgbouncer=self._through_pgbouncer,
                prepared_statements=self._prepared_statements,
            )
        except BaseException:
            connection.terminate()
            raise

    def _host_seconds(self, url: DatabaseUrl) -> float:
        """Each host has its own time, and several hosts have together the time that a request may wait."""
        attempts = len(list(url.attempts()))
        return min(CONNECT_SECONDS, self._wait_seconds / attempts) if attempts > 1 else CONNECT_SECONDS

    def _log_once(self, problem: str) -> None:
        if problem != self._logged_problem:
            log.error("database_misconfigured", problem=problem)
        self._logged_problem = problem


def _without_url(error: Exception, *urls: DatabaseUrl) -> Exception:
    """The error of a connection attempt as it may be logged: without the parts of the URLs.

    A server repeats the names of the role and of the database, and one that only pretends to be PostgreSQL could send
    back the password. The driver's own errors may quote its arguments.
    """
    if isinstance(error, asyncpg.PostgresError):
        error.args = (_redact(str(error.args[0] if error.args else ""), urls),)
        error.hint = None
        return loggable(error)
    if isinstance(error, OSError):
        return type(error)(f"connecting to PostgreSQL failed: {_redact(str(error), urls) or _NO_ANSWER}")
    return ConnectionError(f"the driver raised {type(error).__qualname__}")


def _redact(message: str, urls: Iterable[DatabaseUrl]) -> str:
    for url in urls:
        message = url.redact(message)
    return message


def _options(statement_seconds: float, *, through_pgbouncer: bool, prepared_statements: bool) -> dict[str, Any]:
    options: dict[str, Any] = {
        "command_timeout": statement_seconds + ANSWER_SECONDS,
        "server_settings": {"application_name": NAME},
    }
    if not prepared_statements:
        # asyncpg then parses each statement in the round trip that runs it: PgBouncer sends that as a
        # whole to one server connection, and keeps this client on the one that described it before.
        options["statement_cache_size"] = 0
    if through_pgbouncer:
        # PgBouncer refuses the parameters below: the role has them instead.
        return options
    options["server_settings"] |= {
        "statement_timeout": str(int(statement_seconds * 1000)),
        "client_connection_check_interval": str(int(CHECK_INTERVAL_SECONDS * 1000)),
        "idle_in_transaction_session_timeout": str(int((statement_seconds + 1) * 1000)),
        "default_transaction_isolation": "read committed",
        "jit": "off",
    }
    return options
