"""Counters that all hosts share, in Redis. A request waits for Redis for 50 ms at most."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final, NamedTuple

from redis.exceptions import ClusterCrossSlotError, ResponseError

from app.rate_limits.redis_servers import CONNECT_TIMEOUT_SECONDS, Cluster, Hit, RedisServer, SingleServer
from app.rate_limits.window import Decision

_TIMEOUT_SECONDS: Final = 0.05
_TIMEOUT_PARTS: Final = 5
_PROBE_SECONDS: Final = 1.0
_MAX_FAILURES: Final = 3
_MAX_BATCH: Final = 128

_ERROR_CODE: Final = re.compile(r"[A-Z]{3,20}\b")


class _Waiter(NamedTuple):
    hit: Hit
    decision: asyncio.Future[Decision | None]


class RedisCounters:
    """Sends all waiting requests of this worker to Redis in one batch.

    The timeout of a batch is 50 ms. Three failures, or one error reply, open the circuit: no request is
    sent to Redis until a probe in the background gets its answer in time. Error replies such as OOM or
    READONLY do not pass by themselves, so they are not retried with requests.

    A probe is sent every second, under load as well, to each primary node of a cluster. Only a batch that
    has reached all nodes sets the number of failures back to zero: otherwise a failed node would not be
    noticed as long as the other nodes answer.
    """

    def __init__(self, uri: str, circuit_changed: Callable[[bool, str], None]) -> None:
        """Open nothing yet.

        Args:
            uri: `redis://…` or `rediss://…`: one server, or any node of a cluster.
            circuit_changed: Called when the circuit opens, with the reason, and when it closes.

        Raises:
            StartupError: The URI is malformed.
        """
        self._uri = uri
        self._server: RedisServer = SingleServer(uri)
        self._circuit_changed = circuit_changed
        self._circuit_open = True
        self._failures = 0
        self._failure: Exception | None = None
        self._waiters: list[_Waiter] = []
        self._wake_up = asyncio.Event()
        self._next_probe = 0.0

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Connect, within the connect timeout, and count in Redis until the context ends."""
        await self._probe()
        if self._circuit_open:
            self._circuit_changed(True, _reason(self._failure))
        task = asyncio.create_task(self._serve())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            await self._close_server()

    async def hit(self, key: bytes, limit: int, window: float, cost: int = 1, *, counted: int = 0) -> Decision | None:
        """Count a request over all hosts, or refuse it. None when Redis does not answer in time."""
        if self._circuit_open:
            return None
        waiter = _Waiter(Hit(key, limit, window, cost, counted), asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        self._wake_up.set()
        return await waiter.decision

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                if self._circuit_open:
                    await asyncio.sleep(_PROBE_SECONDS)
                    await self._probe()
                    continue
                # Without requests a probe is sent, so that no request has to discover that Redis is down.
                probe_timer = loop.call_at(self._next_probe, self._wake_up.set)
                await self._wake_up.wait()
                probe_timer.cancel()
                await self._serve_batch(with_probes=loop.time() >= self._next_probe)
        finally:
            self._circuit_open = True
            self._release_waiters()

    async def _serve_batch(self, *, with_probes: bool) -> None:
        batch, self._waiters = self._waiters[:_MAX_BATCH], self._waiters[_MAX_BATCH:]
        if not self._waiters:
            self._wake_up.clear()
        probes = self._server.probes() if with_probes else []
        if with_probes:
            self._next_probe = asyncio.get_running_loop().time() + _PROBE_SECONDS
        answers: Sequence[Decision | Exception] = ()
        try:
            answers = await self._count([*(waiter.hit for waiter in batch), *probes], _TIMEOUT_SECONDS)
        finally:
            for number, waiter in enumerate(batch):
                _resolve(waiter, answers[number] if answers else None)
        if self._failure is None:
            if probes or isinstance(self._server, SingleServer):
                self._failures = 0
            return
        # Requests that arrived in the meantime have already waited; do not make them wait for another batch.
        self._release_waiters()
        self._failures += 1
        if self._failures >= _MAX_FAILURES or isinstance(self._failure, ResponseError):
            self._circuit_open = True
            self._circuit_changed(True, _reason(self._failure))

    async def _probe(self) -> None:
        """Connect within the connect timeout, then close the circuit if all servers answer in time."""
        if isinstance(self._server, Cluster):
            # Without connections the client reads the nodes again: after a failover another node is the primary.
            await self._close_server()
        await self._count(self._server.probes(), CONNECT_TIMEOUT_SECONDS)
        if isinstance(self._failure, ClusterCrossSlotError):
            await self._use_cluster()
        if self._failure is None:
            await self._count(self._server.probes(), _TIMEOUT_SECONDS)
        if self._failure is None:
            self._circuit_open = False
            self._failures = 0
            self._next_probe = asyncio.get_running_loop().time() + _PROBE_SECONDS
            self._circuit_changed(False, "")

    async def _use_cluster(self) -> None:
        try:
            cluster = Cluster(self._uri)
        except Exception as error:  # noqa: BLE001  # such as a database number, which a cluster does not have
            self._failure = error
            return
        await self._close_server()
        self._server = cluster
        # The first call loads the nodes of the cluster; only then are there probes for all of them.
        await self._count(self._server.probes(), CONNECT_TIMEOUT_SECONDS)

    def _release_waiters(self) -> None:
        """Let all waiting requests continue without Redis."""
        for waiter in self._waiters:
            _resolve(waiter, None)
        self._waiters = []
        self._wake_up.clear()

    async def _count(self, hits: Sequence[Hit], seconds: float) -> Sequence[Decision | Exception]:
        """Count requests within the timeout, and set `_failure`. The answer is empty if all of them failed."""
        task = asyncio.ensure_future(self._server.count(hits))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            # A blocked event loop uses up one part of the timeout; the others are left for Redis to answer.
            for _ in range(_TIMEOUT_PARTS):
                await asyncio.wait({task}, timeout=seconds / _TIMEOUT_PARTS)
                if task.done():
                    break
            else:
                self._failure = TimeoutError()
                return ()
        finally:
            task.cancel()
        error = task.exception()
        if error is not None:
            self._failure = error if isinstance(error, Exception) else RuntimeError()
            return ()
        answers = task.result()
        failures = [answer for answer in answers if isinstance(answer, Exception)]
        # An error reply opens the circuit, so it must not be hidden by another failure.
        self._failure = max(failures, key=lambda failure: isinstance(failure, ResponseError), default=None)
        return answers

    async def _close_server(self) -> None:
        with suppress(Exception):
            await asyncio.wait_for(self._server.close(), CONNECT_TIMEOUT_SECONDS)


def _resolve(waiter: _Waiter, answer: Decision | Exception | None) -> None:
    if not waiter.decision.done():
        waiter.decision.set_result(None if isinstance(answer, Exception) else answer)


def _reason(failure: Exception | None) -> str:
    """The name of the exception, and the code of an error reply. The message may contain the URL and its password."""
    name = type(failure).__name__
    code = _ERROR_CODE.match(str(failure)) if isinstance(failure, ResponseError) else None
    return f"{name} {code[0]}" if code else name
