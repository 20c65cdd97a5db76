"""The response to a scrape."""

import asyncio
from collections import deque
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from app.metrics.instruments import Metrics
from app.metrics.master import MasterEvents
from app.metrics.slot_files import WorkersCollector

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4

_MOST_IN_PERIOD: Final = 4
"""How many times a worker renders its metrics within `_PERIOD_SECONDS`. Further scrapes wait together."""

_PERIOD_SECONDS: Final = 1.0


class Exposition:
    """Renders the metrics of all workers, one scrape at a time, in a thread.

    Reading the files of five workers takes about 20 ms. A limit on how often
    that is done keeps many scrapers from slowing down other clients.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._registry = metrics.registry
        if metrics.folder is not None:
            self._registry = CollectorRegistry()
            WorkersCollector(self._registry, metrics.folder)
            self._registry.register(MasterEvents(metrics.folder))
        self._running: asyncio.Task[bytes] | None = None
        self._next: asyncio.Task[bytes] | None = None
        self._starts = deque[float](maxlen=_MOST_IN_PERIOD)

    async def scrape(self) -> bytes:
        """The metrics at a time after this call, within about a second.

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
            await asyncio.sleep(self._starts[0] + _PERIOD_SECONDS - loop.time())
        self._starts.append(loop.time())
        self._running, self._next = self._next, None
        return await asyncio.to_thread(self.render)

    def render(self) -> bytes:
        """The current metrics."""
        return generate_latest(self._registry)
