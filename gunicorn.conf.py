"""How Gunicorn runs this service. Change it with environment variables; app/settings/ defines them."""

import contextlib
import gc
import importlib
import importlib.util
import math
import os
import subprocess  # nosec B404  # runs Alembic, with constant arguments
import sys
from pathlib import Path
from typing import Any

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT

# Gunicorn reads this file before it applies --chdir, and the first entry may be any folder.
if sys.path[0] != str(Path(__file__).resolve().parent):
    sys.path.insert(0, str(Path(__file__).resolve().parent))

from app import logs
from app.connection_budget import check_budget
from app.errors import StartupError
from app.metrics import directory
from app.settings import Settings
from app.settings.addresses import with_mapped_networks
from app.settings.misspelt import check_tracing_variables, warn_of_misspelt_variables
from app.settings.shared_memory import shared_memory_folder
from app.tracing import PACKAGES, check_packages
from app.worker import Limits, Worker
from app.worker.arbiter import RollingArbiter
from app.worker.configuration import check_configuration, check_socket, is_local, working_folder
from app.worker.descriptors import connections_with_descriptors

_ROOT = Path(__file__).resolve().parent

_LIBRARIES = (
    "alembic.script",
    "asyncpg",
    "fastapi",
    "fastapi_swagger",
    "lmdb",
    "orjson",
    "prometheus_client.multiprocess",
    "prometheus_fastapi_instrumentator",
    "pydantic.v1",  # FastAPI imports it when it looks at the type of a parameter
    "slowapi",
    "sqlalchemy.dialects.postgresql.asyncpg",
    "sqlalchemy.ext.asyncio",
    "starlette.middleware.cors",
    "structlog",
    "uvicorn",
    "uvloop",
)
"""Libraries that every worker needs and that a reload does not change. The master imports them before the fork, so
the workers share their memory (40 MB for each worker instead of 70), and a worker starts in half the time."""

_LIBRARIES_OF_AUTHENTICATION = ("httpx", "jwt.api_jws")
"""The same, if requests need access tokens."""

_LIBRARIES_OF_TRACING = (*PACKAGES, "requests")
"""The same, if requests are traced."""

try:
    with contextlib.chdir(working_folder()):
        _settings = Settings.load()
        logs.configure(_settings.log_level, _settings.log_format)
        warn_of_misspelt_variables()
        check_tracing_variables(_settings)
except StartupError as _error:
    sys.exit(f"Error: {_error}")

wsgi_app = "app.main:create_app()"
worker_class = "app.worker.Worker"
workers = _settings.web_concurrency


def _address(port: int) -> str:
    if _settings.host.startswith("unix:"):
        return _settings.host
    return f"[{_settings.host}]:{port}" if ":" in _settings.host else f"{_settings.host}:{port}"


bind = [_address(port) for port in (_settings.port, _settings.ops_port) if port is not None]
forwarded_allow_ips = ",".join(with_mapped_networks(_settings.forwarded_allow_ips))
max_requests = _settings.max_requests
max_requests_jitter = _settings.max_requests_jitter
timeout = _settings.worker_timeout_seconds
# The 3 seconds are for closing the application after the last request in flight has ended or was cancelled.
graceful_timeout = math.ceil(_settings.graceful_seconds) + 3
worker_tmp_dir = (_folder := shared_memory_folder()) and str(_folder)
# It would write a socket below $HOME, which fails on a read-only root file system.
control_socket_disable = True
logger_class = "app.logs.gunicorn.GunicornLogger"


def on_starting(server: Any) -> None:
    """Prepare what all workers share. A reload does not call this again."""
    try:
        RollingArbiter.convert(server)
        check_socket(_settings.host, {"PORT": _settings.port, "OPS_PORT": _settings.ops_port})
        directory.prepare(_settings.metrics_directory)
        if _settings.database_url is None:
            _start_database()
    except StartupError as error:
        sys.exit(f"Error: {error}")
    _import_libraries()


def pre_fork(server: RollingArbiter, worker: Worker) -> None:
    """Give the worker its slot, before the fork: the master and the worker both need to know it."""
    worker.assign_slot(server.free_slot(), server.stages)


def post_fork(server: RollingArbiter, worker: Worker) -> None:
    """Give the worker's own process its limits, and its slot for the metrics."""
    for sibling in server.WORKERS.values():
        sibling.stack_file.close()
    os.environ[directory.SLOT_VARIABLE] = str(worker.slot)
    worker.limits = Limits(
        receive_seconds=_settings.request_receive_seconds,
        keep_alive_seconds=_settings.keep_alive_seconds,
        graceful_seconds=_settings.graceful_seconds,
        whole_body_bytes=min(_settings.max_body_bytes, HIGH_WATER_LIMIT),
        max_body_bytes=_settings.max_body_bytes,
        max_connections=_max_connections,
        max_buffered_bytes=_settings.max_buffered_bytes,
    )


def child_exit(server: RollingArbiter, worker: Worker) -> None:  # noqa: ARG001
    """Remove the gauges of a worker that has ended, before another one gets its slot."""
    directory.worker_gone(worker.slot)


def _import_libraries() -> None:
    """Import the libraries that the workers share, and exclude their objects from garbage collection.

    The collector writes to every object that it looks at, and a page that is
    written to is no longer shared. The application itself is not imported here:
    a reload has to import its new code.
    """
    of_authentication = _LIBRARIES_OF_AUTHENTICATION if _settings.auth_issuer else ()
    of_tracing = _LIBRARIES_OF_TRACING if _settings.is_tracing else ()
    for name in (*_LIBRARIES, *of_authentication, *of_tracing):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()


def _check_database_url() -> None:
    """Without DATABASE_URL, refuse to start if there is no embedded PostgreSQL or if other machines can connect."""
    if _settings.database_url is None and importlib.util.find_spec("app.embedded_postgres") is None:
        _ = _settings.read_database_url()  # raises, and says what to set
    if _settings.database_url is None and not is_local(_settings.host):
        raise StartupError(
            "DATABASE_URL is not set, and the embedded PostgreSQL is for development on one machine only: "
            "set DATABASE_URL to postgresql://user:password@host:5432/name, or HOST to 127.0.0.1."
        )


def _check_replica_url() -> None:
    """Refuse settings of replicas that do nothing. A migration may have only a part of these settings."""
    if _settings.database_replica_url is not None and _settings.database_url is None:
        raise StartupError("DATABASE_REPLICA_URL needs DATABASE_URL, the address of the primary: set that too.")
    if _settings.database_replica_url is None and "database_replica_lag_seconds" in _settings.model_fields_set:
        raise StartupError(
            "DATABASE_REPLICA_LAG_SECONDS does nothing without DATABASE_REPLICA_URL: set that too, or leave it out."
        )


def _start_database() -> None:
    """Start the embedded PostgreSQL and migrate it to the current schema. It stops with this process."""
    from app import embedded_postgres  # noqa: PLC0415

    url = embedded_postgres.start(_ROOT / ".postgres")
    os.environ.update(DATABASE_URL=url, MIGRATION_DATABASE_URL=url)
    alembic = [sys.executable, "-m", "alembic", "upgrade", "head"]
    upgrade = subprocess.run(alembic, cwd=_ROOT, check=False)  # noqa: S603  # nosec B603
    if upgrade.returncode != 0:
        raise StartupError("The embedded PostgreSQL could not be migrated: the lines above say why.")


try:
    check_budget(budget=_settings.database_connections, workers=_settings.web_concurrency)
    _max_connections = connections_with_descriptors(
        _settings.max_connections,
        _settings.database_connections
        * (1 + (len(_settings.database_replica_url.hosts) if _settings.database_replica_url else 0)),
    )
    _check_replica_url()
    _check_database_url()
    if _settings.is_tracing:
        check_packages()
    check_configuration(globals())
except StartupError as _error:
    sys.exit(f"Error: {_error}")
