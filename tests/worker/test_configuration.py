import os
import re
import socket

import pytest

from app.errors import StartupError
from app.worker.configuration import check_configuration, check_socket, is_local, working_folder

FILE = {"worker_class": "app.worker.Worker", "workers": 2, "bind": ["127.0.0.1:8000"], "not_a_setting": 1}


@pytest.fixture(autouse=True)
def _arguments(monkeypatch):
    """The options of the tests' own command line are not Gunicorn's."""
    monkeypatch.setattr("sys.argv", ["gunicorn"])


@pytest.fixture(params=["command line", "GUNICORN_CMD_ARGS"])
def options(request, monkeypatch):
    """A function that sets Gunicorn's options."""

    def set_options(text):
        if request.param == "command line":
            monkeypatch.setattr("sys.argv", ["gunicorn", *text.split()])
        else:
            monkeypatch.setenv("GUNICORN_CMD_ARGS", text)

    return set_options


def test_the_file_alone_is_accepted():
    """A configuration without further options is what gunicorn.conf.py computes."""
    check_configuration(FILE)


@pytest.mark.parametrize(
    "text",
    ["-w 2", "--bind 127.0.0.1:8000", "-k app.worker.Worker", "--pid /tmp/pid", "--check-config", "--threads 1", "a:b"],
)
def test_an_option_that_changes_nothing_or_works_here_is_accepted(options, text):
    """An option may repeat the value of the file."""
    options(text)

    check_configuration(FILE)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("-w 8", "--workers is not supported by this service: set WEB_CONCURRENCY instead"),
        ("-b 0.0.0.0:80", "--bind is not supported by this service: set HOST and PORT instead"),
        ("-e A=b", "--env is not supported by this service: set the variables in the environment instead"),
        ("-t 5", "--timeout is not supported by this service: set WORKER_TIMEOUT_SECONDS instead"),
        ("-k uvicorn.workers.UvicornWorker", "--worker-class is not supported by this service: remove it"),
        ("--preload", "--preload is not supported by this service: remove it"),
        ("--threads 4", "--threads is not supported by this service: remove it"),
        ("--reuse-port", "--reuse-port is not supported by this service: remove it"),
        ("--statsd-host localhost:8125", "--statsd-host is not supported by this service: remove it"),
        ("--certfile /dev/null", "--certfile is not supported by this service: remove it"),
        ("--reload", "--reload is not supported by this service: remove it"),
    ],
)
def test_an_option_that_would_bypass_the_file_is_refused(options, text, message):
    """The sentence names the option, and says what to do."""
    options(text)

    with pytest.raises(StartupError, match=message):
        check_configuration(FILE)


@pytest.mark.parametrize(
    "change", [{"preload_app": True}, {"chdir": "/"}, {"worker_class": "uvicorn_worker.UvicornWorker"}]
)
def test_a_file_that_the_service_cannot_run_with_is_refused(change):
    """The worker class and the start of the application in the worker must stay as they are."""
    with pytest.raises(StartupError, match=r"gunicorn\.conf\.py must set worker_class to app\.worker\.Worker"):
        check_configuration(FILE | change)


@pytest.mark.parametrize(
    ("text", "name"), [("", "start"), ("--chdir {}/other", "other"), ("--chdir ../other", "other")]
)
def test_settings_are_read_in_the_folder_of_the_workers(options, monkeypatch, tmp_path, text, name):
    """It is that of `--chdir`, which may be relative, else the current one. One `.env` is read, wherever it is."""
    for folder in ("start", "other"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "start")
    options(text.format(tmp_path))

    assert tmp_path / name == working_folder().resolve()
    (tmp_path / name / ".env").touch()
    assert tmp_path / name == working_folder().resolve()


def test_the_command_line_takes_precedence_for_the_folder(monkeypatch, tmp_path):
    """As it does for Gunicorn."""
    monkeypatch.setenv("GUNICORN_CMD_ARGS", "--chdir /")
    monkeypatch.setattr("sys.argv", ["gunicorn", "--chdir", str(tmp_path)])

    assert tmp_path == working_folder()


def test_a_dot_env_file_that_would_not_be_read_is_refused(options, monkeypatch, tmp_path):
    """Its settings, such as AUTH_ISSUER, would have no effect. A link to the file that is read is accepted."""
    (tmp_path / "other").mkdir()
    (tmp_path / ".env").touch()
    monkeypatch.chdir(tmp_path)
    options(f"--chdir {tmp_path}/other")

    with pytest.raises(
        StartupError, match=rf"{tmp_path}/other/\.env is read, and {tmp_path}/\.env is not: move its lines"
    ):
        working_folder()

    (tmp_path / "other" / ".env").symlink_to("../.env")
    assert tmp_path / "other" == working_folder()


def test_a_folder_that_does_not_exist_is_refused(options):
    """The sentence names the option."""
    options("--chdir /nowhere")

    with pytest.raises(StartupError, match=r"^Gunicorn's option --chdir names no folder that exists: /nowhere\.$"):
        working_folder()


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True), ("127.1.2.3", True), ("::1", True), ("localhost", True), ("unix:/run/x.sock", True),
        ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("service.example", False),
    ],
)  # fmt: skip
def test_only_loopback_and_unix_sockets_are_local(host, local):
    """Another machine can connect to every other HOST."""
    assert local is is_local(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_an_address_of_this_machine_is_accepted(host):
    """Without ports only the address is checked."""
    check_socket(host, {})


@pytest.mark.parametrize("name", ["PORT", "OPS_PORT"])
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost"])
def test_a_port_in_use_is_refused(host, name):
    """The sentence names the setting, the port and the host. When the port is free again it is accepted."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            StartupError, match=rf"^{name} {port} of HOST {re.escape(host)} is used by another program: "
        ):
            check_socket(host, {"UNUSED": None, name: port})
    check_socket(host, {name: port})


def test_a_port_that_other_connections_have_used_is_accepted():
    """Connections that are about to end, as after a restart, do not count as another program."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            server.accept()[0].close()  # the side that closes first waits
    check_socket("127.0.0.1", {"PORT": port})


def test_sockets_that_are_inherited_are_not_checked(monkeypatch):
    """Under systemd's socket activation the port is in use by the socket that Gunicorn takes."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("LISTEN_FDS", "1")
        check_socket("127.0.0.1", {"PORT": taken.getsockname()[1]})


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "::1%nothing"])
def test_an_address_of_another_machine_is_refused(host):
    """The sentence names the setting, before Gunicorn tries to listen."""
    with pytest.raises(StartupError, match=rf"^HOST {re.escape(host)} is no address of this machine \(.+\): set it to"):
        check_socket(host, {})


def test_a_socket_in_a_closed_folder_is_refused(monkeypatch, tmp_path):
    """Gunicorn would try for five seconds. Not where the socket is inherited, as from systemd."""
    monkeypatch.setattr(os, "access", lambda path, _: path != tmp_path)
    host = f"unix:{tmp_path}/service.sock"

    with pytest.raises(StartupError, match=f"^HOST {host} is in a folder in which this process may not create files: "):
        check_socket(host, {})
    monkeypatch.setenv("LISTEN_FDS", "1")
    check_socket(host, {})
