"""HAProxy in front of several instances that are added and removed while it runs."""

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.processes.server import eventually, free_port
from tests.programs import find

_CONFIGURATION = """
global
    stats socket {folder}/control level admin

defaults
    mode http
    # A failed request is not retried: the client sees what the instances do.
    retries 0
    timeout connect 5s
    timeout client 60s
    timeout server 60s

frontend clients
    bind 127.0.0.1:{port}
    default_backend instances

backend instances
    balance roundrobin
    server-template instance 8 127.0.0.1:1 disabled
"""


class Balancer:
    """A running HAProxy. It starts without instances."""

    def __init__(self, port: int, control: Path) -> None:
        self.port = port
        self._control = control
        self._names: dict[int, str] = {}

    def add(self, port: int) -> None:
        """Start to send requests to this instance."""
        name = self._names[port] = f"instances/instance{len(self._names) + 1}"
        self._command(f"set server {name} addr 127.0.0.1 port {port}")
        self._command(f"set server {name} state ready")

    def remove(self, port: int) -> None:
        """Stop to send requests to this instance. Requests in flight finish."""
        self._command(f"set server {self._names[port]} state maint")

    def _command(self, command: str) -> None:
        with socket.socket(socket.AF_UNIX) as control:
            control.connect(str(self._control))
            control.sendall(f"{command}\n".encode())
            answer = control.recv(4096).decode().strip()
        assert not answer or "changed" in answer or "no need" in answer, answer


@contextmanager
def balancer(folder: Path) -> Iterator[Balancer]:
    """HAProxy on a free port of the loopback interface, until the end of the block."""
    port, control = free_port(), folder / "control"
    configuration = folder / "haproxy.cfg"
    configuration.write_text(_CONFIGURATION.format(folder=folder, port=port))
    process = subprocess.Popen([find("haproxy"), "-db", "-f", configuration], stdin=subprocess.DEVNULL)
    try:
        eventually(control.exists, seconds=10, what="HAProxy listens")
        time.sleep(0.1)
        yield Balancer(port, control)
    finally:
        process.kill()
        process.wait()
