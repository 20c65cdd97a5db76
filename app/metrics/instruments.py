"""All metrics, and the methods through which the rest of the application reports them."""

import time
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from app import NAME
from app.errors import CLIENT_SHARE
from app.metrics.buffered_durations import BufferedDurations
from app.metrics.fast_numbers import FastCounter, FastHistogram
from app.metrics.slot_files import ensure_space, open_files, own_slot

DURATION_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Methods that are counted by name. All others are counted as `other`."""

SHED_REASONS: Final = (
    "queue_full", "queue_timeout", "client_share", "slow_queue_full", "slow_queue_timeout", "slow_client_share",
)  # fmt: skip
"""Why a request was refused: too many waited, it waited too long, or, in either case, its client had more than its
share."""

DROP_REASONS: Final = ("queue_full", "export_failed", "shutdown")
"""Why a span was dropped: too many waited, the collector did not take it, or the worker ended before it was sent."""

MOST_CODES: Final = 64
"""The codes of failures that are counted by name. Further ones are counted as `other`."""

HEARTBEAT_AGE: Final = "worker_heartbeat_age_seconds"
"""Its value is stored as the time of the heartbeat by the monotonic clock, which all processes share. A scrape shows
the age: a worker that hangs cannot."""

POOL_GAUGES: Final = {
    "size": "The most connections that may be open now. All workers together have DATABASE_CONNECTIONS.",
    "open": "Open connections.",
    "in_use": "Connections on which a statement runs.",
    "waiting": "Requests that wait for a connection.",
    "slow_size": "The most connections that slow statements may use.",
    "slow_in_use": "Connections on which a slow statement runs.",
    "slow_waiting": "Requests that wait for a connection for a slow statement.",
}
"""Those of the primary begin with `database_pool_`, those of a replica with `database_replica_pool_`. One name for both
would mix servers in a sum over `database_pool_size`."""

SCHEMA_STATES: Final = ("unknown", "behind", "current", "ahead")


class Metrics:
    """The metrics of one worker. Create it in the worker, after the fork.

    Every value is a number in memory, or in a mapped file under Gunicorn:
    reporting one takes about a microsecond and cannot fail or block.
    """

    def __init__(self, *, version: str = "", revision: str = "") -> None:
        self.folder = open_files()
        """The folder with the workers' files; None if this process counts alone."""
        self.registry = CollectorRegistry()
        self.worker = own_slot()
        self._files_full = False
        self._children: dict[tuple[str, str, int, str], tuple[FastCounter, FastHistogram | None]] = {}
        self._codes: set[str] = set()
        self._statements: dict[str, BufferedDurations] = {}
        self._statement_children: dict[str, Histogram | None] = {}
        self._decision_children: dict[tuple[str, str], FastCounter] = {}

        self._requests = self._counter(
            "http_requests_total",
            "Requests served, by exact status, and failures by code.",
            "method",
            "handler",
            "status",
            "code",
        )
        self._duration = Histogram(
            "http_request_duration_seconds",
            "Time from the start of a request's handling to the end of its response. Handling starts when the request "
            "has arrived; if its body is longer than 64 KiB, when its head has arrived. Of a stream, such as an "
            "export, only the time until its head is sent. Without requests that were refused because of their "
            "client's own share.",
            ["method", "handler"],
            buckets=DURATION_BUCKETS,
            registry=self.registry,
        )
        self.in_progress = 0
        """Requests in progress. It is sampled, because a gauge in a mapped file would be written twice a request."""
        self._in_progress = self._gauge("http_requests_inprogress", "Requests in progress.")
        self._shed = self._counter(
            "requests_shed_total", "Requests refused because the queue for connections was full or too slow.", "reason"
        )
        for reason in SHED_REASONS:  # each series exists before it grows, so that an alert sees the first increase
            self._shed.labels(reason)

        self._pool = {name: self._gauge(f"database_pool_{name}", text) for name, text in POOL_GAUGES.items()}
        self._replica_pools = {
            name: self._gauge(f"database_replica_pool_{name}", f"database_pool_{name} of a replica.", "replica")
            for name in POOL_GAUGES
        }
        self._pool_wait = FastHistogram(
            Histogram(
                "database_pool_wait_seconds",
                "Wait for a connection, of the requests that had to wait and got one.",
                buckets=DURATION_BUCKETS,
                registry=self.registry,
            )
        )
        self._pool_timeouts = self._counter(
            "database_pool_timeouts_total", "Requests that got no connection in time, apart from slow ones."
        )
        self._pool_opened = self._counter("database_pool_connections_opened_total", "Connections opened.")
        self._pool_closed = self._counter("database_pool_connections_closed_total", "Connections closed or lost.")

        self._replica_usable = self._gauge(
            "database_replica_usable",
            "Workers that read from the replica, by the number of its host in DATABASE_REPLICA_URL.",
            "replica",
        )
        self._replica_lag = self._gauge(
            "database_replica_lag_seconds",
            "How far the replica lags behind the primary at most, as the worker with the oldest knowledge sees it.",
            "replica",
            mode="max",
        )
        self._reads = self._counter(
            "database_reads_total", "Reads sent to a replica, or to the primary instead.", "server", "reason"
        )
        self._read_children: dict[tuple[str, str], FastCounter] = {}

        self._statement_duration = Histogram(
            "database_statement_duration_seconds",
            "Time of a statement on its connection, without the wait for the connection.",
            ["statement"],
            buckets=DURATION_BUCKETS,
            registry=self.registry,
        )

        self._decisions = self._counter(
            "rate_limit_decisions_total",
            "Requests admitted or refused by a rate limit.",
            "bucket",
            "outcome",
        )
        self.forwarded_for_ignored = self._counter(
            "forwarded_for_ignored_total",
            "Requests whose X-Forwarded-For was ignored, because FORWARDED_ALLOW_IPS does not name the peer.",
        )
        self._limits_degraded = self._gauge(
            "rate_limit_storage_degraded",
            "1 while a worker cannot use the shared rate limit storage and counts without it.",
            mode="max",
        )

        self._auth_requests = self._counter(
            "auth_requests_total", "Requests that needed an access token, by what became of it.", "outcome"
        )
        self._auth_fetches = self._counter(
            "auth_key_fetches_total", "Fetches of the keys of the issuer of access tokens.", "outcome"
        )
        self._auth_children: dict[str, FastCounter] = {}
        self._auth_fetched = self._gauge(
            "auth_keys_fetched_timestamp_seconds",
            "When the issuer's keys that a worker uses were fetched, in Unix time; 0 if it never had any.",
            "worker",
            mode="max",
        )

        self._spans_exported = self._counter("tracing_spans_exported_total", "Spans that the collector has taken.")
        self._spans_dropped = self._counter("tracing_spans_dropped_total", "Spans that were lost.", "reason")
        for reason in DROP_REASONS:
            self._spans_dropped.labels(reason)

        self._create_worker_state()
        self._schema = self._gauge(
            "schema_state", "Workers, by the state of the database schema that they found.", "state"
        )
        self._budget = self._gauge(
            "connection_budget_connections",
            "Database connections: of this instance, wanted by all instances, available on the server.",
            "kind",
            mode="max",
        )
        self._budget_fits = self._gauge(
            "connection_budget_fits",
            "1 if the server has as many connections as all instances want; 0 if not, or if it was not checked.",
            mode="max",
        )

        self._keys_purged = self._counter(
            "idempotency_keys_purged_total", "Expired idempotency keys that were deleted."
        )
        self._purged_at = self._gauge(
            "idempotency_purge_last_run_timestamp_seconds",
            "When expired idempotency keys were last deleted, in Unix time.",
            mode="max",
        )

        self.loop_lag = self._worker_gauge(
            "worker_loop_lag_seconds", "Delay of a timer on the event loop, the highest of the last 15 seconds."
        )
        self.memory = self._worker_gauge(
            "worker_proportional_memory_bytes",
            "Memory of the worker: its own, and its part of what processes share (PSS).",
        )
        self.open_fds = self._worker_gauge("worker_open_fds", "Open file descriptors of the worker.")
        self.max_fds = self._worker_gauge("worker_max_fds", "The most file descriptors that the worker may open.")
        self.start_time = self._worker_gauge("worker_start_time_seconds", "Start time of the worker, in Unix time.")
        self.cpu = self._counter("worker_cpu_seconds_total", "CPU time of the workers in this slot.", "worker").labels(
            self.worker
        )
        self._client_connections = self._gauge("worker_connections", "Client connections, by their state.", "state")
        self._buffered_bytes = self._worker_gauge(
            "worker_buffered_bytes", "Bytes of requests and unsent responses in the memory of the worker."
        )
        self._connections_shed = self._counter(
            "worker_connections_shed_total",
            "Client connections closed or refused because a worker had too many, or too many bytes in memory.",
            "reason",
        )
        self.log_backlog = self._worker_gauge("worker_log_backlog_bytes", "Log lines that wait to be written.")
        self.lines_dropped = self._counter("log_lines_dropped_total", "Log lines that were dropped.")
        self._describe(version, revision)

    def _describe(self, version: str, revision: str) -> None:
        """Set the gauges that never change."""
        shared = self._gauge("metrics_shared", "0 if a scrape shows only the worker that answers it.", mode="max")
        shared.set(self.folder is not None)
        build = self._gauge(
            f"{NAME.replace('-', '_')}_build_info",
            "Version and revision of the running service.",
            "version",
            "revision",
            mode="max",
        )
        build.labels(version, revision).set(1)

    def _create_worker_state(self) -> None:
        self._ready = self._worker_gauge(
            "worker_ready",
            "1 if the last check of the worker found database, schema and keys for access tokens usable, and it is not "
            "draining.",
        )
        self._is_draining = False
        self._read_only = self._worker_gauge(
            "worker_read_only",
            "1 if the worker is ready only because a replica answers reads, and its writes fail.",
        )
        self._database_reachable = self._worker_gauge(
            "worker_database_reachable", "1 if the database answered the last check of the worker."
        )
        self._heartbeat = self._worker_gauge(HEARTBEAT_AGE, "Seconds since the last heartbeat of the worker.")
        self._heartbeat.set(time.monotonic())

    def request_answered(self, method: str, handler: str, status: int, code: str, seconds: float) -> None:
        """Count a request: its method, the template of its route, the exact status, the code of its failure or ""."""
        children = self._children.get((method, handler, status, code)) or self._bounded(method, handler, status, code)
        if children is not None:
            children[0].increase()
            if children[1] is not None:
                children[1].observe(seconds)

    def _bounded(
        self, method: str, handler: str, status: int, code: str
    ) -> tuple[FastCounter, FastHistogram | None] | None:
        """The counter and the histogram of these labels, within bounds. None if there is no space for new ones."""
        labels = method if method in METHODS else "other", handler, status, code and self._bounded_code(code)
        if labels not in self._children and self._has_space():
            # How long a client waits for itself says nothing about how fast the service is.
            duration = None if code == CLIENT_SHARE else FastHistogram(self._duration.labels(*labels[:2]))
            self._children[labels] = FastCounter(self._requests.labels(*labels)), duration
        return self._children.get(labels)

    def statement_ran(self, name: str, seconds: float) -> None:
        """A statement with this name ran for so long, whether it succeeded or failed. There are few names."""
        durations = self._statements.get(name)
        if durations is None:
            durations = self._statements[name] = BufferedDurations(DURATION_BUCKETS)
        durations.observe(seconds)

    def sample_statements(self) -> None:
        """Add the durations of the statements since the last sample to their histogram."""
        for name, durations in self._statements.items():
            durations.flush(partial(self._statement_child, name))

    def _statement_child(self, name: str) -> Histogram | None:
        if name not in self._statement_children:
            self._statement_children[name] = self._statement_duration.labels(name) if self._has_space() else None
        return self._statement_children[name]

    def request_shed(self, reason: str) -> None:
        """A request was refused because of overload: one of `SHED_REASONS`."""
        self._shed.labels(reason).inc()

    def pool_waited(self, seconds: float) -> None:
        """A request waited this long for a connection and got one."""
        self._pool_wait.observe(seconds)

    def pool_timed_out(self) -> None:
        """A request got no connection within its time, and not for a slow statement."""
        self._pool_timeouts.inc()

    def pool_opened(self) -> None:
        """A connection was opened."""
        self._pool_opened.inc()

    def pool_closed(self) -> None:
        """A connection was closed, by this side or the server."""
        self._pool_closed.inc()

    def replicas_opened(self, numbers: Iterable[str], reasons: Mapping[str, Iterable[str]]) -> None:
        """Reads go to replicas from now on. Each series exists before it grows, so that an alert sees that."""
        for number in numbers:
            self.set_replica(number, usable=False, lag_seconds=0)
        for server, of_server in reasons.items():
            for reason in of_server:
                self._read_children[server, reason] = FastCounter(self._reads.labels(server, reason))

    def read_answered(self, server: str, reason: str) -> None:
        """A read was sent to a server for a reason, both of which `replicas_opened` has named."""
        self._read_children[server, reason].increase()

    def set_replica(self, number: str, *, usable: bool, lag_seconds: float) -> None:
        """Set whether this worker reads from a replica, and how far that lags at most."""
        self._replica_usable.labels(number).set(usable)
        self._replica_lag.labels(number).set(lag_seconds)

    def sample_in_progress(self) -> None:
        """Set the gauge of requests in progress to its current value."""
        self._in_progress.set(self.in_progress)

    def set_pool_state(self, state: Mapping[str, int], *, replica: str | None = None) -> None:
        """Set these of the POOL_GAUGES: of the primary's pool, or of the replica with this number."""
        for name, value in state.items():
            gauge = self._pool[name] if replica is None else self._replica_pools[name].labels(replica)
            gauge.set(value)

    def rate_limit_decided(self, bucket: str, outcome: str) -> None:
        """A rate limit admitted or refused a request."""
        decisions = self._decision_children.get((bucket, outcome))
        if decisions is None:
            decisions = self._decision_children[bucket, outcome] = FastCounter(self._decisions.labels(bucket, outcome))
        decisions.increase()

    def rate_limit_degraded(self, degraded: bool) -> None:
        """The rate limits cannot use their shared storage, or can again."""
        self._limits_degraded.set(degraded)

    def auth_opened(self, outcomes: Iterable[str]) -> None:
        """Requests need access tokens from now on. Each series exists before it grows, so that an alert sees that."""
        self._auth_fetched.labels(self.worker).set(0)
        self._auth_children = {outcome: FastCounter(self._auth_requests.labels(outcome)) for outcome in outcomes}
        for outcome in ("ok", "failed"):
            self._auth_fetches.labels(outcome)

    def auth_decided(self, outcome: str) -> None:
        """A request that needs an access token was accepted or refused; one of the outcomes of `auth_opened`."""
        self._auth_children[outcome].increase()

    def auth_keys_fetched(self, *, succeeded: bool) -> None:
        """The issuer was asked for its keys just now."""
        self._auth_fetches.labels("ok" if succeeded else "failed").inc()
        if succeeded:
            self._auth_fetched.labels(self.worker).set_to_current_time()

    def auth_keys_shared(self, fetched_at: float) -> None:
        """This worker uses keys that another one has fetched, at this Unix time."""
        self._auth_fetched.labels(self.worker).set(fetched_at)

    def set_readiness(
        self, *, ready: bool, database_reachable: bool, schema_state: str, read_only: bool = False
    ) -> None:
        """Set what the worker's check of the database has found; `schema_state` is one of `SCHEMA_STATES`."""
        self._read_only.set(read_only)
        self._ready.set(ready and not self._is_draining)
        self._database_reachable.set(database_reachable)
        for known in SCHEMA_STATES:
            self._schema.labels(known).set(known == schema_state)

    def heartbeat(self, *, draining: bool) -> None:
        """The event loop of the worker runs. A worker that drains is not ready, and does not become ready again."""
        self._heartbeat.set(time.monotonic())
        if draining and not self._is_draining:
            self._is_draining = True
            self._ready.set(0)

    def set_connection_budget(self, *, instance: int, wanted: int, available: int) -> None:
        """Set the connection budget and the number of connections that the server has."""
        for kind, connections in [("instance", instance), ("wanted", wanted), ("available", available)]:
            self._budget.labels(kind).set(connections)
        self._budget_fits.set(wanted <= available)

    def spans_exported(self, spans: int) -> None:
        """The collector has taken so many spans."""
        self._spans_exported.inc(spans)

    def spans_dropped(self, reason: str, spans: int) -> None:
        """So many spans were dropped, because of one of `DROP_REASONS`."""
        self._spans_dropped.labels(reason).inc(spans)

    def keys_purged(self, keys: int) -> None:
        """Expired idempotency keys were deleted just now; 0 if there were none."""
        self._keys_purged.inc(keys)
        self._purged_at.set_to_current_time()

    def set_client_connections(self, connections: Mapping[str, int], *, buffered_bytes: int) -> None:
        """Set the client connections of each state, and the bytes that all of them keep in memory."""
        for state, count in connections.items():
            self._client_connections.labels(state).set(count)
        self._buffered_bytes.set(buffered_bytes)

    def connections_shed(self, reason: str, connections: int) -> None:
        """So many client connections were closed or refused because of a limit of the worker."""
        self._connections_shed.labels(reason).inc(connections)

    def _bounded_code(self, code: str) -> str:
        """This code, or `other` if there are too many. The service itself sets only a few."""
        if code not in self._codes:
            if len(self._codes) == MOST_CODES:
                return "other"
            self._codes.add(code)
        return code

    def _has_space(self) -> bool:
        """Whether the files of this worker have space for new series."""
        if not self._files_full and self.folder is not None:
            self._files_full = not ensure_space(self.folder)
        return not self._files_full

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(name, documentation, labels, registry=self.registry)

    def _gauge(self, name: str, documentation: str, *labels: str, mode: str = "sum") -> Gauge:
        """A gauge whose value is the sum or the maximum over the running workers."""
        live: Literal["livesum", "livemax"] = "livemax" if mode == "max" else "livesum"
        return Gauge(name, documentation, labels, multiprocess_mode=live, registry=self.registry)

    def _worker_gauge(self, name: str, documentation: str) -> Gauge:
        return self._gauge(name, documentation, "worker", mode="max").labels(self.worker)
