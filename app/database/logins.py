"""A login that takes longer than a request waits for it: it goes on, so that its session stays within the budget."""

import asyncio
import struct
from collections.abc import Coroutine, Iterable
from typing import Any, Final

import asyncpg

from app.database_url import DatabaseHost

MOST_SECONDS: Final = 60.0
"""How long a login may take. PostgreSQL itself ends one after this time: see its `authentication_timeout`."""

PROBE_SECONDS: Final = 1.0
"""The time between two probes of a host whose login is late."""

SILENT_SECONDS = 3.0
"""A login is given up when its host has not answered a probe for so long. A server that is busy may be late."""

_SSL_REQUEST: Final = struct.pack("!ii", 8, 80877103)
"""PostgreSQL's message SSLRequest. The answer is one byte, and needs no session."""


async def answers(host: DatabaseHost, seconds: float) -> bool:
    """Whether the server answers an SSLRequest within this time.

    PostgreSQL answers one before any login, even while it is busy.
    """
    try:
        async with asyncio.timeout(seconds):
            if host.is_socket:
                reader, writer = await asyncio.open_unix_connection(f"{host.name}/.s.PGSQL.{host.port}")
            else:
                reader, writer = await asyncio.open_connection(host.name, host.port)
            try:
                writer.write(_SSL_REQUEST)
                return bool(await reader.read(1))
            finally:
                writer.transport.abort()
    except (OSError, UnicodeError):  # a name that cannot be encoded
        return False


class Login:
    """A login at one host. It goes on while the host answers, whether or not somebody waits for it.

    PostgreSQL finishes a login whose client has gone, and notices that only then. So a login that is given up leaves a
    process in a slow server, beside that of the next login.
    """

    def __init__(
        self, host: DatabaseHost, connecting: Coroutine[Any, Any, asyncpg.Connection], *, seconds: float
    ) -> None:
        """Begin.

        Args:
            host: The host to log in at.
            connecting: Opens the connection.
            seconds: How long a request waits for it. After half of this time the host is probed.
        """
        self.host = host
        self.host_answers = False
        """Whether it has answered the last probe."""
        self.is_left = False
        """Whether nobody will use its connection: another host is used, or may be."""
        self.task = asyncio.create_task(self._run(connecting, seconds / 2))

    def leave(self) -> None:
        """Close the connection as soon as the login has ended."""
        self.is_left = True
        self.task.add_done_callback(_close)

    async def _run(self, connecting: Coroutine[Any, Any, asyncpg.Connection], seconds: float) -> asyncpg.Connection:
        login = asyncio.create_task(connecting)
        is_taken = False
        try:
            while not (await asyncio.wait({login}, timeout=seconds))[0]:
                if not await self._answers_before(login):
                    raise TimeoutError
                seconds = PROBE_SECONDS
            is_taken = True
            return login.result()
        finally:
            if not is_taken:
                login.add_done_callback(_close)  # it may have a connection already
                login.cancel()

    async def _answers_before(self, login: "asyncio.Task[asyncpg.Connection]") -> bool:
        """Whether the host answers a probe, or the login ends meanwhile."""
        probe = asyncio.create_task(answers(self.host, SILENT_SECONDS))
        try:
            await asyncio.wait({login, probe}, return_when=asyncio.FIRST_COMPLETED)
            if login.done():
                return True
            self.host_answers = probe.result()
            return self.host_answers
        finally:
            probe.cancel()


async def first_connection(logins: Iterable[Login]) -> asyncpg.Connection | None:
    """The connection of the login that succeeds first, None if all fail. The others are left."""
    pending = {login.task: login for login in logins}
    try:
        while pending:
            done, _ = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                del pending[task]
                if not task.cancelled() and task.exception() is None:
                    return task.result()
        return None
    finally:
        for login in pending.values():
            login.leave()


def _close(task: "asyncio.Task[asyncpg.Connection]") -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().terminate()
