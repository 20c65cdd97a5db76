"""How one connection to PostgreSQL is opened: the hosts in their order, each with and without TLS."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from time import perf_counter
from typing import Any, Final

import asyncpg

from app.database.logins import MOST_SECONDS, Login
from app.database_url import WRITING, DatabaseHost, DatabaseUrl

_HOST_FAILURES: Final = (OSError, asyncpg.PostgresConnectionError, asyncpg.OperatorInterventionError)
"""For these the next host is tried: a server that is away, that starts or stops, or that closes the connection."""

_TAKES_LONGER: Final = "the server answers, and the login takes longer"


class NoWritableServerError(ConnectionError):
    """A server answers, and none of the hosts takes writes."""


Prepare = Callable[[asyncpg.Connection, DatabaseHost, float], Awaitable[None]]
"""Prepares a new connection: called with it, its host, and when connecting began, by `perf_counter`."""


class HostOrder:
    """The order in which the hosts of a URL are tried: as the URL has them, and the last to fail at the end."""

    def __init__(self) -> None:
        self._failed_at: dict[DatabaseHost, float] = {}
        self.late: set[Login] = set()
        """The logins that have not ended in time, and go on."""

    def goes_on(self, login: Login) -> None:
        """Note that this login goes on, until it ends."""
        self.late.add(login)
        login.task.add_done_callback(lambda _: self.late.discard(login))

    def is_left(self, host: DatabaseHost) -> bool:
        """Whether a login without a place in the pool is still running at this host.

        Another one beside it could exceed the budget of connections.
        """
        return any(login.is_left and login.host == host for login in self.late)

    def attempts(self, url: DatabaseUrl) -> list[tuple[DatabaseHost, str]]:
        """The hosts in their order, each with the kind of server that it has to be."""
        attempts = list(url.attempts())
        kinds = list(dict.fromkeys(kind for _, kind in attempts))
        return sorted(attempts, key=lambda attempt: (kinds.index(attempt[1]), self._failed_at.get(attempt[0], 0.0)))

    def failed(self, host: DatabaseHost) -> None:
        """Try this host after all others, until it works again."""
        self._failed_at[host] = perf_counter()

    def worked(self, host: DatabaseHost) -> None:
        """Try this host in its place again."""
        self._failed_at.pop(host, None)


async def connect(
    url: DatabaseUrl,
    order: HostOrder,
    *,
    host_seconds: float,
    server_settings: Mapping[str, str],
    late: list[Login] | None = None,
    prepare: Prepare | None = None,
    **options: Any,
) -> tuple[asyncpg.Connection, DatabaseHost]:
    """Connect to the first host of the URL that takes the connection and is of the kind that the URL wants.

    Args:
        url: The address, whose `options` and `application_name` come before `server_settings`.
        order: The order of the hosts. It learns which of them fail.
        host_seconds: How long one host is waited for. The URL's `connect_timeout` can shorten that.
        server_settings: What PostgreSQL sets for the connection.
        late: Receives the logins that go on if no host takes the connection in time, or if the caller is cancelled.
            None: they are given up.
        prepare: Is called with a new connection, also with that of a late login.
        options: Further arguments of `asyncpg.connect`.

    Raises:
        NoWritableServerError: A server that takes writes is wanted, and those that answer do not.
        OSError: No host is reachable, or none is of the kind that the URL wants.
        asyncpg.PostgresError: The server refuses.
    """
    seconds = min(url.connect_seconds or host_seconds, host_seconds)
    failures: dict[DatabaseHost, Exception] = {}
    for host, session_attributes in order.attempts(url):
        if order.is_left(host) or any(other.host == host for other in late or ()):
            failures[host] = TimeoutError(_TAKES_LONGER)
            continue
        options |= url.arguments(host) | {"target_session_attrs": session_attributes}
        options["server_settings"] = {**server_settings, **url.server_settings}
        options["timeout"] = seconds if late is None else MOST_SECONDS
        connecting = _connect_host(url, host, dict(options), prepare)
        try:
            if late is None:
                connection = await connecting
            else:
                login = Login(host, connecting, seconds=seconds)
                connection = await _log_in(login, seconds, order, late, is_only=len(url.hosts) == 1)
        except _HOST_FAILURES as error:
            failures[host] = error
        except asyncpg.TargetServerAttributeNotMatched:
            failures[host] = _wrong_kind(url)
        else:
            order.worked(host)
            for other in late or ():
                other.leave()
            return connection, host
        order.failed(host)
    raise _failure(url, failures)


async def _log_in(
    login: Login, seconds: float, order: HostOrder, late: list[Login], *, is_only: bool
) -> asyncpg.Connection:
    """Wait for a login. It goes on if it takes longer, or if the caller is cancelled.

    One of several hosts that does not answer at all keeps no place: another host may work.
    """
    try:
        done, _ = await asyncio.wait({login.task}, timeout=seconds)
    except asyncio.CancelledError:
        order.goes_on(login)
        late.append(login)
        raise
    if done:
        return login.task.result()
    order.goes_on(login)
    if login.host_answers or is_only:
        late.append(login)
    else:
        login.leave()
    raise TimeoutError(_TAKES_LONGER if login.host_answers else "")


def _wrong_kind(url: DatabaseUrl) -> ConnectionError:
    if url.session_attributes in WRITING:
        return NoWritableServerError("the server takes no writes")
    return ConnectionError(f"the server is not of the kind target_session_attrs={url.session_attributes}")


def _failure(url: DatabaseUrl, failures: Mapping[DatabaseHost, Exception]) -> Exception:
    """What is raised when every host has failed: the only failure, or one that says of each host what has happened.

    A protocol violation, as which PgBouncer reports that it refuses a login, stays one.
    """
    if len(failures) == 1:
        return next(iter(failures.values()))
    numbers = {host: number for number, host in enumerate(url.hosts, 1)}
    causes = "; ".join(
        f"host {numbers[host]}: {''.join(str(error).splitlines()[:1]) or 'no answer in time'}"
        for host, error in sorted(failures.items(), key=lambda failure: numbers[failure[0]])
    )
    for kind in (NoWritableServerError, asyncpg.ProtocolViolationError):
        if any(isinstance(error, kind) for error in failures.values()):
            return kind(causes)
    return ConnectionError(causes)


async def _connect_host(
    url: DatabaseUrl, host: DatabaseHost, options: Mapping[str, Any], prepare: Prepare | None
) -> asyncpg.Connection:
    started = perf_counter()
    connection = await _encrypted_or_not(url, host, options)
    if prepare is not None:
        await prepare(connection, host, started)
    return connection


async def _encrypted_or_not(url: DatabaseUrl, host: DatabaseHost, options: Mapping[str, Any]) -> asyncpg.Connection:
    """Connect with TLS or without, as `sslmode` says. asyncpg would search the home directory for certificates."""
    if host.is_socket:
        return await asyncpg.connect(**options, ssl=False, direct_tls=False)
    *others, last = url.tls.contexts()
    for context in others:
        try:
            return await asyncpg.connect(**options, ssl=context or False, direct_tls=False)
        except (ConnectionError, ssl.SSLError, asyncpg.InvalidAuthorizationSpecificationError) as error:
            if not _refuses_encryption(error):
                raise
    return await asyncpg.connect(**options, ssl=last or False, direct_tls=url.tls.is_direct)


def _refuses_encryption(error: Exception) -> bool:
    """Whether the server answers, and wants the other of TLS and no TLS. A wrong password is not sent again."""
    if isinstance(error, ConnectionError):
        return type(error) is ConnectionError  # asyncpg's own; those of the operating system are its subclasses
    return not isinstance(error, asyncpg.InvalidPasswordError)
