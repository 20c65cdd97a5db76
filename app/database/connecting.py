"""How one connection to PostgreSQL is opened: the hosts in their order, each with and without TLS."""

import ssl
from collections.abc import Mapping
from time import perf_counter
from typing import Any, Final

import asyncpg

from app.database_url import WRITING, DatabaseHost, DatabaseUrl

_HOST_FAILURES: Final = (OSError, asyncpg.PostgresConnectionError, asyncpg.OperatorInterventionError)
"""For these the next host is tried: a server that is away, that starts or stops, or that closes the connection."""


class NoWritableServerError(ConnectionError):
    """A server answers, and none of the hosts takes writes."""


class HostOrder:
    """The order in which the hosts of a URL are tried: as the URL has them, and the last to fail at the end."""

    def __init__(self) -> None:
        self._failed_at: dict[DatabaseHost, float] = {}

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
    url: DatabaseUrl, order: HostOrder, *, host_seconds: float, server_settings: Mapping[str, str], **options: Any
) -> tuple[asyncpg.Connection, DatabaseHost]:
    """Connect to the first host of the URL that takes the connection and is of the kind that the URL wants.

    Args:
        url: The address, whose `options` and `application_name` come before `server_settings`.
        order: The order of the hosts. It learns which of them fail.
        host_seconds: How long connecting to one host may take. A single host has the URL's `connect_timeout`
            instead, and several hosts have it if it is shorter.
        server_settings: What PostgreSQL sets for the connection.
        options: Further arguments of `asyncpg.connect`.

    Raises:
        NoWritableServerError: A server that takes writes is wanted, and those that answer do not.
        OSError: No host is reachable, or none is of the kind that the URL wants.
        asyncpg.PostgresError: The server refuses.
    """
    options["timeout"] = url.connect_seconds or host_seconds
    if len(url.hosts) > 1:
        options["timeout"] = min(options["timeout"], host_seconds)
    failures: dict[DatabaseHost, Exception] = {}
    for host, session_attributes in order.attempts(url):
        options |= url.arguments(host) | {"target_session_attrs": session_attributes}
        options["server_settings"] = {**server_settings, **url.server_settings}
        try:
            connection = await _connect_host(url, host, options)
        except _HOST_FAILURES as error:
            failures[host] = error
        except asyncpg.TargetServerAttributeNotMatched:
            failures[host] = _wrong_kind(url)
        else:
            order.worked(host)
            return connection, host
        order.failed(host)
    raise _failure(url, failures)


def _wrong_kind(url: DatabaseUrl) -> ConnectionError:
    if url.session_attributes in WRITING:
        return NoWritableServerError("the server takes no writes")
    return ConnectionError(f"the server is not of the kind target_session_attrs={url.session_attributes}")


def _failure(url: DatabaseUrl, failures: Mapping[DatabaseHost, Exception]) -> Exception:
    """What is raised when every host has failed: the only failure, or one that says of each host what has happened."""
    if len(failures) == 1:
        return next(iter(failures.values()))
    numbers = {host: number for number, host in enumerate(url.hosts, 1)}
    causes = "; ".join(
        f"host {numbers[host]}: {str(error) or 'no answer in time'}"
        for host, error in sorted(failures.items(), key=lambda failure: numbers[failure[0]])
    )
    answers = any(isinstance(error, NoWritableServerError) for error in failures.values())
    return NoWritableServerError(causes) if answers else ConnectionError(causes)


async def _connect_host(url: DatabaseUrl, host: DatabaseHost, options: Mapping[str, Any]) -> asyncpg.Connection:
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
