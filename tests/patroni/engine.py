"""Three PostgreSQL servers under Patroni, with etcd and HAProxy."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg

from tests.patroni.node import CONFIGURATION, PASSWORD, Node
from tests.patroni.processes import folder_of_processes, own, start_in
from tests.patroni.program import Patroni
from tests.processes.server import eventually, free_port
from tests.programs import find

PROGRAMS = ("etcd", "haproxy", "postgresql")
"""What a test needs that uses the engine."""

_BALANCER = CONFIGURATION.with_name("haproxy.cfg")


class Engine:
    """The three servers, and the two ways to the one that takes writes."""

    def __init__(self, nodes: tuple[Node, ...], balancer_port: int) -> None:
        self.nodes = nodes
        self._balancer_port = balancer_port

    def url(self, database: str) -> str:
        """The URL that names all servers."""
        hosts = ",".join(f"{node.address}:{node.port}" for node in self.nodes)
        return f"postgresql://postgres:{PASSWORD}@{hosts}/{database}?target_session_attrs=read-write"

    def balanced_url(self, database: str) -> str:
        """The URL of HAProxy."""
        return f"postgresql://postgres:{PASSWORD}@127.0.0.1:{self._balancer_port}/{database}"

    @property
    def leader(self) -> Node:
        """The server that takes writes."""
        (leader,) = (node for node in self.nodes if node.leads())
        return leader

    def synchronous_standby(self) -> Node:
        """The server that commits wait for."""
        roles = self._roles()
        (standby,) = (node for node in self.nodes if roles.get(node.name) == "sync_standby")
        return standby

    def waits_for(self, standby: Node) -> bool:
        """Whether commits wait for this server."""
        return standby.name in asyncio.run(self._waited_for())

    async def _waited_for(self) -> str:
        connection = await asyncpg.connect(self.balanced_url("postgres"))
        try:
            return str(await connection.fetchval("SHOW synchronous_standby_names"))
        finally:
            await connection.close()

    def wait_until_whole(self, *, seconds: float = 120) -> None:
        """Wait until one server leads, the others follow it, and commits wait for one of them."""
        whole = ["leader", "replica", "sync_standby"]
        try:
            eventually(
                lambda: sorted(self._roles().values()) == whole, seconds=seconds, what="three servers", every=0.25
            )
        except AssertionError:
            print(self._roles(), *(f"\n{node.name}: {node.log()[-3_000:]}" for node in self.nodes))  # noqa: T201
            raise

    def _roles(self) -> dict[str, str]:
        """The roles of the servers that run and follow, by name, as the first one says that answers."""
        for node in self.nodes:
            status, body = node.get("/cluster")
            if status == 200:
                members = json.loads(body)["members"]
                return {m["name"]: m["role"] for m in members if m["state"] in {"running", "streaming"}}
        return {}


@contextmanager
def engine() -> Iterator[Engine]:
    """A running engine whose servers have no database but `postgres`."""
    with folder_of_processes() as folder:
        program = Patroni(folder / "packages")
        etcd = _start_etcd(folder / "etcd")
        (folder / CONFIGURATION.name).write_text(CONFIGURATION.read_text())
        port, rest_port, balancer_port = free_port(), free_port(), free_port()
        nodes = tuple(Node(program, folder, n, port=port, rest_port=rest_port, etcd=etcd) for n in (1, 2, 3))
        nodes[0].start()
        _start_balancer(folder / "haproxy", {":5000": f"127.0.0.1:{balancer_port}", "5432": port, "8008": rest_port})
        eventually(nodes[0].leads, seconds=60, what="a leader")
        for node in nodes[1:]:
            node.start()
        running = Engine(nodes, balancer_port)
        running.wait_until_whole()
        yield running


def _start_etcd(folder: Path) -> str:
    """Start one etcd, and return where it listens."""
    folder.mkdir()
    own(folder)
    client, peer = (f"127.0.0.1:{free_port()}" for _ in range(2))
    arguments = {
        "data-dir": "data",
        "listen-client-urls": f"http://{client}",
        "advertise-client-urls": f"http://{client}",
        "listen-peer-urls": f"http://{peer}",
        "initial-advertise-peer-urls": f"http://{peer}",
        "initial-cluster": f"default=http://{peer}",
    }
    start_in(folder, [find("etcd"), *(f"--{name}={value}" for name, value in arguments.items())])
    return client


def _start_balancer(folder: Path, ports: dict[str, object]) -> None:
    """Start HAProxy with the configuration of deploy/patroni, whose addresses and ports are replaced."""
    folder.mkdir()
    configuration = _BALANCER.read_text().replace("10.0.0.", "127.0.0.")
    for documented, used in ports.items():
        assert documented in configuration
        configuration = configuration.replace(documented, str(used))
    (folder / "haproxy.cfg").write_text(configuration)
    start_in(folder, [find("haproxy"), "-db", "-f", "haproxy.cfg"])
