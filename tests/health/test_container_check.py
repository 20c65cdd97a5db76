"""The health check of the image."""

import json
import re
import socket
import subprocess
import sys
import threading
from contextlib import closing
from http import HTTPStatus

import pytest

from app.errors import StartupError
from app.health import container_check
from app.settings import Settings
from tests.paths import ROOT

(CHECK,) = map(json.loads, re.findall(r"HEALTHCHECK .*\\\n\s+CMD (\[.*\])", (ROOT / "Dockerfile").read_text()))


@pytest.fixture
def listen():
    """Answers one request on the listening socket that it is given, and returns a function that reads the request."""
    threads: list[threading.Thread] = []

    def start(server: socket.socket, status: int = HTTPStatus.OK) -> list[bytes]:
        heads: list[bytes] = []

        def answer() -> None:
            with server, closing(server.accept()[0]) as connection:
                heads.append(connection.recv(4096))
                connection.sendall(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status)

        threads.append(threading.Thread(target=answer, daemon=True))
        threads[-1].start()
        return heads

    yield start
    for thread in threads:
        thread.join(5)


def check(**environment: str) -> subprocess.CompletedProcess[str]:
    """Run the check that the Dockerfile names with these variables."""
    return subprocess.run(
        [sys.executable, *CHECK[1:]], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("host", [None, "", "127.0.0.1", "0.0.0.0", "localhost", "::", "::1", "[::1]"])
def test_the_server_is_asked_where_it_listens(listen, host):
    """An unspecified address is asked at loopback; without HOST it is the default."""
    address = "::1" if host and ":" in host else "127.0.0.1"
    server = socket.create_server((address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET)
    heads = listen(server)

    done = check(PORT=str(server.getsockname()[1]), **({} if host is None else {"HOST": host}))

    assert 0 == done.returncode, done.stderr
    assert heads[0].startswith(b"GET /health HTTP/1.1\r\n")


def test_a_unix_socket_is_asked(listen, tmp_path):
    """HOST names the socket."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "s"))
    server.listen()
    heads = listen(server)

    assert 0 == check(HOST=f"unix:{tmp_path / 's'}").returncode
    assert heads[0].startswith(b"GET /health HTTP/1.1\r\n")


@pytest.mark.parametrize("variables", [{"HOST": "unix:/nowhere/s"}, {"PORT": "1"}, {"HOST": "nowhere.invalid"}])
def test_a_server_that_does_not_answer_is_unhealthy(variables):
    """One line says why."""
    done = check(**variables)

    assert 1 == done.returncode
    assert re.fullmatch(r"The server does not answer: .*\n", done.stderr)


def test_a_server_that_answers_otherwise_is_unhealthy(listen):
    """Anything but 200 counts as a failure."""
    server = socket.create_server(("127.0.0.1", 0))
    listen(server, HTTPStatus.INTERNAL_SERVER_ERROR)

    done = check(PORT=str(server.getsockname()[1]))

    assert (1, "The server answers 500.\n") == (done.returncode, done.stderr)


def test_the_defaults_are_those_of_the_settings():
    """An empty variable counts as not set, as it does for the service."""
    defaults = {name.upper(): str(Settings.model_fields[name].default) for name in ("host", "port")}

    assert defaults == container_check.DEFAULTS
    connection = container_check.connect({"HOST": "", "PORT": " "})
    assert ("127.0.0.1", 8000) == (connection.host, connection.port)


@pytest.mark.parametrize("port", ["8000", " 8000 ", "08000"])
def test_a_port_is_read_as_the_service_reads_it(port, monkeypatch):
    """A port that one of the two reads otherwise than the other would make a healthy server unhealthy."""
    monkeypatch.setenv("PORT", port)

    assert Settings.load(_env_file=None).port == container_check.connect({"PORT": port}).port == 8000


@pytest.mark.parametrize("port", ["8000.0", "8_000", "+8000", "\uff18000", "http"])
def test_a_port_that_the_check_might_read_otherwise_is_refused(port, monkeypatch):
    """The service does not start with it."""
    monkeypatch.setenv("PORT", port)

    with pytest.raises(StartupError, match=r"^PORT must be a whole number"):
        Settings.load(_env_file=None)
