"""The settings: name, default and meaning of everything an operator may change."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Self, cast

from pydantic import Field, model_validator

from app.database_url import DatabaseUrl
from app.errors import StartupError
from app.settings.addresses import UNIX, HostNames, IssuerUrl, ListenHost, Networks, Origins
from app.settings.cpus import available_cpus
from app.settings.environment import read_secret
from app.settings.tracing import TracingSettings
from app.settings.values import (
    CORS_HEADERS,
    AnyCase,
    BuildName,
    DatabaseAddress,
    Folder,
    HeaderNames,
    Limit,
    LogFormat,
    LogLevel,
    Port,
    ReplicaAddress,
    RootPath,
    Seconds,
    StorageUri,
)
from app.settings.values import DatabasePooler as DatabasePooler

_MOST_WORKERS: Final = 256

_POOLED: Final = ("database_url", "database_replica_url")
"""The addresses that DATABASE_POOLER is about."""


def _workers(values: Mapping[str, Any]) -> int:
    """The default of WEB_CONCURRENCY: a machine with many CPUs must not need another DATABASE_CONNECTIONS to start."""
    connections: int = values["database_connections"]
    return min(available_cpus(), max(1, connections - 1), _MOST_WORKERS)


class Settings(TracingSettings):
    """Everything an operator may change. Each field is read from the environment variable of its name."""

    database_url: DatabaseAddress = None
    """The address of PostgreSQL: `postgresql://user:password@host:5432/name`. When it is not set,
    a private embedded PostgreSQL is started; the image refuses to start instead."""

    database_url_file: Path | None = None
    """A file that contains DATABASE_URL, such as a mounted secret."""

    database_connections: Annotated[int, Field(ge=1, le=10_000)] = 20
    """The most connections that one instance may hold, all of its workers together, also during a reload."""

    database_wait_seconds: Seconds = 1.0
    """How long a request waits for a free connection. After that the answer is 503."""

    database_statement_seconds: Seconds = 5.0
    """How long a statement may run, and one of a search, an exact count or an export a fifth of that. After it the
    answer is 504."""

    database_connection_seconds: Seconds = 1800.0
    """How old a database connection may become. After that it is replaced, so that a change of address or of the
    load balancer's servers reaches the service."""

    database_pooler: Annotated[DatabasePooler, AnyCase] = DatabasePooler.NONE
    """`pgbouncer` when DATABASE_URL is the address of a PgBouncer in transaction mode; `pgbouncer-prepared`
    when that PgBouncer is version 1.21 or newer and sets `max_prepared_statements` to 100 or more."""

    database_replica_url: ReplicaAddress = None
    """The address of one or more streaming replicas that answer reads. Each host is one server, and gets as many
    connections as DATABASE_URL. By default the primary answers all requests."""

    database_replica_url_file: Path | None = None
    """A file that contains DATABASE_REPLICA_URL, such as a mounted secret."""

    database_replica_lag_seconds: Annotated[float, Field(ge=0.2, le=60)] = 1.0
    """How far a replica may lag behind the primary. The primary answers instead of one that lags further."""

    migration_database_url: DatabaseAddress = None
    """The address that `alembic` connects to: PostgreSQL itself, as the role that owns the tables.
    By default DATABASE_URL."""

    migration_database_url_file: Path | None = None
    """A file that contains MIGRATION_DATABASE_URL, such as a mounted secret."""

    migration_lock_seconds: Seconds = 0.2
    """How long a migration waits for a lock before it lets the requests that queue behind it run, and retries.
    `alembic` refuses a value that is not less than DATABASE_WAIT_SECONDS. The wait is at most a tenth of
    DATABASE_STATEMENT_SECONDS, and the default at most half of DATABASE_WAIT_SECONDS."""

    migration_wait_seconds: Seconds = 60.0
    """How long a migration waits in total for locks and for a connection. After that it fails, and names the
    sessions that block it."""

    migration_statement_seconds: Seconds = 5.0
    """How long one statement of a migration may run. An index that is created concurrently has no limit,
    neither for its statement nor for its waits."""

    instances: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Instances of this service that share the database. Only the check of the connection budget uses it."""

    web_concurrency: Annotated[int, Field(ge=1, le=_MOST_WORKERS)] = Field(default_factory=_workers)
    """The number of worker processes. By default the number of CPUs that the cgroup allows, and less than
    DATABASE_CONNECTIONS, so that each worker has a connection."""

    host: ListenHost = "127.0.0.1"
    """The address or the name to listen on, or `unix:/path` for a Unix socket."""

    port: Port = 8000
    """The port to listen on."""

    ops_port: Port | None = None
    """A second port for operators. When it is set, `/metrics` and `/health/ready` answer on this port only,
    and nothing else but `/health` answers on it."""

    log_level: Annotated[LogLevel, AnyCase] = LogLevel.INFO
    """The lowest level that is logged: `debug`, `info`, `warning` or `error`."""

    log_format: Annotated[LogFormat, AnyCase] = Field(
        default_factory=lambda: LogFormat.CONSOLE if sys.stdout.isatty() else LogFormat.JSON
    )
    """`json`, or `console` for people to read. By default `console` on a terminal, else `json`."""

    rate_limit_read: Limit = "6000/minute"
    """The number of reading requests that one client may send in a period. Never more are admitted. If it is at least
    200 times the number of workers, up to 1 % fewer may be admitted, because workers reserve requests in advance."""

    rate_limit_write: Limit = "600/minute"
    """The number of writing requests that one client may send in a period, counted as for RATE_LIMIT_READ. A request
    that does the work of several counts as several."""

    rate_limit_export: Limit = "10/minute"
    """The number of exports that one client may begin in a period, on each host. Each is a reading request as well."""

    rate_limit_storage_uri: StorageUri | None = None
    """`redis://…` or `rediss://…` counts requests across hosts. It names one server, or any node of a cluster.
    By default requests are counted in shared memory, across the workers of one host."""

    rate_limit_storage_uri_file: Path | None = None
    """A file that contains RATE_LIMIT_STORAGE_URI, such as a mounted secret."""

    rate_limit_enabled: bool = True
    """Whether the rate limits apply."""

    forwarded_allow_ips: Networks = ("127.0.0.1",)
    """Addresses and networks of the proxies whose `X-Forwarded-For` is trusted. A peer on a Unix socket has
    the address 127.0.0.1. `*` trusts every peer, so that clients can choose the address that they are limited by."""

    root_path: RootPath = None
    """The prefix that a proxy strips from the path, such as `/shop`. It is put before the paths in `Location`, `Link`,
    the index, the documentation page and the OpenAPI document."""

    cors_allow_origins: Origins = ()
    """Origins whose pages may call this service from a browser, such as `https://app.example.com`. Besides `http` and
    `https`, the scheme may be `app`, `capacitor`, `ionic`, `tauri` or `vscode-webview`, or that of an extension of a
    browser, such as `moz-extension`."""

    cors_allow_headers: HeaderNames = CORS_HEADERS
    """Request headers that pages of these origins may send."""

    allowed_hosts: HostNames = ("*",)
    """Host names that are served. `*.example.com` stands for all names below it, `*` for every name."""

    auth_issuer: IssuerUrl = None
    """The OpenID Connect issuer whose access tokens are required, exactly as the tokens name it (`iss`). By default
    every client may do everything."""

    auth_audience: Annotated[str, Field(max_length=255)] | None = None
    """The audience that access tokens must have (`aud`). It is required with AUTH_ISSUER."""

    auth_jwks_url: IssuerUrl = None
    """Where the keys of the issuer are. By default its discovery document says it."""

    max_body_bytes: Annotated[int, Field(ge=1, le=100 * 1024 * 1024)] = 65_536
    """The largest request body, in bytes. For a larger one the answer is 413. A route may have a limit of its own."""

    max_connections: Annotated[int, Field(ge=8, le=1_000_000)] = 2000
    """The most client connections that one worker may have open. When there are more, the one that has been idle the
    longest is closed, then the slowest. A low limit of open files (`ulimit -n`) lowers it."""

    max_buffered_bytes: Annotated[int, Field(ge=4 * 1024 * 1024, le=1024**4)] = 64 * 1024 * 1024
    """The most bytes of requests and unsent responses that one worker may keep in memory. When there are more, the
    connections with the most are closed."""

    request_receive_seconds: Seconds = 10.0
    """How long a client may take to send a whole request, and to begin one on a new connection."""

    keep_alive_seconds: Seconds = 75.0
    """How long an idle client connection stays open. Make it longer than the load balancer's own timeout,
    so that the load balancer closes first."""

    graceful_seconds: Seconds = 25.0
    """How long requests in flight may take to end while a worker drains. In Kubernetes this, the time of the
    `preStop` hook and five seconds more must fit into `terminationGracePeriodSeconds`."""

    worker_timeout_seconds: Annotated[int, Field(ge=2, le=3600)] = 30
    """A worker that has sent no heartbeat for this long is killed and replaced."""

    max_requests: Annotated[int, Field(ge=0)] = 0
    """The number of requests after which a worker is recycled. 0 means never."""

    max_requests_jitter: Annotated[int, Field(ge=0)] = 0
    """Each worker adds a random number up to this one to MAX_REQUESTS, so that they are not recycled together."""

    metrics_directory: Folder | None = None
    """The folder in which the workers share their metrics. By default a new folder in shared memory."""

    build_version: BuildName | None = None
    """The version of this build, for the metrics and the log. The image sets it."""

    build_revision: BuildName | None = None
    """The source revision of this build, for the metrics and the log. The image sets it."""

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.ops_port == self.port:
            raise ValueError("OPS_PORT and PORT must differ: write another port for OPS_PORT, or leave it out.")
        if self.ops_port and self.host.startswith(f"{UNIX}:"):
            raise ValueError("OPS_PORT must not be set where HOST is a Unix socket, which has no ports: leave it out.")
        for name in _POOLED:
            self._check_options(name, getattr(self, name))
        if self.auth_issuer and not self.auth_audience:
            raise ValueError("AUTH_ISSUER needs AUTH_AUDIENCE: set it to the `aud` of the tokens for this service.")
        if not self.auth_issuer and (self.auth_audience or self.auth_jwks_url):
            name = "AUTH_AUDIENCE" if self.auth_audience else "AUTH_JWKS_URL"
            raise ValueError(f"{name} protects nothing without AUTH_ISSUER: set that too, or leave it out.")
        if self.max_buffered_bytes < 4 * self.max_body_bytes:
            raise ValueError(
                "MAX_BUFFERED_BYTES must be at least four times MAX_BODY_BYTES: "
                f"set it to {4 * self.max_body_bytes} or more, or lower MAX_BODY_BYTES."
            )
        if self.max_requests_jitter and not self.max_requests:
            raise ValueError("MAX_REQUESTS_JITTER does nothing without MAX_REQUESTS: set that too, or leave it out.")
        return self

    def read_database_url(self) -> DatabaseUrl:
        """The address of PostgreSQL. DATABASE_URL_FILE is read again each time, so that a password can be rotated.

        Raises:
            StartupError: DATABASE_URL is not set, or the file is no longer right.
        """
        url = self._read_again("database_url")
        if url is None:
            raise StartupError("DATABASE_URL is not set: write it as postgresql://user:password@host:5432/name.")
        return url

    def read_database_replica_url(self) -> DatabaseUrl | None:
        """The address of the replicas, None without any. DATABASE_REPLICA_URL_FILE is read again each time.

        Raises:
            StartupError: The file is no longer right.
        """
        return self._read_again("database_replica_url", DatabaseUrl.parse_replicas)

    def read_migration_database_url(self) -> DatabaseUrl:
        """The address that migrations connect to.

        Raises:
            StartupError: Neither MIGRATION_DATABASE_URL nor DATABASE_URL is set.
        """
        return self._read_again("migration_database_url") or self.read_database_url()

    def _read_again(self, name: str, parse: Callable[[str], DatabaseUrl] = DatabaseUrl.parse) -> DatabaseUrl | None:
        file: Path | None = getattr(self, f"{name}_file")
        if file is None:
            return cast(DatabaseUrl | None, getattr(self, name))
        text = read_secret(file, f"{name}_file")
        try:
            url = parse(text)
        except ValueError as error:
            raise StartupError(f"{name.upper()} {error}.") from None
        try:
            self._check_options(name, url)
        except ValueError as error:
            raise StartupError(str(error)) from None
        return url

    def _check_options(self, name: str, url: DatabaseUrl | None) -> None:
        """Refuse `options` before a pooler, which may drop them without a word, as its own configuration says."""
        if url and name in _POOLED and self.database_pooler is not DatabasePooler.NONE and url.has_options:
            raise ValueError(
                f"{name.upper()} must not have options (nor the environment PGOPTIONS) where DATABASE_POOLER is set, "
                "because a pooler may drop them: run ALTER ROLE … SET search_path = …, with the role of this URL, "
                "and so for each other parameter."
            )
