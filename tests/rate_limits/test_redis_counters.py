import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from redis import Redis
from structlog.testing import capture_logs

from app.errors import RateLimitedError, StartupError
from app.rate_limits import RateLimits, redis_counters, redis_servers
from app.rate_limits.redis_servers import SingleServer
from app.rate_limits.window import count_request
from app.settings import Settings
from tests.redis_server import redis_server

pytestmark = pytest.mark.needs("redis-server")

CLIENT = "192.0.2.1"


class Host(RateLimits):
    """The rate limits of one host, which record when they are degraded."""

    def __init__(self, settings: Settings) -> None:
        self.states: list[bool] = []
        super().__init__(settings, self)

    def rate_limit_decided(self, quota: str, outcome: str) -> None:
        """Discard it."""

    def rate_limit_degraded(self, degraded: bool) -> None:
        """Record it."""
        self.states.append(degraded)


@pytest.fixture
def redis(tmp_path):
    """A Redis server for this test alone."""
    with redis_server(tmp_path, password="planted-secret") as server:
        yield server


@pytest.fixture(autouse=True)
def _fast_probes(monkeypatch):
    monkeypatch.setattr(redis_counters, "_PROBE_SECONDS", 0.05)


def host(uri: str, limit: str = "100/minute") -> Host:
    """The rate limits of one host."""
    settings = Settings.load(_env_file=None, web_concurrency=2, rate_limit_storage_uri=uri, rate_limit_read=limit)
    return Host(settings)


async def send(limits: RateLimits, requests: int, client: str = CLIENT) -> tuple[int, list[float]]:
    """Send requests concurrently; return the number admitted and the duration of each, sorted."""

    async def one() -> tuple[bool, float]:
        began = time.monotonic()
        decision = await limits.hit(limits.quota("GET"), client)
        return decision.admitted, time.monotonic() - began

    answers = await asyncio.gather(*(one() for _ in range(requests)))
    return sum(admitted for admitted, _ in answers), sorted(seconds for _, seconds in answers)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition that a background task makes true."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 -- the condition has no event
            await asyncio.sleep(0.01)


async def test_hosts_share_a_limit_exactly(redis):
    """Two hosts with 200 requests each at once admit exactly the limit."""
    one, two = host(redis.uri), host(redis.uri)
    async with one.opened(), two.opened():
        (first, _), (second, _) = await asyncio.gather(send(one, 200), send(two, 200))

        assert 100 == first + second
        assert (100, []) != (await send(two, 200, client="192.0.2.2"))
    assert [False] == one.states


async def test_hosts_share_what_requests_count_as(redis):
    """Two hosts send requests that count as 7 at once: whole ones are admitted, as many as fit, and none in part."""
    one, two = (host(redis.uri, "100/minute") for _ in range(2))

    async def send_costly(limits: RateLimits, requests: int) -> int:
        async def one_request() -> bool:
            scope = {"type": "http", "method": "GET", "client": (CLIENT, 1), "state": {}}
            if not (await limits.hit(limits.quota("GET"), CLIENT)).admitted:
                return False
            try:
                await limits.count_as(scope, 7)
            except RateLimitedError:
                return False
            return True

        return sum(await asyncio.gather(*(one_request() for _ in range(requests))))

    async with one.opened(), two.opened():
        admitted = sum(await asyncio.gather(send_costly(one, 10), send_costly(two, 10)))
        left = await send(two, 100)

    # Each refused request has counted as one.
    assert 100 == 7 * admitted + (20 - admitted) + left[0]
    assert admitted == 13


async def test_the_script_decides_as_the_python_code_does(redis):
    """The script and `window.count_request` agree on every request, whatever the times."""
    script = redis_servers._SCRIPT.replace("redis.call('TIME')", "{ARGV[#ARGV], 0}")
    assert script != redis_servers._SCRIPT
    client = Redis(port=redis.port, password=redis.password)
    pauses = random.Random(1)
    for key in range(30):
        now, limit = 1_000_000.0, pauses.randint(1, 8)
        log: tuple[float, ...] = (60.0, 0.0)
        for _ in range(100):
            now += pauses.choice((0.0, 0.25, 1.5, 6.0, 20.0, 61.0, -30.0, -0.5))
            cost = pauses.randint(1, limit)
            counted = pauses.randint(0, 1) if len(log) > 2 and cost > 1 else 0
            decision, log = count_request(log, now, limit, cost, counted=counted)
            arguments = (limit, 60, cost, counted, repr(now))
            ((admitted, remaining, reset, retry),) = client.eval(script, 1, f"key{key}", *arguments)
            assert decision.admitted == bool(admitted)
            assert decision.remaining == remaining
            assert decision.reset_seconds == pytest.approx(reset / 1e6, abs=1e-5)
            assert decision.retry_seconds == pytest.approx(retry / 1e6, abs=1e-5)
    client.close()


async def test_a_clients_key_expires_with_its_window(redis):
    """Redis keeps one key for each client, with a time to live of one window."""
    limits = host(redis.uri, "5/second")
    async with limits.opened():
        await send(limits, 3)
        client = Redis(port=redis.port, password=redis.password)
        assert {b"rate_limit:read/5/1/192.0.2.1", b"rate_limit:probe/0", b"rate_limit:probe/1"} == set(client.keys())
        assert 0 < client.pttl("rate_limit:read/5/1/192.0.2.1") <= 1000
        client.close()


async def test_a_flushed_script_is_loaded_again(redis):
    """A server that lost its scripts does not count as a failure."""
    limits = host(redis.uri)
    async with limits.opened():
        client = Redis(port=redis.port, password=redis.password)
        client.script_flush()
        client.close()
        assert 100 == (await send(limits, 150))[0]
    assert [False] == limits.states


@pytest.mark.parametrize("fault", ["freeze", "kill"])
async def test_an_unreachable_redis_does_not_delay_requests(redis, fault):
    """When Redis is frozen or killed under load, 99 of 100 requests take less than 100 ms.

    The limit holds on this host. The opening and the closing of the circuit are logged once each.
    """
    limits = host(redis.uri)
    with capture_logs() as lines:
        async with limits.opened():
            assert 60 == (await send(limits, 60))[0]
            getattr(redis, fault)()
            admitted, delays = 0, []
            for _ in range(60):
                more, seconds = await send(limits, 5)
                admitted += more
                delays += seconds
                await asyncio.sleep(0.005)

            assert 40 == admitted
            assert delays[int(len(delays) * 0.99)] < 0.1
            assert delays[-1] < 0.5
            assert ["rate_limit_storage_lost"] == [line["event"] for line in lines]
            assert [False, True] == limits.states

            redis.thaw() if fault == "freeze" else redis.start()
            await until(lambda: limits.states == [False, True, False])
            assert 0 == (await send(limits, 20))[0]
            assert 100 == (await send(limits, 120, client="192.0.2.2"))[0]
    assert ["rate_limit_storage_lost", "rate_limit_storage_restored"] == [line["event"] for line in lines]
    assert lines[0]["reason"] in {"TimeoutError", "ConnectionError"}
    assert "planted-secret" not in repr(lines)


async def test_a_redis_that_is_down_at_the_start_is_used_once_it_is_up(redis):
    """The worker starts and counts for its host, and counts over all hosts once Redis answers."""
    redis.kill()
    limits = host(redis.uri)
    with capture_logs() as lines:
        async with limits.opened():
            assert 100 == (await send(limits, 150))[0]
            redis.start()
            await until(lambda: limits.states == [True, False])
    assert ["rate_limit_storage_lost", "rate_limit_storage_restored"] == [line["event"] for line in lines]


async def test_a_wrong_password_is_logged_without_the_password(redis):
    """When Redis refuses the password, the host counts alone, and the log names the reason."""
    with capture_logs() as lines:
        async with (limits := host(redis.uri.replace("planted-secret", "wrong-secret"))).opened():
            assert 100 == (await send(limits, 150))[0]
    assert "AuthenticationError" == lines[0]["reason"]
    assert "secret" not in repr(lines)


@asynccontextmanager
async def slow_proxy(port: int, seconds: float) -> AsyncIterator[int]:
    """A proxy to Redis that delays each answer."""
    tasks: set[asyncio.Task[None]] = set()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
        try:
            while data := await reader.read(65536):
                await asyncio.sleep(delay)
                writer.write(data)
        finally:
            writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", port)
        tasks.add(asyncio.create_task(pass_on(reader, upstream_writer, 0)))
        tasks.add(asyncio.create_task(pass_on(upstream_reader, writer, seconds)))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_slow_redis_opens_the_circuit(redis):
    """With answers that take 0.2 s no request waits for 0.1 s, and the host counts alone."""
    async with slow_proxy(redis.port, 0.2) as port:
        limits = host(redis.uri.replace(str(redis.port), str(port)))
        async with limits.opened():
            admitted, delays = await send(limits, 150)
            assert 100 == admitted
            assert delays[-1] < 0.1
            await asyncio.sleep(1)
        assert [True] == limits.states


async def test_a_blocked_event_loop_does_not_open_the_circuit(redis):
    """After the event loop was blocked for longer than the timeout, an answer that has arrived still counts."""
    limits = host(redis.uri)
    async with limits.opened():
        for _ in range(5):
            waiting = asyncio.create_task(send(limits, 20))
            for _ in range(6):
                await asyncio.sleep(0)
            time.sleep(0.3)  # noqa: ASYNC251 -- the loop has to be blocked here
            await waiting
        client = Redis(port=redis.port, password=redis.password)
        assert 0 == (await send(limits, 1))[0]
        assert client.exists("rate_limit:read/100/60/192.0.2.1")
        client.close()
    assert [False] == limits.states


async def test_closing_answers_the_requests_that_wait_for_redis(redis):
    """No request waits for Redis after the counters are closed."""
    limits = host(redis.uri)
    async with limits.opened():
        redis.freeze()
        waiting = asyncio.create_task(send(limits, 5))
        await asyncio.sleep(0)
    assert 5 == (await asyncio.wait_for(waiting, 1))[0]
    assert limits._redis
    assert await limits._redis.hit(b"a", 1, 60) is None


@pytest.mark.parametrize("uri", ["redis://:planted-secret@host:port/0", "redis://host:99999", "redis://[::1"])
def test_a_malformed_uri_is_refused_at_the_start(uri):
    """The error names the setting, says what to write, and does not show the password."""
    with pytest.raises(StartupError, match="RATE_LIMIT_STORAGE_URI") as error:
        host(uri)
    assert "planted" not in str(error.value)
    assert error.value.__suppress_context__


async def test_an_unexpected_exception_counts_as_a_failure(redis, monkeypatch):
    """An exception of any kind opens the circuit."""
    limits = host(redis.uri)
    async with limits.opened():

        async def fail(*_):
            raise ZeroDivisionError

        monkeypatch.setattr(SingleServer, "count", fail)
        for _ in range(4):
            assert 1 == (await send(limits, 1))[0]
        assert [False, True] == limits.states
