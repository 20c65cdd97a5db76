"""A Redis server of the system's package, for the tests that stop, freeze or kill it."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.programs import find


class RedisServer:
    """A server on a free port of the loopback interface."""

    def __init__(self, folder: Path, password: str = "", options: Sequence[str] = ()) -> None:
        binary = find("redis-server")
        self.port = free_port()
        self._command = [binary, "--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--dir", str(folder)]
        self._command += ["--requirepass", password] if password else []
        self._command += options
        self.password = password
        self.start()

    @property
    def uri(self) -> str:
        """Where the server is, with its password."""
        return f"redis://{f':{self.password}@' if self.password else ''}127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        for _ in range(500):
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.01)
        raise TimeoutError("redis-server did not start")

    def freeze(self) -> None:
        """Stop its process: the system still accepts connections, and no answer comes."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let the process continue."""
        os.kill(self._process.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()


def free_port() -> int:
    """A port of the loopback interface that no server uses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextmanager
def redis_server(folder: Path, password: str = "", options: Sequence[str] = ()) -> Iterator[RedisServer]:
    """A running server, killed at the end."""
    server = RedisServer(folder, password, options)
    try:
        yield server
    finally:
        server.kill()
