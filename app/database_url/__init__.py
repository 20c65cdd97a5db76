"""The address of a PostgreSQL, read by one parser for all who connect to it."""

import os
import pwd
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any, Final

from app.database_url.parameters import choice, read_parameters
from app.database_url.redaction import redacted
from app.database_url.tls import DatabaseTls
from app.database_url.uri import ESCAPES, FORM

_DEFAULT_HOSTS: Final = "/var/run/postgresql,/tmp,localhost"  # nosec  # the folders of PostgreSQL's sockets
_DEFAULT_PORT: Final = 5432
_LARGEST_PORT: Final = 65_535
_LONGEST_CONNECT_SECONDS: Final = 60

_HOST_NAME: Final = re.compile(r"[\w.-]+")

_CHANNEL_BINDINGS: Final = ("prefer", "disable", "require")

_SESSION_ATTRIBUTES: Final = ("any", "read-write", "read-only", "primary", "standby", "prefer-standby")

WRITING: Final = ("read-write", "primary")
"""The kinds of servers that take writes, as `target_session_attrs` says them."""

MOST_REPLICAS: Final = 3
"""The most hosts that a URL of replicas may name. Each has its own connections and its own series in the metrics."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseHost:
    """One of the servers that a URL names."""

    name: str
    """A name, an address, or the folder of a Unix socket."""

    port: int

    @property
    def is_socket(self) -> bool:
        """Whether it is reached by a Unix socket."""
        return self.name.startswith("/")


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseUrl:
    """What a URL says. No part of it is shown when it is printed."""

    hosts: tuple[DatabaseHost, ...] = field(repr=False)
    user: str = field(repr=False)
    password: str = field(repr=False)
    password_file: Path | None = field(repr=False)
    """Searched for the password of a host where the URL has none."""

    database: str = field(repr=False)
    tls: DatabaseTls = field(repr=False)
    server_settings: Mapping[str, str] = field(repr=False)
    """What PostgreSQL sets for each connection: `application_name` and `options`."""

    session_attributes: str = field(repr=False)
    """The kind of server that is wanted, as `target_session_attrs` says it. Of several hosts one that takes writes,
    where the URL does not say it."""

    is_balanced: bool = field(repr=False)
    """Whether the hosts are tried in a random order."""

    connect_seconds: float | None = field(repr=False)
    """How long connecting to one host may take, where the URL says it."""

    @classmethod
    def parse(cls, text: str, environment: Mapping[str, str] = os.environ) -> "DatabaseUrl":
        """Read a URL. What it leaves out comes from libpq's variables, as PGPASSWORD, or is libpq's default.

        Raises:
            ValueError: It cannot work. The message goes on from the setting's name, and repeats no part of the URL.
        """
        parameters = read_parameters(text, environment)
        user = parameters.get("user") or _process_user()
        tls = DatabaseTls.from_parameters(parameters)
        binding = choice(parameters, "channel_binding", *_CHANNEL_BINDINGS)
        if binding == "require" and tls.mode != "verify-full":
            raise ValueError(
                "must not have channel_binding=require, which the driver cannot do: leave it out, "
                "or authenticate the server with sslmode=verify-full and sslrootcert"
            )
        connect_timeout = parameters.get("connect_timeout", "0")
        if not re.fullmatch(r"-?\d{1,9}", connect_timeout):
            raise ValueError("must have a number of seconds as the value of connect_timeout")
        return cls(
            hosts=tuple(_hosts(parameters.get("host", _DEFAULT_HOSTS), parameters.get("port", ""))),
            user=user,
            password=parameters.get("password", ""),
            password_file=_password_file(parameters),
            database=parameters.get("dbname", user),
            tls=tls,
            server_settings={n: parameters[n] for n in ("application_name", "options") if n in parameters},
            session_attributes=_session_attributes(parameters),
            is_balanced=choice(parameters, "load_balance_hosts", "disable", "random") == "random",
            connect_seconds=min(int(connect_timeout), _LONGEST_CONNECT_SECONDS) if int(connect_timeout) > 0 else None,
        )

    @classmethod
    def parse_replicas(cls, text: str, environment: Mapping[str, str] = os.environ) -> "DatabaseUrl":
        """Read a URL whose hosts are replicas, each a server of its own.

        Raises:
            ValueError: As `parse` does.
        """
        url = cls.parse(text, environment)
        wanted = read_parameters(text, environment).get("target_session_attrs", "any")
        if wanted in WRITING:
            raise ValueError(f"must not have target_session_attrs={wanted}: replicas take no writes, so leave it out")
        if len(set(url.hosts)) < len(url.hosts):
            raise ValueError("must name each host once")
        if len(url.hosts) > MOST_REPLICAS:
            raise ValueError(f"must have at most {MOST_REPLICAS} hosts")
        return replace(url, session_attributes="any")

    @property
    def has_options(self) -> bool:
        """Whether PostgreSQL is told `options` for each connection."""
        return "options" in self.server_settings

    def attempts(self) -> Iterator[tuple[DatabaseHost, str]]:
        """The hosts in the order to try them, each with the kind of server that it has to be."""
        hosts = random.sample(self.hosts, len(self.hosts)) if self.is_balanced else self.hosts  # nosec B311
        passes = ("standby", "any") if self.session_attributes == "prefer-standby" else (self.session_attributes,)
        return ((host, attributes) for attributes in passes for host in hosts)

    def redact(self, message: str) -> str:
        """The message of a server, the driver or the system as it may be shown: without parts of this URL."""
        settings = self.server_settings.values()
        names = (self.user, self.password, self.database, self.tls.key_password, *settings, *" ".join(settings).split())
        return redacted(message, names=names, hosts=[(host.name, host.port) for host in self.hosts])

    def arguments(self, host: DatabaseHost) -> dict[str, Any]:
        """The arguments of `asyncpg.connect` for this host, without those of TLS. They leave it nothing to look up."""
        return {
            "host": host.name,
            "port": host.port,
            "user": self.user,
            # asyncpg takes an empty password for none, and for None it looks below the home directory.
            "password": None if self.password_file else self.password,
            "passfile": self.password_file,
            "database": self.database,
            "server_settings": dict(self.server_settings),
        }


def _hosts(names: str, ports: str) -> Iterator[DatabaseHost]:
    hosts = names.split(",")
    numbers = ports.split(",")
    if len(numbers) == 1:
        numbers *= len(hosts)
    if len(numbers) != len(hosts):
        raise ValueError("must have one port for all hosts, or as many ports as hosts")
    for name, number in zip(hosts, numbers, strict=True):
        if not _is_host(name):
            raise ValueError(ESCAPES)
        if number and not (re.fullmatch(r"\d{1,5}", number, re.ASCII) and 1 <= int(number) <= _LARGEST_PORT):
            raise ValueError(ESCAPES)
        yield DatabaseHost(name=name, port=int(number or _DEFAULT_PORT))


def _session_attributes(parameters: Mapping[str, str]) -> str:
    wanted = choice(parameters, "target_session_attrs", *_SESSION_ATTRIBUTES)
    has_several_hosts = "," in parameters.get("host", "")
    return "read-write" if has_several_hosts and "target_session_attrs" not in parameters else wanted


def _is_host(name: str) -> bool:
    if name.startswith("/") or _HOST_NAME.fullmatch(name):
        return True
    try:
        return bool(IPv6Address(name))
    except ValueError:
        return False


def _process_user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        raise ValueError(f"{FORM} with a user: the user id of this process has no name to take instead") from None


def _password_file(parameters: Mapping[str, str]) -> Path | None:
    """The file of passwords that applies, where the password is not given."""
    if "password" in parameters:
        return None
    if "passfile" in parameters:
        file = Path(parameters["passfile"])
        if not os.access(file, os.R_OK) or file.stat().st_mode & 0o077:
            raise ValueError("must name a file that this process and nobody else can read in its parameter passfile")
        return file
    try:
        file = Path("~/.pgpass").expanduser()
    except RuntimeError:  # neither HOME nor an entry of the user in the system's list
        return None
    return file if os.access(file, os.R_OK) else None
