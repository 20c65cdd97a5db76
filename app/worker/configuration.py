"""Check of Gunicorn's final configuration: gunicorn.conf.py, GUNICORN_CMD_ARGS and the command line."""

import errno
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from gunicorn.config import Config, Setting

from app.errors import StartupError
from app.worker.worker import Worker

_ALLOWED: Final = frozenset(
    {"backlog", "chdir", "check_config", "config", "pidfile", "print_config", "proc_name", "pythonpath", "umask"}
)
"""Gunicorn's options that work with this service. All others are refused: they would have no effect, or would
bypass what gunicorn.conf.py computes."""

_INHERITED_SOCKETS: Final = {"LISTEN_FDS", "GUNICORN_FD"}
"""With one of these variables Gunicorn takes sockets that are open already, as those of systemd."""

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


def working_folder() -> Path:
    """The folder in which the workers run: that of `--chdir`, else the current one.

    Gunicorn changes to it after it has read gunicorn.conf.py. That file reads the settings in this folder, so that
    `.env` and relative paths are the same files for the master, its workers and their reloads.

    Raises:
        StartupError: There is no such folder, or the current one has a `.env`, which would not be read.
    """
    folder = Path.cwd()
    for options in _given_options(Config()):
        folder = Path.cwd() / (options["chdir"] or folder)
    if not folder.is_dir():
        raise StartupError(f"Gunicorn's option --chdir names no folder that exists: {folder}.")
    if os.path.lexists(".env") and Path(".env").resolve() != (folder / ".env").resolve():
        raise StartupError(
            f"With Gunicorn's option --chdir, {folder}/.env is read, and {Path.cwd()}/.env is not: "
            "move its lines there, or start in another folder."
        )
    return folder


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
    _apply(configured, values)
    for source in (values, *_given_options(final)):
        _apply(final, source)
    for name, setting in final.settings.items():
        if name not in _ALLOWED and setting.get() != configured.settings[name].get():
            raise StartupError(_refusal(name, setting))
    if final.preload_app or "chdir" in values or not issubclass(final.worker_class, Worker):
        raise StartupError(
            "gunicorn.conf.py must set worker_class to app.worker.Worker, and leave preload_app and chdir out."
        )


def is_local(host: str) -> bool:
    """Whether only this machine can connect to HOST."""
    if host == "localhost" or host.startswith("unix:"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:  # another name
        return False


def check_socket(host: str, ports: Mapping[str, int | None]) -> None:
    """Refuse a HOST and ports that Gunicorn cannot listen on, or a Unix socket that it would take away from a server.

    Args:
        host: HOST.
        ports: PORT and OPS_PORT by their names; one that is None is not used.

    Raises:
        StartupError: HOST is no address of this machine, a port is in use or not permitted, a connection to the
            Unix socket succeeds, or its folder cannot be written.
    """
    path = host.removeprefix("unix:")
    if path == host:
        _check_address(host)
        if not os.environ.keys() & _INHERITED_SOCKETS:
            for name, port in ports.items():
                if port is not None:
                    _check_port(host, name, port)
        return
    if not os.environ.keys() & _INHERITED_SOCKETS and not os.access(Path(path).parent, os.W_OK | os.X_OK):
        raise StartupError(
            f"HOST {host} is in a folder in which this process may not create files: "
            "give it write access, or choose another path."
        )
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


def _check_port(host: str, name: str, port: int) -> None:
    """Gunicorn would try for five seconds, and the process that uses the port rarely ends in that time."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Gunicorn does
            listener.bind((host, port))
            listener.listen(1)
    except PermissionError:
        raise StartupError(
            f"{name} {port} needs a privilege that this process lacks: write a number from 1024 to 65535."
        ) from None
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise StartupError(
            f"{name} {port} of HOST {host} is used by another program: stop that program, or write another {name}."
        ) from None


def _given_options(config: Config) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of GUNICORN_CMD_ARGS and those of the command line, which take precedence. Missing ones are None."""
    parser = config.parser()
    return vars(parser.parse_args(config.get_cmd_args_from_env())), vars(parser.parse_args())


def _apply(config: Config, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if name in config.settings and value is not None:
            config.set(name, value)


def _refusal(name: str, setting: Setting) -> str:
    option = setting.cli[-1] if setting.cli else name
    replacement = _REPLACEMENTS.get(name)
    advice = f"set {replacement} instead" if replacement else "remove it from the command line and GUNICORN_CMD_ARGS"
    return f"Gunicorn's option {option} is not supported by this service: {advice}."
