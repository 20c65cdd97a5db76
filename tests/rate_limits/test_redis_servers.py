import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from redis import Redis
from structlog.testing import capture_logs

from app.rate_limits import RateLimits, redis_counters
from app.settings import Settings
from tests.redis_cluster import redis_cluster
from tests.redis_server import redis_server

pytestmark = pytest.mark.needs("redis-server")

LIMIT = 20


class Host(RateLimits):
    """The rate limits of one host, which record when they are degraded."""

    def __init__(self, uri: str) -> None:
        self.states: list[bool] = []
        super().__init__(
            Settings.load(_env_file=None, rate_limit_storage_uri=uri, rate_limit_read=f"{LIMIT}/minute"), self
        )

    def rate_limit_decided(self, quota: str, outcome: str) -> None:
        """Discard it."""

    def rate_limit_degraded(self, degraded: bool) -> None:
        """Record it."""
        self.states.append(degraded)

    async def send(self, requests: int, *, clients: int = 1) -> list[int]:
        """Send this many requests of each client concurrently; return how many of each were admitted."""

        async def one(client: int) -> int:
            decision = await self.hit(self.quota("GET"), f"192.0.2.{client}")
            return decision.admitted

        admitted = await asyncio.gather(*(one(number % clients) for number in range(requests * clients)))
        return [sum(admitted[client::clients]) for client in range(clients)]


@pytest.fixture(autouse=True)
def _fast_probes_and_a_long_timeout(monkeypatch):
    # These tests are about what Redis answers, not about how fast: a busy machine must not open the circuit.
    monkeypatch.setattr(redis_counters, "_PROBE_SECONDS", 0.05)
    monkeypatch.setattr(redis_counters, "_TIMEOUT_SECONDS", 0.5)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition that a background task makes true."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 -- the condition has no event
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("nodes", [1, 3])
async def test_hosts_share_a_limit_exactly_in_a_cluster(tmp_path, nodes):
    """Two hosts admit exactly the limit of each of 30 clients, whose keys are in many hash slots."""
    with redis_cluster(tmp_path, nodes) as cluster, capture_logs() as lines:
        one, two = Host(cluster.uri), Host(cluster.uri)
        async with one.opened(), two.opened():
            first, second = await asyncio.gather(one.send(LIMIT, clients=30), two.send(LIMIT, clients=30))
        keys = cluster.keys()

    assert [LIMIT] * 30 == [sum(pair) for pair in zip(first, second, strict=True)]
    assert 30 == sum(b"192.0.2." in key for key in keys)
    assert [False] == one.states == two.states
    assert [] == [line for line in lines if line["log_level"] == "warning"]


async def test_a_cluster_that_loses_its_scripts_is_no_failure(tmp_path):
    """A node without the script gets it again."""
    with redis_cluster(tmp_path, 1) as cluster:
        async with (host := Host(cluster.uri)).opened():
            client = Redis(port=cluster.nodes[0].port)
            client.script_flush()
            client.close()
            assert [LIMIT] * 5 == await host.send(LIMIT + 5, clients=5)
    assert [False] == host.states


@pytest.mark.parametrize("fault", ["freeze", "kill"])
async def test_one_lost_node_of_a_cluster_opens_the_circuit(tmp_path, fault):
    """A client whose key is on another node keeps sending; the lost node is found all the same, and logged."""
    with redis_cluster(tmp_path, 3) as cluster, capture_logs() as lines:
        async with (host := Host(cluster.uri)).opened():
            getattr(cluster.nodes[2], fault)()
            async with asyncio.timeout(10):
                while host.states == [False]:
                    await host.send(1)
                    await asyncio.sleep(0.005)
            admitted = await host.send(LIMIT, clients=10)
            if fault == "freeze":
                cluster.nodes[2].thaw()
                await until(lambda: host.states == [False, True, False])

    assert [False, True] == host.states[:2]
    assert all(count <= LIMIT for count in admitted)
    assert "rate_limit_storage_lost" == next(line["event"] for line in lines if line["log_level"] == "warning")


async def test_a_cluster_is_used_again_after_a_failover(tmp_path):
    """When a replica replaces its killed primary, the circuit closes, and the limit is exact over hosts again."""
    with redis_cluster(tmp_path, 3, replica=True) as cluster:
        one, two = Host(cluster.uri), Host(cluster.uri)
        async with one.opened(), two.opened():
            cluster.nodes[2].kill()
            await until(lambda: [False, True, False] == one.states == two.states)
            first, second = await asyncio.gather(one.send(LIMIT, clients=30), two.send(LIMIT, clients=30))

    assert [LIMIT] * 30 == [sum(pair) for pair in zip(first, second, strict=True)]


def fill(client: Any) -> None:
    """Leave no memory for keys."""
    client.config_set("maxmemory", "1")


def make_replica(client: Any) -> None:
    """Make the server the replica of a server that does not exist."""
    client.execute_command("REPLICAOF", "127.0.0.1", "1")


def forbid_scripts(client: Any) -> None:
    """Remove the permission to run scripts."""
    client.execute_command("ACL", "SETUSER", "default", "-@scripting")


def require_replicas(client: Any) -> None:
    """Make the server refuse writes because it has no replica."""
    client.config_set("min-replicas-to-write", "1")


@pytest.mark.parametrize(
    ("break_server", "reason"),
    [
        (fill, "OutOfMemoryError"),
        (make_replica, "ReadOnlyError"),
        (forbid_scripts, "NoPermissionError"),
        (require_replicas, "ResponseError NOREPLICAS"),
    ],
)
async def test_an_error_reply_opens_the_circuit(tmp_path, break_server, reason):
    """The first error reply is logged with its kind, the worker is degraded, and the host keeps the limit."""
    with redis_server(tmp_path) as redis, capture_logs() as lines:
        async with (host := Host(redis.uri)).opened():
            client = Redis(port=redis.port)
            break_server(client)
            client.close()
            admitted = await host.send(LIMIT * 2)
            await until(lambda: True in host.states)
            admitted[0] += (await host.send(LIMIT))[0]

    assert [LIMIT] == admitted
    assert [False, True] == host.states
    assert [("rate_limit_storage_lost", reason)] == [
        (line["event"], line["reason"]) for line in lines if line["log_level"] == "warning"
    ]


async def test_the_circuit_stays_open_while_redis_refuses_to_write(tmp_path):
    """A probe writes like a request, so a server that only refuses writes does not close the circuit."""
    with redis_server(tmp_path) as redis:
        async with (host := Host(redis.uri)).opened():
            client = Redis(port=redis.port)
            fill(client)
            await until(lambda: host.states == [False, True])
            await asyncio.sleep(0.5)
            assert [False, True] == host.states
            client.config_set("maxmemory", "0")
            client.close()
            await until(lambda: host.states == [False, True, False])


async def test_a_database_number_in_a_cluster_is_reported(tmp_path):
    """A cluster has no database 1: the worker starts, is degraded and logs it."""
    with redis_cluster(tmp_path, 1) as cluster, capture_logs() as lines:
        async with AsyncExitStack() as stack:
            host = Host(cluster.uri.replace("/0", "/1"))
            await stack.enter_async_context(host.opened())
            assert [LIMIT] == await host.send(LIMIT * 2)

    assert [True] == host.states
    assert ["rate_limit_storage_lost"] == [line["event"] for line in lines if line["log_level"] == "warning"]


async def test_a_worker_is_degraded_while_any_cause_remains(tmp_path):
    """A Redis that answers does not hide that the counters of the host are not shared."""
    (tmp_path / "file").write_text("")
    with redis_server(tmp_path) as redis:
        async with (host := Host(redis.uri)).opened(tmp_path / "file" / "folder"):
            assert [LIMIT] == await host.send(LIMIT * 2)

    assert [True, True] == host.states
