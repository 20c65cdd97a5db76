import re

import pytest

from app.errors import StartupError
from app.worker.configuration import check_configuration, check_socket, is_local

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


@pytest.mark.parametrize("change", [{"preload_app": True}, {"worker_class": "uvicorn_worker.UvicornWorker"}])
def test_a_file_that_the_service_cannot_run_with_is_refused(change):
    """The worker class and the start of the application in the worker must stay as they are."""
    with pytest.raises(StartupError, match=r"gunicorn\.conf\.py must set worker_class to app\.worker\.Worker"):
        check_configuration(FILE | change)


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
    """Another server may use the port meanwhile: only the address is checked."""
    check_socket(host)


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "::1%nothing"])
def test_an_address_of_another_machine_is_refused(host):
    """The sentence names the setting, before Gunicorn tries to listen."""
    with pytest.raises(StartupError, match=rf"^HOST {re.escape(host)} is no address of this machine \(.+\): set it to"):
        check_socket(host)
