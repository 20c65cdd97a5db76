"""Counters that all hosts share, in Redis, asked in a way that a lost Redis never holds a request."""

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
  local kept, spent = {{log[1]}}, 0
  for j = 2, #log, 2 do
    if now - log[j] < window then
      kept[#kept + 1], kept[#kept + 2] = log[j], log[j + 1]
      spent = spent + log[j + 1]
    end
  end
  local admitted = spent < limit
  if admitted then
    spent = spent + 1
    if #kept > 1 and now - kept[1] < window / {SLICES} then
      kept[#kept - 1], kept[#kept] = now, kept[#kept] + 1
    else
      kept[1], kept[#kept + 1], kept[#kept + 2] = now, now, 1
    end
    redis.call('SET', key, cmsgpack.pack(kept), 'PX', math.ceil(window * 1000))
  end
  local oldest = kept[2] or now
  answers[i] = {{admitted and 1 or 0, math.max(0, limit - spent), math.ceil((window - (now - oldest)) * 1000000)}}
end
return answers
"""
"""What `window.spend` does, for several clients at once and by the clock of the Redis server."""

_SHA: Final = sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()


class _Hit(NamedTuple):
    key: bytes
    limit: int
    window: float
    decision: asyncio.Future[Decision | None] | None = None


_PROBE: Final = _Hit(b"probe", 1, 1)


class AcrossHosts:
    """Asks Redis about all waiting requests of this worker at once, over one connection.

    An answer is waited for 50 ms. After three failures Redis counts as away: nobody asks it any
    more, until a probe in the background has been answered in time.
    """

    def __init__(self, uri: str, changed: Callable[[bool, str], None]) -> None:
        """Open nothing yet.

        Args:
            uri: `redis://…` or `rediss://…`.
            changed: Told when Redis is found to be away or back, and why.

        Raises:
            StartupError: The URI is malformed.
        """
        try:
            self._redis = Redis.from_url(
                uri, retry=Retry(NoBackoff(), 0), socket_connect_timeout=_CONNECT_SECONDS, protocol=2
            )
        except ValueError:
            raise StartupError(
                "RATE_LIMIT_STORAGE_URI is malformed: write it as redis://:password@host:6379/0."
            ) from None
        self._changed = changed
        self._away = True
        self._failures = 0
        self._failure = ""
        self._waiting: list[_Hit] = []
        self._awake = asyncio.Event()

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Connect, for at most a moment, and ask Redis from now on."""
        await self._probe()
        if self._away:
            self._changed(True, self._failure)
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
        """Count a request across all hosts, or refuse it. None when Redis does not answer in time."""
        if self._away:
            return None
        decision: asyncio.Future[Decision | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Hit(key, limit, window, decision))
        self._awake.set()
        return await decision

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                if self._away:
                    await asyncio.sleep(_PROBE_SECONDS)
                    await self._probe()
                    continue
                # Without requests Redis is asked all the same, so that no request finds out that it has gone.
                idle = loop.call_later(_PROBE_SECONDS, self._awake.set)
                await self._awake.wait()
                idle.cancel()
                await self._serve_batch()
        finally:
            self._away = True
            self._release()

    async def _serve_batch(self) -> None:
        hits, self._waiting = self._waiting[:_BATCH], self._waiting[_BATCH:]
        if not self._waiting:
            self._awake.clear()
        decisions = None
        try:
            decisions = await self._ask(hits or [_PROBE], _ANSWER_SECONDS)
        finally:
            self._answer(hits, decisions or ())
        if decisions:
            self._failures = 0
            return
        # Who came in the meantime has waited long enough.
        self._release()
        self._failures += 1
        if self._failures >= _FAILURES:
            self._away = True
            self._changed(True, self._failure)

    async def _probe(self) -> None:
        """Connect in all the time it takes, and then see whether an answer comes in time."""
        if await self._ask([_PROBE], _CONNECT_SECONDS) and await self._ask([_PROBE], _ANSWER_SECONDS):
            self._away = False
            self._failures = 0
            self._changed(False, "")

    def _answer(self, hits: list[_Hit], decisions: Sequence[Decision] = ()) -> None:
        for number, hit in enumerate(hits):
            if hit.decision is not None and not hit.decision.done():
                hit.decision.set_result(decisions[number] if decisions else None)

    def _release(self) -> None:
        """Let all that wait go on without Redis."""
        self._answer(self._waiting)
        self._waiting = []
        self._awake.clear()

    async def _ask(self, hits: list[_Hit], seconds: float) -> list[Decision] | None:
        task = asyncio.ensure_future(self._evaluate(hits))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            await asyncio.wait({task}, timeout=seconds)
            # When this process itself was held up, the answer may have come and not been read yet.
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
            # The name alone: a message may hold the address, and the address a password.
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
