import re
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import NAME
from app.metrics.exposition import Exposition
from app.metrics.instruments import Metrics
from tests.metrics.conftest import Start, series
from tests.programs import find

BUILD_INFO = f"{NAME.replace('-', '_')}_build_info"

NAMES = {
    "http_requests_total",
    "http_request_duration_seconds_bucket",
    "http_requests_inprogress",
    "requests_shed_total",
    "database_pool_size",
    "database_pool_open",
    "database_pool_in_use",
    "database_pool_waiting",
    "database_pool_slow_size",
    "database_pool_slow_in_use",
    "database_pool_slow_waiting",
    "database_pool_wait_seconds_bucket",
    "database_pool_timeouts_total",
    "database_pool_connections_opened_total",
    "database_pool_connections_closed_total",
    "database_replica_pool_size",
    "database_replica_pool_open",
    "database_replica_pool_in_use",
    "database_replica_pool_waiting",
    "database_replica_pool_slow_size",
    "database_replica_pool_slow_in_use",
    "database_replica_pool_slow_waiting",
    "database_replica_usable",
    "database_replica_lag_seconds",
    "database_reads_total",
    "database_statement_duration_seconds_bucket",
    "rate_limit_decisions_total",
    "rate_limit_storage_degraded",
    "auth_requests_total",
    "auth_key_fetches_total",
    "auth_keys_fetched_timestamp_seconds",
    "schema_state",
    "worker_ready",
    "worker_read_only",
    "worker_database_reachable",
    "connection_budget_connections",
    "connection_budget_fits",
    "worker_loop_lag_seconds",
    "worker_heartbeat_age_seconds",
    "worker_proportional_memory_bytes",
    "worker_open_fds",
    "worker_max_fds",
    "worker_log_backlog_bytes",
    "worker_start_time_seconds",
    "worker_cpu_seconds_total",
    "worker_connections",
    "worker_buffered_bytes",
    "worker_connections_shed_total",
    "log_lines_dropped_total",
    "tracing_spans_exported_total",
    "tracing_spans_dropped_total",
    "forwarded_for_ignored_total",
    "idempotency_keys_purged_total",
    "idempotency_purge_last_run_timestamp_seconds",
    "metrics_shared",
    BUILD_INFO,
}


@pytest.mark.needs("promtool")
def test_promtool_accepts_the_metrics(start: Start):
    """`promtool check metrics` finds no fault in names, units, types and help texts."""
    worker = start(0)
    worker.command("measure_all")
    done = subprocess.run(
        [find("promtool"), "check", "metrics"],
        input=worker.command("scrape").encode(),
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert (0, b"", b"") == (done.returncode, done.stdout, done.stderr)


def test_every_report_is_shown_by_a_scrape(start: Start):
    """Each method of `Metrics` changes a series of the scrape."""
    worker = start(3)
    worker.command("measure_all")
    found = worker.scrape()

    assert NAMES == {name.partition("{")[0] for name in found} - {
        f"{histogram}_{part}"
        for histogram in (
            "http_request_duration_seconds",
            "database_pool_wait_seconds",
            "database_statement_duration_seconds",
        )
        for part in ("sum", "count")
    }
    assert {
        'http_requests_total{code="",handler="/pot",method="other",status="418"}': 1,
        'http_requests_total{code="client_share",handler="/samples",method="GET",status="503"}': 1,
        'http_request_duration_seconds_bucket{handler="/pot",le="30.0",method="other"}': 0,
        'http_request_duration_seconds_bucket{handler="/pot",le="+Inf",method="other"}': 1,
        "http_requests_inprogress": 1,
        'requests_shed_total{reason="queue_full"}': 1,
        'requests_shed_total{reason="client_share"}': 0,
        'database_statement_duration_seconds_bucket{le="0.0025",statement="get_sample"}': 1,
        'database_statement_duration_seconds_count{statement="get_sample"}': 1,
        "database_pool_size": 1,
        "database_pool_open": 2,
        "database_pool_in_use": 3,
        "database_pool_waiting": 4,
        "database_pool_slow_size": 5,
        "database_pool_slow_in_use": 6,
        "database_pool_slow_waiting": 7,
        'database_replica_pool_size{replica="1"}': 11,
        'database_replica_pool_open{replica="1"}': 12,
        'database_replica_pool_in_use{replica="1"}': 13,
        'database_replica_pool_waiting{replica="1"}': 14,
        'database_replica_pool_slow_size{replica="1"}': 15,
        'database_replica_pool_slow_in_use{replica="1"}': 16,
        'database_replica_pool_slow_waiting{replica="1"}': 17,
        "database_pool_timeouts_total": 1,
        'database_replica_usable{replica="1"}': 1,
        'database_replica_usable{replica="2"}': 0,
        'database_replica_lag_seconds{replica="1"}': 0.25,
        'database_reads_total{reason="fresh",server="replica"}': 1,
        'database_reads_total{reason="lagging",server="primary"}': 0,
        'rate_limit_decisions_total{bucket="read",outcome="refused"}': 1,
        "rate_limit_storage_degraded": 1,
        'auth_requests_total{outcome="accepted"}': 1,
        'auth_requests_total{outcome="missing"}': 0,
        'auth_key_fetches_total{outcome="ok"}': 1,
        'auth_key_fetches_total{outcome="failed"}': 1,
        'schema_state{state="current"}': 1,
        'schema_state{state="behind"}': 0,
        'worker_ready{worker="3"}': 1,
        'worker_database_reachable{worker="3"}': 1,
        'connection_budget_connections{kind="wanted"}': 41,
        "connection_budget_fits": 1,
        'worker_loop_lag_seconds{worker="3"}': 0.1,
        'worker_cpu_seconds_total{worker="3"}': 0.5,
        'worker_connections{state="idle"}': 3,
        'worker_buffered_bytes{worker="3"}': 4096,
        'worker_open_fds{worker="3"}': 20,
        'worker_max_fds{worker="3"}': 1024,
        'worker_log_backlog_bytes{worker="3"}': 512,
        'worker_connections_shed_total{reason="idle"}': 2,
        BUILD_INFO + '{revision="abc",version="1.2.3"}': 1,
        "metrics_shared": 1,
    }.items() <= found.items()


def test_a_draining_worker_is_not_ready():
    """A check that passes later changes nothing."""
    metrics = Metrics()
    values = []
    for draining in (False, True):
        metrics.heartbeat(draining=draining)
        metrics.set_readiness(ready=True, database_reachable=True, schema_state="current")
        values.append(metrics.registry.get_sample_value("worker_ready", {"worker": "0"}))

    assert [1, 0] == values


@pytest.mark.parametrize("shared", [True, False])
def test_a_scrape_shows_the_age_of_a_heartbeat(start: Start, shared):
    """The time since it, also if the worker counts alone."""
    if shared:
        worker = start(3)
        worker.command("measure_all")
        age = worker.scrape()['worker_heartbeat_age_seconds{worker="3"}']
    else:
        metrics = Metrics()
        metrics.heartbeat(draining=False)
        rendered = Exposition(metrics).render().decode()
        age = float(re.findall(r'worker_heartbeat_age_seconds{worker="0"} (.*)', rendered)[0])

    assert 0 <= age < 600


@given(st.lists(st.text(max_size=20), max_size=50))
def test_unknown_methods_share_one_series(methods: list[str]):
    """The number of series does not depend on what clients send."""
    metrics = Metrics()
    for method in methods:
        metrics.request_answered(method, "none", 405, "", 0.0)

    found = series(Exposition(metrics).render().decode())
    assert len({name for name in found if name.startswith("http_requests_total")}) <= 8


def test_two_instances_are_independent():
    """There is no global state: one instance does not show what another one counts."""
    first, second = Metrics(), Metrics()
    first.pool_timed_out()

    assert 0 == series(Exposition(second).render().decode())["database_pool_timeouts_total"]
