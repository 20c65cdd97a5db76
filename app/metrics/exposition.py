"""The response to a scrape."""

import asyncio
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from app.metrics.instruments import Metrics
from app.metrics.master import MasterEvents
from app.metrics.slot_files import WorkersCollector

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4


class Exposition:
    """Renders the metrics of all workers, one scrape at a time, in a thread.

    Reading the files of five workers takes about 20 ms.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._registry = metrics.registry
        if metrics.folder is not None:
            self._registry = CollectorRegistry()
            WorkersCollector(self._registry, metrics.folder)
            self._registry.register(MasterEvents(metrics.folder))
        self._running: asyncio.Task[bytes] | None = None
        self._next: asyncio.Task[bytes] | None = None

    async def scrape(self) -> bytes:
        """The metrics at a time after this call. Calls during a running scrape share the next one."""
        if self._next is None:
            self._next = asyncio.create_task(self._render_after(self._running))
        return await asyncio.shield(self._next)

    async def _render_after(self, running: asyncio.Task[bytes] | None) -> bytes:
        if running is not None:
            await asyncio.wait([running])
        self._running, self._next = self._next, None
        return await asyncio.to_thread(self.render)

    def render(self) -> bytes:
        """The current metrics."""
        return generate_latest(self._registry)
