"""PgBouncer of two versions before a cluster of the tests: Debian's 1.18, and 1.24 in the image of this bundle."""

import re
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from app.embedded_postgres.cluster import Cluster
from app.embedded_postgres.programs import account, identity
from tests.deploy.engine import Engine
from tests.paths import ROOT
from tests.processes.server import eventually, free_port
from tests.programs import find

INI = ROOT / "deploy" / "pgbouncer" / "pgbouncer.ini"

SERVER_CONNECTIONS = 3
"""So few that statements of one client meet several of them, and clients wait for each other."""


class Pooler:
    """PgBouncer with the settings of this bundle, apart from where it listens and how few connections it has."""

    def __init__(
        self, engine: Engine | None, cluster: Cluster, folder: Path, version: str, options: Mapping[str, str]
    ) -> None:
        parts = urlsplit(cluster.url)
        self._engine = engine
        self._sockets = parse_qs(parts.query)["host"][0]
        self._folder = folder
        self.version = version
        self.port = free_port()
        server_port = parse_qs(parts.query).get("port", [parts.port or 5432])[0]
        for place in (folder, folder / "secrets"):
            place.mkdir(exist_ok=True)
            place.chmod(0o755)
        (folder / "secrets" / "userlist.txt").write_text('"items_app" ""\n')
        (folder / "databases.ini").write_text(f"[databases]\n* = host={self._sockets} port={server_port}\n")
        changes = {
            "listen_addr": "127.0.0.1",
            "listen_port": str(self.port),
            "auth_type": "trust",
            "default_pool_size": str(SERVER_CONNECTIONS),
            "max_db_connections": str(SERVER_CONNECTIONS),
        }
        ini = INI.read_text()
        for name, value in changes.items():
            ini, count = re.subn(rf"^{name} = .*$", f"{name} = {value}", ini, flags=re.MULTILINE)
            assert 1 == count, name
        if version == "1.18":  # which does not know it
            ini = re.sub(r"^max_prepared_statements = .*\n", "", ini, flags=re.MULTILINE)
            ini = ini.replace("/etc/pgbouncer/", f"{folder}/")
        for name, value in options.items():
            ini = re.sub(rf"^{name} = .*\n", "", ini, flags=re.MULTILINE)
            ini = ini.replace("[pgbouncer]\n", f"[pgbouncer]\n{name} = {value}\n")
        (folder / "pgbouncer.ini").write_text(ini)

    def url(self, database_url: str) -> str:
        """Where PgBouncer has this database."""
        return f"postgresql://items_app@127.0.0.1:{self.port}{urlsplit(database_url).path}"

    def start(self) -> None:
        """Start it, and wait until it listens."""
        if self.version == "1.18":
            self._process = subprocess.Popen(
                [find("pgbouncer"), "--quiet", str(self._folder / "pgbouncer.ini")],
                stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", **identity(),
            )  # fmt: skip
        else:
            user = account()
            self._docker(
                "run", "--detach", "--name=pooler", "--network=host", f"--user={user.pw_uid if user else 0}",
                "--read-only", "--cap-drop=ALL", f"--volume={self._sockets}:{self._sockets}",
                f"--volume={self._folder}:/etc/pgbouncer:ro", "items-pgbouncer:1.24",
            )  # fmt: skip
        eventually(self._listens, seconds=20, what=f"PgBouncer {self.version} listens")

    def _listens(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        """End it at once."""
        if self.version == "1.18":
            self._process.kill()
            self._process.wait()
        else:
            self._docker("rm", "--force", "pooler")

    def _docker(self, *arguments: str) -> None:
        assert self._engine, f"PgBouncer {self.version} runs in a container"
        self._engine.docker(*arguments)


@contextmanager
def pooler(
    engine: Engine | None, cluster: Cluster, folder: Path, version: str, options: Mapping[str, str] | None = None
) -> Iterator[Pooler]:
    """A running PgBouncer.

    Args:
        engine: Runs version 1.24 in a container; 1.18 is a program of this machine.
        cluster: The server.
        folder: For its configuration.
        version: 1.18 or 1.24.
        options: Further lines of its configuration.
    """
    made = Pooler(engine, cluster, folder, version, options or {})
    made.start()
    try:
        yield made
    finally:
        made.kill()
