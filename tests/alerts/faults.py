"""The faults of docs/operations/failures.md that one machine can have, in the order of that page.

Each begins while a server with default settings answers requests, and lasts until the measurement ends.
"""

from collections.abc import Callable
from dataclasses import dataclass

from tests.alerts import client_faults, database_faults, machine_faults, worker_faults
from tests.alerts.scene import Scene


@dataclass(frozen=True)
class Fault:
    """A fault, and how it is made."""

    make: Callable[[Scene], None]
    """Its docstring is the title of the fault."""

    first_alert: str | None
    """The alert that fires first, without the prefix of the names; None if none fires."""

    rate: float = 3
    """Normal requests a second, before the fault and while it lasts."""

    @property
    def title(self) -> str:
        """What happens."""
        return (self.make.__doc__ or "").rstrip(".")

    @property
    def name(self) -> str:
        """The name of the namespace that Prometheus sees."""
        return self.make.__name__.replace("_", "-")


FAULTS = [
    Fault(worker_faults.no_fault, None),
    Fault(worker_faults.worker_killed_once, None),
    Fault(worker_faults.workers_killed, "WorkerChurn"),
    Fault(worker_faults.worker_hangs, "WorkerHangs"),
    Fault(worker_faults.fork_fails, "WorkerChurn"),
    Fault(worker_faults.reloads, None),
    Fault(worker_faults.reload_refused, "ReloadRefused"),
    Fault(database_faults.database_stopped, "NoWorkerReady", rate=10),
    Fault(database_faults.database_frozen, "NoWorkerReady", rate=10),
    Fault(database_faults.packets_dropped, "NoWorkerReady", rate=10),
    Fault(database_faults.connections_closed, None),
    Fault(database_faults.connections_forgotten, None),
    Fault(database_faults.password_changed, "NoWorkerReady"),
    Fault(database_faults.one_host_frozen, None),
    Fault(database_faults.database_read_only, "NoWorkerReady"),
    Fault(database_faults.table_locked, "ErrorsFast", rate=20),
    Fault(database_faults.writes_broken, "ErrorsFast", rate=10),
    Fault(machine_faults.redis_frozen, "RateLimitsDegraded"),
    Fault(machine_faults.counters_overwritten, "RateLimitsDegraded"),
    Fault(client_faults.clients_disconnect, None),
    Fault(client_faults.clients_slow, None),
    Fault(client_faults.clients_hostile, None),
    Fault(client_faults.overload, "ErrorsFast", rate=26),
    Fault(client_faults.one_client_starves, "RequestsShed", rate=10),
    Fault(machine_faults.output_not_read, "LogLinesDropped"),
    Fault(machine_faults.output_closed, "LogLinesDropped"),
    Fault(machine_faults.metrics_too_small, "MetricsIncomplete"),
    Fault(machine_faults.metrics_full, None),
    Fault(machine_faults.root_read_only, None),
]
