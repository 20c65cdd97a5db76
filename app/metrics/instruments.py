"""Everything that is measured, and how the rest of the application reports it."""

from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_fastapi_instrumentator.metrics import Info

from app import NAME
from app.metrics.slot_files import make_room, open_files, own_slot

DURATION_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Methods that are counted by name; a client may send others, and they are counted as `other`."""

SCHEMA_STATES: Final = ("unknown", "behind", "current", "ahead")


class Metrics:
    """The metrics of one worker. To be made in the worker, after the fork.

    Every value is a number in memory, in Gunicorn's workers a place in a mapped
    file: reporting one takes about a microsecond and cannot fail or wait.
    """

    def __init__(self, *, version: str = "", revision: str = "") -> None:
        self.folder = open_files()
        """Where the workers' files lie; None where this process counts for itself."""
        self.registry = CollectorRegistry()
        self.worker = own_slot()
        self._full = False
        self._observers: dict[tuple[str, str, str], tuple[Counter, Histogram]] = {}
        self._decided: dict[tuple[str, str], Counter] = {}

        self._requests = self._counter("http_requests_total", "Requests answered.", "method", "handler", "status")
        self._duration = Histogram(
            "http_request_duration_seconds",
            "Time from a request's head to the end of its answer.",
            ["method", "handler"],
            buckets=DURATION_BUCKETS,
            registry=self.registry,
        )
        self.in_progress = 0
        """Requests being answered. Sampled: a gauge in a mapped file would be written twice for each of them."""
        self._in_progress = self._gauge("http_requests_inprogress", "Requests being answered.")
        self._shed = self._counter("requests_shed_total", "Requests refused to bear the load.", "reason")

        self._pool_size = self._gauge("database_pool_size", "Connections that may be open.")
        self._pool_open = self._gauge("database_pool_open", "Connections that are open.")
        self._pool_in_use = self._gauge("database_pool_in_use", "Connections on which a statement runs.")
        self._pool_waiting = self._gauge("database_pool_waiting", "Requests that wait for a connection.")
        self._pool_wait = Histogram(
            "database_pool_wait_seconds",
            "How long requests waited for a connection, of those that had to wait and got one.",
            buckets=DURATION_BUCKETS,
            registry=self.registry,
        )
        self._pool_timeouts = self._counter("database_pool_timeouts_total", "Requests that got no connection in time.")
        self._pool_opened = self._counter("database_pool_connections_opened_total", "Connections opened.")
        self._pool_closed = self._counter("database_pool_connections_closed_total", "Connections closed or lost.")

        self._decisions = self._counter(
            "rate_limit_decisions_total", "Requests admitted or refused by a rate limit.", "bucket", "outcome"
        )
        self._limits_degraded = self._gauge(
            "rate_limit_storage_degraded", "1 while a worker counts by itself because the storage is away.", mode="max"
        )

        self._schema = self._gauge("schema_state", "Workers that see the database's schema so.", "state")
        self._budget = self._gauge(
            "connection_budget_connections",
            "Database connections: of this instance, wanted by all instances, available on the server.",
            "kind",
            mode="max",
        )
        self._budget_fits = self._gauge(
            "connection_budget_fits", "1 when the server has as many connections as all instances want.", mode="max"
        )

        self.loop_lag = self._worker_gauge(
            "worker_loop_lag_seconds", "How late the event loop ran a timer, at worst of late."
        )
        self.memory = self._worker_gauge("worker_resident_memory_bytes", "Resident memory.")
        self.start_time = self._worker_gauge("worker_start_time_seconds", "When the worker started, in Unix time.")
        self.cpu = self._counter("worker_cpu_seconds_total", "CPU time of the workers in this slot.", "worker").labels(
            self.worker
        )
        self.lines_dropped = self._counter("log_lines_dropped_total", "Log lines that were not written.")
        shared = self._gauge("metrics_shared", "0 when a scrape shows only the worker that answers it.", mode="max")
        shared.set(self.folder is not None)
        build = self._gauge(f"{NAME.replace('-', '_')}_build_info", "What runs.", "version", "revision", mode="max")
        build.labels(version, revision).set(1)

    def request_answered(self, info: Info) -> None:
        """Count a request: an instrumentation as the instrumentator calls it.

        The library's own `metrics.requests` and `metrics.latency` look the labels up
        again for every request, which takes longer than all the rest.
        """
        method = info.method if info.method in METHODS else "other"
        labels = method, info.modified_handler, info.modified_status
        observers = self._observers.get(labels)
        if observers is None:
            if self._full or (self.folder is not None and not make_room(self.folder)):
                self._full = True
                return
            observers = self._requests.labels(*labels), self._duration.labels(*labels[:2])
            self._observers[labels] = observers
        observers[0].inc()
        observers[1].observe(info.modified_duration)

    def request_shed(self, reason: str) -> None:
        """A request was refused because there are too many; the reasons are few and constant."""
        self._shed.labels(reason).inc()

    def pool_waited(self, seconds: float) -> None:
        """A connection came free after so long."""
        self._pool_wait.observe(seconds)

    def pool_timed_out(self) -> None:
        """A request gave up waiting for a connection."""
        self._pool_timeouts.inc()

    def pool_opened(self) -> None:
        """A connection was opened."""
        self._pool_opened.inc()

    def pool_closed(self) -> None:
        """A connection was closed, by whichever side."""
        self._pool_closed.inc()

    def show_in_progress(self) -> None:
        """Show how many requests are being answered at this moment."""
        self._in_progress.set(self.in_progress)

    def pool_is(self, *, size: int, open: int, in_use: int, waiting: int) -> None:  # noqa: A002
        """The pool at this moment, in connections, and requests waiting for one."""
        self._pool_size.set(size)
        self._pool_open.set(open)
        self._pool_in_use.set(in_use)
        self._pool_waiting.set(waiting)

    def rate_limit_decided(self, bucket: str, outcome: str) -> None:
        """A rate limit admitted or refused a request."""
        decisions = self._decided.get((bucket, outcome))
        if decisions is None:
            decisions = self._decided[bucket, outcome] = self._decisions.labels(bucket, outcome)
        decisions.inc()

    def rate_limit_degraded(self, degraded: bool) -> None:
        """The rate limits' storage is away, or is back."""
        self._limits_degraded.set(degraded)

    def set_schema_state(self, state: str) -> None:
        """Where the database's schema stands: one of `SCHEMA_STATES`."""
        for known in SCHEMA_STATES:
            self._schema.labels(known).set(known == state)

    def set_connection_budget(self, *, instance: int, wanted: int, available: int) -> None:
        """The arithmetic of connections, once the server has told its part."""
        for kind, connections in [("instance", instance), ("wanted", wanted), ("available", available)]:
            self._budget.labels(kind).set(connections)
        self._budget_fits.set(wanted <= available)

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(name, documentation, labels, registry=self.registry)

    def _gauge(self, name: str, documentation: str, *labels: str, mode: str = "sum") -> Gauge:
        """A gauge that is added up over the living workers, or is the largest of theirs."""
        live: Literal["livesum", "livemax"] = "livemax" if mode == "max" else "livesum"
        return Gauge(name, documentation, labels, multiprocess_mode=live, registry=self.registry)

    def _worker_gauge(self, name: str, documentation: str) -> Gauge:
        return self._gauge(name, documentation, "worker", mode="max").labels(self.worker)
