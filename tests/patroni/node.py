"""One PostgreSQL server under Patroni, with the configuration of deploy/patroni."""

import http.client
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.embedded_postgres.programs import find_binaries
from tests.paths import ROOT
from tests.patroni.processes import frozen_in, kill_in, own
from tests.patroni.program import Patroni

CONFIGURATION = ROOT / "deploy" / "patroni" / "patroni.yaml"

PASSWORD = "secret"
"""Of all roles."""


class Node:
    """A server. Those of one engine have different addresses and the same ports, as three machines have."""

    def __init__(self, program: Patroni, folder: Path, number: int, *, port: int, rest_port: int, etcd: str) -> None:
        self.name = f"postgresql-{number}"
        self.address = f"127.0.0.1{number}"
        self.port = port
        self.rest_port = rest_port
        self._program = program
        self._folder = folder / self.name
        self._configuration = folder / CONFIGURATION.name
        self._variables = {
            "PATRONI_NAME": self.name,
            "PATRONI_ETCD3_HOSTS": etcd,
            "PATRONI_RESTAPI_LISTEN": f"{self.address}:{rest_port}",
            "PATRONI_RESTAPI_CONNECT_ADDRESS": f"{self.address}:{rest_port}",
            "PATRONI_POSTGRESQL_LISTEN": f"{self.address}:{port}",
            "PATRONI_POSTGRESQL_CONNECT_ADDRESS": f"{self.address}:{port}",
            "PATRONI_POSTGRESQL_DATA_DIR": str(self._folder / "data"),
            "PATRONI_POSTGRESQL_BIN_DIR": str(find_binaries()),
            "PATRONI_SUPERUSER_USERNAME": "postgres",
            "PATRONI_SUPERUSER_PASSWORD": PASSWORD,
            "PATRONI_REPLICATION_USERNAME": "replicator",
            "PATRONI_REPLICATION_PASSWORD": PASSWORD,
        }
        self._folder.mkdir()
        own(self._folder)

    def start(self) -> None:
        """Start Patroni, which starts PostgreSQL."""
        self._program.start(self._configuration, self._variables, folder=self._folder)

    def kill(self) -> None:
        """End Patroni and PostgreSQL at once, as when the machine fails."""
        kill_in(self._folder)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Patroni and PostgreSQL stand still, and go on at the end of the block."""
        with frozen_in(self._folder):
            yield

    def control(self, *arguments: str) -> None:
        """Run `patronictl` on this server."""
        self._program.control(self._configuration, self._variables, *arguments)

    def get(self, path: str, *, seconds: float = 2) -> tuple[int, bytes]:
        """The status and the body that Patroni's REST interface answers. The status is 0 where there is no answer."""
        try:
            with urllib.request.urlopen(f"http://{self.address}:{self.rest_port}{path}", timeout=seconds) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, b""
        except (OSError, http.client.HTTPException):
            return 0, b""

    def leads(self) -> bool:
        """Whether it takes writes, as a balancer asks."""
        return self.get("/primary", seconds=0.5)[0] == 200

    def log(self) -> str:
        """The output of Patroni and PostgreSQL."""
        return (self._folder / "log").read_text(errors="replace")
