"""Everything an operator may change, read once from the environment."""

import re
import sys
from enum import StrEnum
from functools import cached_property
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from limits import parse_many
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.cpus import available_cpus
from app.errors import StartupError

_SECRETS = {"database_url", "migration_database_url", "rate_limit_storage_uri"}
"""What may stand in a file instead, named by the variable with `_FILE` behind its name."""

_DATABASE_SCHEMES = {"postgresql", "postgres", "postgresql+asyncpg"}

Seconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]
Port = Annotated[int, Field(ge=1, le=65535)]
List = Annotated[tuple[str, ...], NoDecode]
"""Several values in one variable, separated by commas."""


class LogFormat(StrEnum):
    """How a log line is written."""

    JSON = "json"
    CONSOLE = "console"


class LogLevel(StrEnum):
    """The least severe line that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class DatabasePooler(StrEnum):
    """What stands between this service and PostgreSQL."""

    NONE = "none"

    PGBOUNCER = "pgbouncer"
    """PgBouncer of any version. Each statement is parsed anew, which takes a second round trip."""

    PGBOUNCER_PREPARED = "pgbouncer-prepared"
    """PgBouncer 1.21 or newer with `max_prepared_statements` of at least 100."""


class Settings(BaseSettings):
    """Everything an operator may change. Each field is read from the environment variable of its name."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_ignore_empty=True,
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )

    database_url: SecretStr | None = None
    """Where PostgreSQL is: `postgresql://user:password@host:5432/name`. In development, when
    it is not set, a private embedded PostgreSQL is started."""

    database_url_file: Path | None = None
    """A file that holds DATABASE_URL, such as a mounted secret."""

    database_connections: Annotated[int, Field(ge=1, le=10_000)] = 20
    """Connections one instance may hold, all of its workers together, during a reload too."""

    database_wait_seconds: Seconds = 1.0
    """How long a request waits for a free connection before it is answered 503."""

    database_statement_seconds: Seconds = 5.0
    """How long a statement may run before its request is answered 504."""

    database_pooler: DatabasePooler = DatabasePooler.NONE
    """`pgbouncer` when the URL leads to one in transaction mode; `pgbouncer-prepared` when that
    one is of version 1.21 or newer and has `max_prepared_statements` set to 100 or more."""

    migration_database_url: SecretStr | None = None
    """Where `alembic` finds PostgreSQL itself, as the role that owns the tables; by default DATABASE_URL."""

    migration_database_url_file: Path | None = None
    """A file that holds MIGRATION_DATABASE_URL, such as a mounted secret."""

    migration_lock_seconds: Seconds = 2.0
    """How long a migration waits for a lock before it lets the requests behind it pass and tries again."""

    migration_wait_seconds: Seconds = 60.0
    """How long a migration waits for locks in all before it gives up and names who is in its way."""

    migration_statement_seconds: Seconds = 5.0
    """How long one statement of a migration may run. Indexes that are made concurrently take the time they need."""

    instances: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Instances of this service that share the database; only the connection budget's check uses it."""

    web_concurrency: Annotated[int, Field(ge=1, le=256)] = Field(default_factory=available_cpus)
    """Worker processes. By default as many as the CPUs that the cgroup allows."""

    host: str = "127.0.0.1"
    """The address to listen at."""

    port: Port = 8000
    """The port to listen at."""

    ops_port: Port | None = None
    """When set, `/metrics` and `/health/ready` answer at this port only, and of the rest only `/health` does."""

    log_level: LogLevel = LogLevel.INFO
    """The least severe line that is written."""

    log_format: LogFormat = Field(default_factory=lambda: LogFormat.CONSOLE if sys.stdout.isatty() else LogFormat.JSON)
    """`json`, or `console` for people; by default `console` on a terminal."""

    rate_limit_read: str = "6000/minute"
    """Reading requests one client may send."""

    rate_limit_write: str = "600/minute"
    """Writing requests one client may send."""

    rate_limit_storage_uri: SecretStr | None = None
    """`redis://…` to count across hosts. By default the host's shared memory counts, across its workers."""

    rate_limit_storage_uri_file: Path | None = None
    """A file that holds RATE_LIMIT_STORAGE_URI, such as a mounted secret."""

    rate_limit_enabled: bool = True
    """Whether clients are limited at all."""

    forwarded_allow_ips: List = ("127.0.0.1",)
    """Addresses and networks of proxies whose `X-Forwarded-For` is believed. `*` believes everybody,
    and lets clients choose the address that they are limited by."""

    cors_allow_origins: List = ()
    """Origins whose pages may call this service from a browser."""

    allowed_hosts: List = ("*",)
    """Host names that are served; `*.example.com` stands for all below it, `*` for any."""

    max_body_bytes: Annotated[int, Field(ge=1, le=100 * 1024 * 1024)] = 65_536
    """The longest body that is read; past it the answer is 413."""

    request_receive_seconds: Seconds = 10.0
    """A request must have arrived within this time, and a new connection have begun one."""

    keep_alive_seconds: Seconds = 75.0
    """How long an idle connection is kept. Longer than that of the load balancer in front, so that it closes first."""

    graceful_seconds: Seconds = 25.0
    """How long requests in flight may take to end while draining. With the time of a `preStop`
    hook and five seconds more it must fit into Kubernetes' `terminationGracePeriodSeconds`."""

    worker_timeout_seconds: Annotated[int, Field(ge=2, le=3600)] = 30
    """A worker that has been silent for longer is replaced."""

    max_requests: Annotated[int, Field(ge=0)] = 0
    """Requests after which a worker is replaced by a fresh one; 0 never."""

    max_requests_jitter: Annotated[int, Field(ge=0)] = 0
    """At most this many more requests, drawn by each worker, so that they are not replaced together."""

    metrics_directory: str | None = None
    """Where the workers share their metrics. By default a fresh folder in shared memory."""

    build_version: str | None = None
    """What this build is called, in the metrics and the log. The image sets it."""

    build_revision: str | None = None
    """The revision of the source that this was built from. The image sets it."""

    @classmethod
    def load(cls, **values: Any) -> Self:
        """Read the environment.

        Raises:
            StartupError: A setting is malformed, or contradicts another one.
        """
        try:
            return cls(**values)
        except ValidationError as error:
            raise StartupError(" ".join(_sentence(e) for e in error.errors(include_url=False))) from None

    @model_validator(mode="before")
    @classmethod
    def _read_secrets(cls, values: dict[str, Any]) -> dict[str, Any]:
        for name in _SECRETS & values.keys():
            if f"{name}_file" in values:
                raise ValueError(f"{name.upper()} and {name.upper()}_FILE must not both be set.")
        return values | {
            name: _content(values[f"{name}_file"], f"{name}_file") for name in _SECRETS if f"{name}_file" in values
        }

    @field_validator("forwarded_allow_ips", "cors_allow_origins", "allowed_hosts", mode="before")
    @classmethod
    def _split_list(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("forwarded_allow_ips")
    @classmethod
    def _check_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            try:
                _ = network == "*" or ip_network(network)
            except ValueError:
                raise ValueError("must be addresses or networks like 10.0.0.0/8, separated by commas") from None
        return value

    @field_validator("log_level", "log_format", "database_pooler", mode="before")
    @classmethod
    def _lower_case(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value

    @field_validator("database_url", "migration_database_url")
    @classmethod
    def _check_database_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        try:
            parts = urlsplit(value.get_secret_value())
            for host in parts.netloc.rpartition("@")[2].split(","):
                _ = urlsplit(f"//{host}").port  # raises where it is none
        except ValueError:
            parts = urlsplit("")
        if parts.scheme not in _DATABASE_SCHEMES:
            raise ValueError("must be a URL like postgresql://user:password@host:5432/name")
        url = re.sub(r"^[a-z+]+://", "postgresql://", value.get_secret_value(), count=1)
        return SecretStr(url)

    @field_validator("rate_limit_read", "rate_limit_write")
    @classmethod
    def _check_rate_limit(cls, value: str) -> str:
        try:
            several = len(parse_many(value)) != 1
        except ValueError:
            several = True
        if several:
            raise ValueError("must be one limit like 600/minute or 20/second")
        return value

    @field_validator("rate_limit_storage_uri")
    @classmethod
    def _check_storage_uri(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        try:
            parts = urlsplit(value.get_secret_value())
            _ = parts.port  # raises when it is no number
        except ValueError:
            parts = urlsplit("")
        if parts.scheme not in {"redis", "rediss"}:
            raise ValueError("must be a URL like redis://:password@host:6379/0, or not be set")
        return value

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.ops_port == self.port:
            raise ValueError("OPS_PORT and PORT must differ, or OPS_PORT not be set.")
        return self

    @cached_property
    def dsn(self) -> str:
        """The database's URL, its password included.

        Raises:
            StartupError: DATABASE_URL is not set.
        """
        if self.database_url is None:
            raise StartupError("DATABASE_URL is not set: write it as postgresql://user:password@host:5432/name.")
        return self.database_url.get_secret_value()

    @cached_property
    def migration_dsn(self) -> str:
        """The URL that migrations connect to, its password included.

        Raises:
            StartupError: Neither MIGRATION_DATABASE_URL nor DATABASE_URL is set.
        """
        return self.migration_database_url.get_secret_value() if self.migration_database_url else self.dsn


def _content(file: str, name: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text"
        raise ValueError(f"{name.upper()} names a file that cannot be read: {reason}.") from None


def _sentence(error: Any) -> str:
    """One sentence that names the variable and says what to write, without the value: it may be a secret."""
    message = error["msg"].removeprefix("Value error, ")
    if not error["loc"]:
        return str(message)
    message = message.replace("Input should be", "must be", 1)
    return f"{str(error['loc'][0]).upper()} {message[0].lower()}{message[1:]}."
