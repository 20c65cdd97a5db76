"""Everything an operator may change: its name, its default, its meaning."""

import sys
from functools import cached_property
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from app.errors import StartupError
from app.settings.cpus import available_cpus
from app.settings.environment import FromEnvironment
from app.settings.values import (
    AnyCase,
    DatabaseUrl,
    Limit,
    List,
    LogFormat,
    LogLevel,
    Networks,
    Port,
    Seconds,
    StorageUri,
)
from app.settings.values import DatabasePooler as DatabasePooler


class Settings(FromEnvironment):
    """Everything an operator may change. Each field is read from the environment variable of its name."""

    database_url: DatabaseUrl | None = None
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

    database_pooler: Annotated[DatabasePooler, AnyCase] = DatabasePooler.NONE
    """`pgbouncer` when the URL leads to one in transaction mode; `pgbouncer-prepared` when that
    one is of version 1.21 or newer and has `max_prepared_statements` set to 100 or more."""

    migration_database_url: DatabaseUrl | None = None
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

    log_level: Annotated[LogLevel, AnyCase] = LogLevel.INFO
    """The least severe line that is written."""

    log_format: Annotated[LogFormat, AnyCase] = Field(
        default_factory=lambda: LogFormat.CONSOLE if sys.stdout.isatty() else LogFormat.JSON
    )
    """`json`, or `console` for people; by default `console` on a terminal."""

    rate_limit_read: Limit = "6000/minute"
    """Reading requests one client may send."""

    rate_limit_write: Limit = "600/minute"
    """Writing requests one client may send."""

    rate_limit_storage_uri: StorageUri | None = None
    """`redis://…` to count across hosts. By default the host's shared memory counts, across its workers."""

    rate_limit_storage_uri_file: Path | None = None
    """A file that holds RATE_LIMIT_STORAGE_URI, such as a mounted secret."""

    rate_limit_enabled: bool = True
    """Whether clients are limited at all."""

    forwarded_allow_ips: Networks = ("127.0.0.1",)
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
