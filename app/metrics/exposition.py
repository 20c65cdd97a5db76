"""The response to a scrape."""

import asyncio
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from app.metrics.instruments import HEARTBEAT_AGE, Metrics
from app.metrics.master import MasterEvents
from app.metrics.slot_files import WorkersCollector

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4

_MOST_IN_PERIOD: Final = 4
"""How many times a worker renders its metrics within `_PERIOD_SECONDS`. Further scrapes wait together."""

_PERIOD_SECONDS: Final = 1.0

_LONGEST_PERIOD_SECONDS: Final = 4.0

_PERIOD_FACTOR: Final = 10
"""The period is extended so that renderings take at most a tenth of it, up to the longest period."""

_SWITCH_SECONDS: Final = 0.0005
"""How long the thread that renders keeps the interpreter while the event loop waits for it."""


class HeartbeatAges(Collector):
    """The metrics of another collector, with the ages of heartbeats in place of their times."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def collect(self) -> Iterator[Metric]:
        """The metrics at this moment."""
        for metric in self._collector.collect():
            yield _ages(metric) if metric.name == HEARTBEAT_AGE else metric


def _ages(times: Metric) -> Metric:
    family, now = GaugeMetricFamily(times.name, times.documentation, labels=["worker"]), time.monotonic()
    for sample in times.samples:
        if sample.value:  # The worker has set it: its file has a series before the series has a value.
            family.add_metric([sample.labels["worker"]], max(0.0, now - sample.value))
    return family


@contextmanager
def _short_switch_interval() -> Iterator[None]:
    """Give the interpreter to the event loop soon after it asks: by default another thread keeps it for 5 ms more."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


class Exposition:
    """Renders the metrics of all workers, one scrape at a time, in a thread.

    Reading the files of five workers takes about 20 ms. A limit on how often
    that is done keeps many scrapers from slowing down other clients. Nothing
    is cached: a scrape is rendered after it was asked for.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._registry = CollectorRegistry()
        if metrics.folder is None:
            self._registry.register(HeartbeatAges(metrics.registry))
        else:
            self._registry.register(HeartbeatAges(WorkersCollector(metrics.folder)))
            self._registry.register(MasterEvents(metrics.folder))
        self._running: asyncio.Task[bytes] | None = None
        self._next: asyncio.Task[bytes] | None = None
        self._starts = deque[float](maxlen=_MOST_IN_PERIOD)
        self._cpu_seconds = deque[float](maxlen=_MOST_IN_PERIOD)

    async def scrape(self) -> bytes:
        """The metrics at a time after this call, within about a second, or four if rendering is expensive.

        Calls share the next rendering while one runs, and while there have been as many as are allowed.
        """
        if self._next is None:
            self._next = asyncio.create_task(self._render_after(self._running))
        return await asyncio.shield(self._next)

    async def _render_after(self, running: asyncio.Task[bytes] | None) -> bytes:
        if running is not None:
            await asyncio.wait([running])
        loop = asyncio.get_running_loop()
        if len(self._starts) == _MOST_IN_PERIOD:
            await asyncio.sleep(self._starts[0] + self._period_seconds() - loop.time())
        self._starts.append(loop.time())
        self._running, self._next = self._next, None
        return await asyncio.to_thread(self._render_in_thread)

    def _period_seconds(self) -> float:
        return max(_PERIOD_SECONDS, min(_PERIOD_FACTOR * sum(self._cpu_seconds), _LONGEST_PERIOD_SECONDS))

    def _render_in_thread(self) -> bytes:
        began = time.thread_time()
        try:
            with _short_switch_interval():
                return self.render()
        finally:
            self._cpu_seconds.append(time.thread_time() - began)

    def render(self) -> bytes:
        """The current metrics."""
        return generate_latest(self._registry)
