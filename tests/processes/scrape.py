"""Reads the metrics as Prometheus does."""

import http.client
from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]
"""Values by name and labels."""


def fetch(port: int, target: str, *, timeout_seconds: float = 10) -> tuple[int, bytes]:
    """The status and the body of a GET, on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_seconds)
    try:
        connection.request("GET", target)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def scrape(port: int, *, counters_only: bool = False) -> Samples:
    """All samples, or only those of counters and histograms, which must never decrease."""
    status, body = fetch(port, "/metrics")
    assert 200 == status, body
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(body.decode())
        if not counters_only or family.type in {"counter", "histogram"}
        for sample in family.samples
    }


def total(samples: Samples, name: str, labels: Mapping[str, str] | None = None) -> float:
    """The sum of the samples of this name that have these labels."""
    wanted = set((labels or {}).items())
    return sum(value for (found, have), value in samples.items() if found == name and wanted <= have)
