"""A Redis cluster of the system's package, on the loopback interface."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from redis import Redis

from tests.redis_server import RedisServer, free_port, redis_server

SLOTS = 16_384


class RedisCluster:
    """Primary nodes, each with an equal part of the hash slots, and perhaps a replica of the last one."""

    def __init__(self, nodes: list[RedisServer], bus_port: int, *, replica: bool) -> None:
        self.nodes = nodes
        primaries = len(nodes) - replica
        clients = [Redis(port=node.port) for node in nodes]
        for number, client in enumerate(clients):
            if number < primaries:
                _call(client, "CLUSTER ADDSLOTSRANGE", *_slot_range(number, primaries))
            _call(client, "CLUSTER MEET", "127.0.0.1", nodes[0].port, bus_port)
        for client in clients:
            _wait_until_ready(client, len(nodes))
        if replica:
            _call(clients[-1], "CLUSTER REPLICATE", _call(clients[-2], "CLUSTER MYID").decode())
            _wait_until_replicating(clients[-1])
        for client in clients:
            client.close()

    @property
    def uri(self) -> str:
        """A URL that names one node of the cluster."""
        return self.nodes[0].uri

    def keys(self) -> set[bytes]:
        """The keys of all nodes."""
        found: set[bytes] = set()
        for node in self.nodes:
            client = Redis(port=node.port)
            found.update(_call(client, "KEYS", "*"))
            client.close()
        return found


def _call(client: Any, *command: object) -> Any:
    return client.execute_command(*command)


def _slot_range(number: int, nodes: int) -> tuple[int, int]:
    return SLOTS * number // nodes, SLOTS * (number + 1) // nodes - 1


def _wait_until_ready(client: Any, nodes: int) -> None:
    for _ in range(500):
        info = _call(client, "CLUSTER INFO")
        if info["cluster_state"] == "ok" and int(info["cluster_known_nodes"]) == nodes:
            return
        time.sleep(0.02)
    raise TimeoutError("the Redis cluster did not become ready")


def _wait_until_replicating(client: Any) -> None:
    for _ in range(500):
        if client.info("replication").get("master_link_status") == "up":
            return
        time.sleep(0.02)
    raise TimeoutError("the replica did not connect to its primary")


@contextmanager
def redis_cluster(folder: Path, nodes: int, *, replica: bool = False) -> Iterator[RedisCluster]:
    """A running cluster, killed in the end."""
    with ExitStack() as stack:
        servers = []
        bus_ports = [free_port() for _ in range(nodes + replica)]
        for number, bus_port in enumerate(bus_ports):
            (node_folder := folder / f"node{number}").mkdir()
            options = ["--cluster-enabled", "yes", "--cluster-port", str(bus_port), "--cluster-node-timeout", "1000"]
            servers.append(stack.enter_context(redis_server(node_folder, options=options)))
        yield RedisCluster(servers, bus_ports[0], replica=replica)
