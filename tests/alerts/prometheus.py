"""A Prometheus with the deployed rules, which scrapes real servers as the deployed configuration says."""

import http.client
import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import yaml

from app import NAME
from tests.paths import ROOT
from tests.processes.scrape import fetch
from tests.processes.server import eventually, free_port
from tests.programs import find

FOLDER = ROOT / "deploy" / "prometheus"

PREFIX = NAME.title().replace("-", "")
"""How the name of each alert begins."""

_HISTORY_SECONDS = 3 * 24 * 3600
_HISTORY_STEP = 240

_HISTORY = {
    "http_requests": ('_total{%s,method="GET",handler="/samples",status="200"}',),
    "http_request_duration_seconds": (
        '_bucket{%s,method="GET",handler="/samples",le="0.25"}',
        '_bucket{%s,method="GET",handler="/samples",le="+Inf"}',
        '_count{%s,method="GET",handler="/samples"}',
    ),
}
"""Each metric, and its series with one value: the number of requests, none of which fails or is slow."""

Alerts = dict[tuple[str, str, str], float]
"""The Unix time since which each alert has its state, by the namespace, the name without its prefix and the state."""


class Prometheus:
    """A running Prometheus."""

    def __init__(self, port: int) -> None:
        self._port = port

    def alerts(self) -> Alerts:
        """When each alert first became `pending` and `firing` in each namespace."""
        _, body = fetch(self._port, "/api/v1/query?query=" + quote("ALERTS[6h]"), timeout_seconds=60)
        since: Alerts = {}
        for series in json.loads(body)["data"]["result"]:
            labels = series["metric"]
            key = (labels["namespace"], labels["alertname"].removeprefix(PREFIX), labels["alertstate"])
            since[key] = min(float(series["values"][0][0]), since.get(key, float("inf")))
        return since

    def is_ready(self) -> bool:
        """Whether it scrapes and evaluates."""
        try:
            return fetch(self._port, "/-/ready")[0] == 200
        except (OSError, http.client.HTTPException):
            return False


@contextmanager
def prometheus(folder: Path, scraped: Sequence[tuple[str, int, float]]) -> Iterator[Prometheus]:
    """Scrape the server at each of these ports, and evaluate the rules, with the intervals of the deployment.

    The error budgets are computed over up to three days. So each namespace has a history of three days in which no
    request failed or was slow; without it every failure would be a large part of all requests.

    Args:
        folder: An empty folder for its files.
        scraped: For each server its namespace, the port of its metrics, and the requests a second of its history.
    """
    configuration = yaml.safe_load((FOLDER / "prometheus.yaml").read_text())
    configuration["rule_files"] = [str(FOLDER / file) for file in configuration["rule_files"]]
    targets = [{"targets": [f"127.0.0.1:{port}"], "labels": {"namespace": name}} for name, port, _ in scraped]
    configuration["scrape_configs"] = [{"job_name": NAME, "static_configs": targets}]
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(configuration))
    _write_history(folder / "history", scraped)
    subprocess.run(
        [find("promtool"), "tsdb", "create-blocks-from", "openmetrics", folder / "history", folder / "data"],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    port = free_port()
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [find("prometheus"), f"--config.file={folder / 'prometheus.yaml'}",
             f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{port}"],
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        running = Prometheus(port)
        eventually(running.is_ready, seconds=120, what=f"Prometheus; see {folder / 'log'}")
        yield running
    finally:
        process.terminate()
        process.wait(60)


def _write_history(file: Path, scraped: Sequence[tuple[str, int, float]]) -> None:
    """Write three days of requests without a failure in OpenMetrics' format, which ends before the first scrape."""
    now = int(time.time())
    times = range(now - _HISTORY_SECONDS, now, _HISTORY_STEP)
    with file.open("w") as text:
        for metric, suffixes in _HISTORY.items():
            text.write(f"# TYPE {metric} {'histogram' if len(suffixes) > 1 else 'counter'}\n")
            for namespace, _, rate in scraped:
                labels = f'job="{NAME}",namespace="{namespace}",instance="history"'
                for moment in times:
                    count = (moment - times.start) * rate
                    text.writelines(f"{metric}{suffix % labels} {count} {moment}\n" for suffix in suffixes)
        text.write("# EOF\n")
