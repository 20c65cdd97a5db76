"""How one connection to PostgreSQL is opened: the hosts in their order, each with and without TLS."""

import ssl
from collections.abc import Mapping
from typing import Any

import asyncpg

from app.database_url import DatabaseHost, DatabaseUrl


async def connect(
    url: DatabaseUrl, *, host_seconds: float, server_settings: Mapping[str, str], **options: Any
) -> asyncpg.Connection:
    """Connect to the first host of the URL that takes the connection and is of the kind that the URL wants.

    Args:
        url: The address, whose `options` and `application_name` come before `server_settings`.
        host_seconds: How long connecting to one host may take, where the URL has no `connect_timeout`.
        server_settings: What PostgreSQL sets for the connection.
        options: Further arguments of `asyncpg.connect`.

    Raises:
        OSError: No host is reachable, or none is of the kind that the URL wants.
        asyncpg.PostgresError: The server refuses.
    """
    options["timeout"] = url.connect_seconds or host_seconds
    failure: Exception | None = None
    for host, session_attributes in url.attempts():
        options |= url.arguments(host) | {"target_session_attrs": session_attributes}
        options["server_settings"] = {**server_settings, **url.server_settings}
        try:
            return await _connect_host(url, host, options)
        except (OSError, asyncpg.CannotConnectNowError) as error:
            failure = error
        except asyncpg.TargetServerAttributeNotMatched:
            failure = ConnectionError(f"no server is of the kind target_session_attrs={url.session_attributes}")
    raise failure or ConnectionError("the URL names no host")


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
