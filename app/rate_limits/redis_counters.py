"""Counters that all hosts share, in Redis. A request waits for Redis for 50 ms at most."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from hashlib import sha1
from typing import Any, Final, NamedTuple

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError

from app.errors import StartupError
from app.rate_limits.window import SLICES, Decision

_ANSWER_SECONDS: Final = 0.05
_CONNECT_SECONDS: Final = 1.0
_PROBE_SECONDS: Final = 1.0
_FAILURES: Final = 3
_BATCH: Final = 128

_SCRIPT: Final = f"""
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local answers = {{}}
for i, key in ipairs(KEYS) do
  local limit, window = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
  local packed = redis.call('GET', key)
  local log = packed and cmsgpack.unpack(packed) or {{now}}
  if #log > 1 and log[#log - 1] > now + 1 then
    log = {{now}}
  end
  local kept, count = {{log[1]}}, 0
  for j = 2, #log, 2 do
    if now - log[j] < window then
      kept[#kept + 1], kept[#kept + 2] = log[j], log[j + 1]
      count = count + log[j + 1]
    end
  end
  local admitted = count < limit
  if admitted then
    count = count + 1
    if #kept > 1 and now - kept[1] < window / {SLICES} then
      kept[#kept - 1], kept[#kept] = now, kept[#kept] + 1
    else
      kept[1], kept[#kept + 1], kept[#kept + 2] = now, now, 1
    end
    redis.call('SET', key, cmsgpack.pack(kept), 'PX', math.ceil(window * 1000))
  end
  local oldest = kept[2] or now
  answers[i] = {{admitted and 1 or 0, math.max(0, limit - count), math.ceil((window - (now - oldest)) * 1000000)}}
end
return answers
"""
"""Does what `window.count_request` does, for several clients at once, by the clock of the Redis server."""

_SHA: Final = sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()


class _Hit(NamedTuple):
    key: bytes
    limit: int
    window: float
    decision: asyncio.Future[Decision | None] | None = None


_PROBE: Final = _Hit(b"probe", 1, 1)


class RedisCounters:
    """Sends all waiting requests of this worker to Redis in one batch, over one connection.

    The timeout of a batch is 50 ms. Three failures in a row open the circuit: no request is sent to
    Redis until a probe in the background gets its answer in time.
    """

    def __init__(self, uri: str, circuit_changed: Callable[[bool, str], None]) -> None:
        """Open nothing yet.

        Args:
            uri: `redis://…` or `rediss://…`.
            circuit_changed: Called when the circuit opens, with the reason, and when it closes.

        Raises:
            StartupError: The URI is malformed.
        """
        try:
            self._redis = Redis.from_url(
                uri, retry=Retry(NoBackoff(), 0), socket_connect_timeout=_CONNECT_SECONDS, protocol=2
            )
        except ValueError:
            raise StartupError("RATE_LIMIT_STORAGE_URI is malformed. Write redis://:password@host:6379/0.") from None
        self._circuit_changed = circuit_changed
        self._circuit_open = True
        self._failures = 0
        self._failure = ""
        self._waiting: list[_Hit] = []
        self._wake_up = asyncio.Event()

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Connect, within the connect timeout, and count in Redis until the context ends."""
        await self._probe()
        if self._circuit_open:
            self._circuit_changed(True, self._failure)
        task = asyncio.create_task(self._serve())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            with suppress(Exception):
                await asyncio.wait_for(self._redis.aclose(), _CONNECT_SECONDS)

    async def hit(self, key: bytes, limit: int, window: float) -> Decision | None:
        """Count a request over all hosts, or refuse it. None when Redis does not answer in time."""
        if self._circuit_open:
            return None
        decision: asyncio.Future[Decision | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Hit(key, limit, window, decision))
        self._wake_up.set()
        return await decision

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                if self._circuit_open:
                    await asyncio.sleep(_PROBE_SECONDS)
                    await self._probe()
                    continue
                # Send a probe when there are no requests, so that no request has to discover that Redis is down.
                probe_timer = loop.call_later(_PROBE_SECONDS, self._wake_up.set)
                await self._wake_up.wait()
                probe_timer.cancel()
                await self._serve_batch()
        finally:
            self._circuit_open = True
            self._release()

    async def _serve_batch(self) -> None:
        hits, self._waiting = self._waiting[:_BATCH], self._waiting[_BATCH:]
        if not self._waiting:
            self._wake_up.clear()
        decisions = None
        try:
            decisions = await self._ask(hits or [_PROBE], _ANSWER_SECONDS)
        finally:
            self._answer(hits, decisions or ())
        if decisions:
            self._failures = 0
            return
        # Requests that arrived in the meantime have already waited; do not make them wait for another batch.
        self._release()
        self._failures += 1
        if self._failures >= _FAILURES:
            self._circuit_open = True
            self._circuit_changed(True, self._failure)

    async def _probe(self) -> None:
        """Connect within the connect timeout, then close the circuit if an answer comes in time."""
        if await self._ask([_PROBE], _CONNECT_SECONDS) and await self._ask([_PROBE], _ANSWER_SECONDS):
            self._circuit_open = False
            self._failures = 0
            self._circuit_changed(False, "")

    def _answer(self, hits: list[_Hit], decisions: Sequence[Decision] = ()) -> None:
        for number, hit in enumerate(hits):
            if hit.decision is not None and not hit.decision.done():
                hit.decision.set_result(decisions[number] if decisions else None)

    def _release(self) -> None:
        """Let all waiting requests continue without Redis."""
        self._answer(self._waiting)
        self._waiting = []
        self._wake_up.clear()

    async def _ask(self, hits: list[_Hit], seconds: float) -> list[Decision] | None:
        task = asyncio.ensure_future(self._evaluate(hits))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            await asyncio.wait({task}, timeout=seconds)
            # When this process itself was blocked, the answer may have arrived and not been read yet.
            for _ in range(10):
                if task.done():
                    break
                await asyncio.sleep(0)
            if not task.done():
                self._failure = "TimeoutError"
                return None
        finally:
            task.cancel()
        if error := task.exception():
            # The name alone: a message may contain the URL, and with it the password.
            self._failure = type(error).__name__
            return None
        return task.result()

    async def _evaluate(self, hits: list[_Hit]) -> list[Decision]:
        redis: Any = self._redis
        arguments = [b"rate_limit:" + hit.key for hit in hits]
        for hit in hits:
            arguments += [b"%d" % hit.limit, b"%d" % hit.window]
        try:
            answers = await redis.evalsha(_SHA, len(hits), *arguments)
        except NoScriptError:
            answers = await redis.eval(_SCRIPT, len(hits), *arguments)
        return [Decision(admitted == 1, remaining, micros / 1e6) for admitted, remaining, micros in answers]
