"""Check of Gunicorn's final configuration: gunicorn.conf.py, GUNICORN_CMD_ARGS and the command line."""

import socket
from collections.abc import Mapping
from contextlib import suppress
from ipaddress import ip_address
from typing import Any, Final

from gunicorn.config import Config, Setting

from app.errors import StartupError
from app.worker.worker import Worker

_ALLOWED: Final = frozenset(
    {"backlog", "chdir", "check_config", "config", "pidfile", "print_config", "proc_name", "pythonpath", "umask"}
)
"""Gunicorn's options that work with this service. All others are refused: they would have no effect, or would
bypass what gunicorn.conf.py computes."""

_REPLACEMENTS: Final = {
    "bind": "HOST and PORT",
    "forwarded_allow_ips": "FORWARDED_ALLOW_IPS",
    "graceful_timeout": "GRACEFUL_SECONDS",
    "keepalive": "KEEP_ALIVE_SECONDS",
    "loglevel": "LOG_LEVEL",
    "max_requests": "MAX_REQUESTS",
    "max_requests_jitter": "MAX_REQUESTS_JITTER",
    "raw_env": "the variables in the environment",
    "timeout": "WORKER_TIMEOUT_SECONDS",
    "workers": "WEB_CONCURRENCY",
}
"""What to set in place of an option of Gunicorn."""


def check_configuration(values: Mapping[str, Any]) -> None:
    """Refuse options that contradict gunicorn.conf.py or do not work with this service.

    gunicorn.conf.py calls this at its end. Gunicorn reads that file for a start,
    for a reload and for `--check-config`, and calls no hook in all three cases
    after it has read the command line. So the command line is read here too.

    Args:
        values: What gunicorn.conf.py sets, by name.

    Raises:
        StartupError: An option of the command line or of GUNICORN_CMD_ARGS is refused.
    """
    configured, final = Config(), Config()
    parser = final.parser()
    _apply(configured, values)
    for source in (values, vars(parser.parse_args(final.get_cmd_args_from_env())), vars(parser.parse_args())):
        _apply(final, source)
    for name, setting in final.settings.items():
        if name not in _ALLOWED and setting.get() != configured.settings[name].get():
            raise StartupError(_refusal(name, setting))
    if final.preload_app or not issubclass(final.worker_class, Worker):
        raise StartupError("gunicorn.conf.py must set worker_class to app.worker.Worker, and leave preload_app out.")


def is_local(host: str) -> bool:
    """Whether only this machine can connect to HOST."""
    if host == "localhost" or host.startswith("unix:"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:  # another name
        return False


def check_socket(host: str) -> None:
    """Refuse a HOST that Gunicorn cannot listen on, or whose Unix socket it would take away from another server.

    Raises:
        StartupError: It is no address of this machine, or a connection to the Unix socket succeeds.
    """
    path = host.removeprefix("unix:")
    if path == host:
        _check_address(host)
        return
    with socket.socket(socket.AF_UNIX) as client, suppress(OSError):
        client.connect(path)
        raise StartupError(f"HOST {host} is used by another running server: stop it, or give HOST another path.")


def _check_address(host: str) -> None:
    """Gunicorn would try for five seconds, and its messages do not name the setting."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
            listener.bind((host, 0))
    except OSError as error:
        raise StartupError(
            f"HOST {host} is no address of this machine ({error.strerror}): set it to one of them, "
            "or to 0.0.0.0 to listen on all."
        ) from None


def _apply(config: Config, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if name in config.settings and value is not None:
            config.set(name, value)


def _refusal(name: str, setting: Setting) -> str:
    option = setting.cli[-1] if setting.cli else name
    replacement = _REPLACEMENTS.get(name)
    advice = f"set {replacement} instead" if replacement else "remove it from the command line and GUNICORN_CMD_ARGS"
    return f"Gunicorn's option {option} is not supported by this service: {advice}."
