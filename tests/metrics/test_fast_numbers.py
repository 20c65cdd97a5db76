"""The library and the fast numbers agree on what was counted."""

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.values import MultiProcessValue, MutexValue

from app.metrics.fast_numbers import FastCounter, FastHistogram

BOUNDS = (0.01, 0.1, 1.0)
VALUES = (0.0, 0.005, 0.01, 0.010001, 0.1, 0.5, 1.0, 1.5, 40.0)


def count(*, fast: bool) -> str:
    """What is exposed after the same counts, by the library or by the fast numbers."""
    registry = CollectorRegistry()
    counter = Counter("requests", "Requests.", ["code"], registry=registry).labels("200")
    histogram = Histogram("seconds", "Seconds.", ["code"], buckets=BOUNDS, registry=registry).labels("200")
    counter.inc(3)
    histogram.observe(0.2)
    fast_counter, fast_histogram = FastCounter(counter), FastHistogram(histogram)
    for value in VALUES:
        if fast:
            fast_counter.increase()
            fast_histogram.observe(value)
        else:
            counter.inc()
            histogram.observe(value)
    for number in range(2_000):  # the file grows, and is mapped again
        Counter(f"other_{number}", "Others.", registry=registry).inc()
    if fast:
        fast_counter.increase()
    counter.inc(1 if fast else 2)
    exposed = registry
    if hasattr(counter._value, "_file"):
        exposed = CollectorRegistry()
        MultiProcessCollector(exposed)
    text = generate_latest(exposed).decode()
    return "\n".join(line for line in sorted(text.splitlines()) if "_created" not in line and "other_" not in line)


@pytest.mark.parametrize("in_files", [False, True])
def test_they_count_as_the_library_does(monkeypatch, tmp_path, in_files):
    """In memory and in files, on each bound, beside the library itself, and after the file has grown."""
    exposed = []
    for fast in (False, True):
        folder = tmp_path / str(fast)
        folder.mkdir()
        monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(folder))
        value_class = MultiProcessValue(lambda: "0") if in_files else MutexValue
        monkeypatch.setattr("prometheus_client.values.ValueClass", value_class)
        exposed.append(count(fast=fast))

    assert 'requests_total{code="200"} 14.0' in exposed[0]
    assert exposed[0] == exposed[1]
