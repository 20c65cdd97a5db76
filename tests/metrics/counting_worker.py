"""A worker without a server: it runs the commands that it reads from standard input."""

import os
import resource
import sys

from app import logs
from app.metrics.exposition import Exposition
from app.metrics.instruments import POOL_GAUGES, Metrics


def main() -> None:
    """Run one command a line, and answer each with a length and a text."""
    logs.configure("info", "json", 2)
    if limit := os.environ.get("LARGEST_FILE"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), resource.RLIM_INFINITY))
    metrics = Metrics(version="1.2.3", revision="abc")
    exposition = Exposition(metrics)
    for line in sys.stdin:
        command, *arguments = line.split()
        answer = ""
        if command == "count":
            for _ in range(int(arguments[0])):
                metrics.request_answered("GET", "/samples", 200, "", 0.003)
        elif command == "spread":
            for number in range(int(arguments[0])):
                metrics.request_answered("GET", f"/{number}", 200, "", 0.003)
        elif command == "use_connections":
            metrics.set_pool_state({"size": 5, "in_use": int(arguments[0])})
            metrics.set_pool_state({"size": 5, "in_use": int(arguments[0])}, replica="2")
        elif command == "measure_all":
            measure_all(metrics)
        elif command == "scrape":
            answer = exposition.render().decode()
        sys.stdout.write(f"{len(answer)}\n{answer}")
        sys.stdout.flush()
    # The coverage data of this process is written at its end.
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def measure_all(metrics: Metrics) -> None:
    """Report each metric once."""
    for report in (metrics.pool_opened, metrics.pool_closed, metrics.pool_timed_out):
        report()
    metrics.pool_waited(0.01)
    metrics.set_pool_state({name: number for number, name in enumerate(POOL_GAUGES, 1)})
    metrics.set_pool_state({name: number for number, name in enumerate(POOL_GAUGES, 11)}, replica="1")
    metrics.replicas_opened(["1", "2"], {"replica": ["fresh"], "primary": ["lagging"]})
    metrics.read_answered("replica", "fresh")
    metrics.set_replica("1", usable=True, lag_seconds=0.25)
    metrics.rate_limit_decided("read", "refused")
    metrics.rate_limit_degraded(True)
    metrics.request_shed("queue_full")
    metrics.auth_opened(("accepted", "missing"))
    metrics.auth_decided("accepted")
    metrics.auth_keys_fetched(succeeded=True)
    metrics.auth_keys_fetched(succeeded=False)
    metrics.statement_ran("get_sample", 0.002)
    metrics.spans_exported(2)
    metrics.spans_dropped("queue_full", 1)
    metrics.set_readiness(ready=True, database_reachable=True, schema_state="current")
    metrics.set_connection_budget(instance=20, wanted=41, available=97)
    metrics.heartbeat(draining=False)
    metrics.loop_lag.set(0.1)
    metrics.memory.set(1 << 26)
    metrics.open_fds.set(20)
    metrics.max_fds.set(1024)
    metrics.log_backlog.set(512)
    metrics.start_time.set(1.7e9)
    metrics.cpu.inc(0.5)
    metrics.lines_dropped.inc(0)
    metrics.set_client_connections({"idle": 3, "running": 1}, buffered_bytes=4096)
    metrics.connections_shed("idle", 2)
    metrics.in_progress += 1
    metrics.sample_in_progress()
    metrics.sample_statements()
    metrics.request_answered("BREW", "/pot", 418, "", 40.0)
    metrics.request_answered("GET", "/samples", 503, "client_share", 0.01)


if __name__ == "__main__":
    main()
