"""The script that counts requests in Redis, and the two kinds of server that run it: one server, and a cluster."""

from collections.abc import Sequence
from hashlib import sha1
from typing import Any, Final, NamedTuple, Protocol

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError

from app.errors import StartupError
from app.rate_limits.window import SLICES, Decision

CONNECT_TIMEOUT_SECONDS: Final = 1.0

_SCRIPT: Final = f"""
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local answers = {{}}
for i, key in ipairs(KEYS) do
  local limit, window = tonumber(ARGV[4 * i - 3]), tonumber(ARGV[4 * i - 2])
  local cost, counted = tonumber(ARGV[4 * i - 1]), tonumber(ARGV[4 * i])
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
  local more, retry = cost - counted, 0
  local admitted = count + more <= limit
  if admitted then
    count = count + more
    local last = math.max(now, kept[#kept - 1] or now)
    if #kept > 1 and now - kept[1] < window / {SLICES} then
      kept[#kept - 1], kept[#kept] = last, kept[#kept] + more
    else
      kept[1], kept[#kept + 1], kept[#kept + 2] = now, last, more
    end
    redis.call('SET', key, cmsgpack.pack(kept), 'PX', math.ceil(window * 1000))
  else
    local left = count
    retry = window
    for j = 2, #kept, 2 do
      left = left - kept[j + 1]
      if left <= limit - cost then
        retry = window - (now - kept[j])
        break
      end
    end
  end
  local oldest = kept[2] or now
  local reset = window - (now - oldest)
  answers[i] = {{
    admitted and 1 or 0, math.max(0, limit - count), math.ceil(reset * 1000000), math.ceil(retry * 1000000)
  }}
end
return answers
"""
"""Does what `window.count_request` does, for several clients at once, by the clock of the Redis server."""

_SHA: Final = sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()

_OPTIONS: Final[dict[str, Any]] = {"socket_connect_timeout": CONNECT_TIMEOUT_SECONDS, "protocol": 2}


class Hit(NamedTuple):
    """A request to count."""

    key: bytes
    limit: int
    window: float
    cost: int = 1
    counted: int = 0


class RedisServer(Protocol):
    """One Redis server, or a cluster."""

    def probes(self) -> list[Hit]:
        """Requests that together use every server. Each is admitted, so it writes as a client's request does."""

    async def count(self, hits: Sequence[Hit]) -> list[Decision | Exception]:
        """Count requests, and return a decision or an exception for each."""

    async def close(self) -> None:
        """Close all connections."""


def _probe(number: int) -> Hit:
    return Hit(b"probe/%d" % number, 1_000_000, 1)


class SingleServer:
    """One Redis server: it counts all requests of a batch in one call."""

    def __init__(self, uri: str) -> None:
        """Open nothing yet.

        Raises:
            StartupError: The URI is malformed.
        """
        try:
            self._redis: Any = Redis.from_url(uri, retry=Retry(NoBackoff(), 0), **_OPTIONS)
        except ValueError:
            raise StartupError("RATE_LIMIT_STORAGE_URI is malformed. Write redis://:password@host:6379/0.") from None

    def probes(self) -> list[Hit]:
        """Two requests in different hash slots: a cluster refuses them with CROSSSLOT."""
        return [_probe(0), _probe(1)]

    async def count(self, hits: Sequence[Hit]) -> list[Decision | Exception]:
        """Count requests."""
        arguments = [_key(hit) for hit in hits]
        for hit in hits:
            arguments += _arguments(hit)
        try:
            answers = await self._redis.evalsha(_SHA, len(hits), *arguments)
        except NoScriptError:
            answers = await self._redis.eval(_SCRIPT, len(hits), *arguments)
        return [_decision(answer) for answer in answers]

    async def close(self) -> None:
        """Close all connections."""
        await self._redis.aclose()


class Cluster:
    """A Redis cluster: a call has the key of one client, because all keys of a call must be in one hash slot."""

    def __init__(self, uri: str) -> None:
        """Open nothing yet. The URI names any node of the cluster."""
        self._redis: Any = RedisCluster.from_url(uri, retry=Retry(NoBackoff(), 0), **_OPTIONS)

    def probes(self) -> list[Hit]:
        """One request for each primary node."""
        missing = {node.name for node in self._redis.get_primaries()}
        found = []
        for number in range(16_384):
            if not missing:
                break
            probe = _probe(number)
            node = self._redis.get_node_from_key(_key(probe))
            if node is not None and node.name in missing:
                missing.remove(node.name)
                found.append(probe)
        return found or [_probe(0)]

    async def count(self, hits: Sequence[Hit]) -> list[Decision | Exception]:
        """Count requests, in one round trip to each node."""
        answers = await self._call("EVALSHA", _SHA, hits)
        lost = [number for number, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        for number, answer in zip(lost, await self._call("EVAL", _SCRIPT, [hits[n] for n in lost]), strict=True):
            answers[number] = answer
        return [answer if isinstance(answer, Exception) else _decision(answer[0]) for answer in answers]

    async def close(self) -> None:
        """Close all connections."""
        await self._redis.aclose()

    async def _call(self, command: str, script: str, hits: Sequence[Hit]) -> list[Any]:
        pipeline = self._redis.pipeline()
        for hit in hits:
            pipeline.execute_command(command, script, 1, _key(hit), *_arguments(hit))
        answers: list[Any] = await pipeline.execute(raise_on_error=False)
        return answers


def _key(hit: Hit) -> bytes:
    return b"rate_limit:" + hit.key


def _arguments(hit: Hit) -> list[bytes]:
    return [b"%d" % number for number in hit[1:]]


def _decision(answer: Sequence[int]) -> Decision:
    admitted, remaining, reset_micros, retry_micros = answer
    return Decision(admitted == 1, remaining, reset_micros / 1e6, retry_micros / 1e6)
