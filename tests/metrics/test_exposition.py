import asyncio
import sys
import time

import pytest

from app.metrics import exposition as module
from app.metrics.exposition import Exposition
from app.metrics.instruments import Metrics
from tests.metrics.conftest import series

pytestmark = pytest.mark.anyio


async def test_concurrent_scrapes_share_one_rendering(monkeypatch: pytest.MonkeyPatch):
    """A hundred concurrent scrapes are rendered twice, and the event loop is not blocked meanwhile."""
    exposition = Exposition(Metrics())
    renders: list[float] = []

    def render() -> bytes:
        renders.append(time.perf_counter())
        time.sleep(0.1)
        return b""

    monkeypatch.setattr(exposition, "render", render)
    scrapes = asyncio.gather(*(exposition.scrape() for _ in range(50)))
    await asyncio.sleep(0.02)
    late = asyncio.gather(*(exposition.scrape() for _ in range(50)))
    started = time.perf_counter()
    await asyncio.sleep(0.01)
    assert time.perf_counter() - started < 0.08
    await scrapes
    await late

    assert 2 == len(renders)


async def test_a_scrape_contains_everything_reported_before_it():
    """A scrape that has already started is not the answer to a later call."""
    metrics = Metrics()
    exposition = Exposition(metrics)

    async def scrape() -> float:
        return series((await exposition.scrape()).decode())["database_pool_timeouts_total"]

    scrapes = []
    for _ in range(100):
        metrics.pool_timed_out()
        scrapes.append(asyncio.create_task(scrape()))
        await asyncio.sleep(0.0005)

    assert all(count <= found for count, found in enumerate(await asyncio.gather(*scrapes), start=1))


async def test_many_scrapers_cause_four_renderings_a_period(monkeypatch: pytest.MonkeyPatch):
    """Further scrapes wait for the next rendering together, and each shows what was reported before it."""
    monkeypatch.setattr(module, "_PERIOD_SECONDS", 0.2)
    exposition = Exposition(Metrics())
    renders: list[float] = []

    def render() -> bytes:
        renders.append(time.monotonic())
        return b""

    async def scrape_repeatedly() -> None:
        for _ in range(12):
            called = time.monotonic()
            await exposition.scrape()
            assert called <= renders[-1]

    monkeypatch.setattr(exposition, "render", render)
    await asyncio.gather(*(scrape_repeatedly() for _ in range(16)))

    assert 12 <= len(renders) <= 14
    assert all(last - first > 0.15 for first, last in zip(renders, renders[4:], strict=False))


async def test_a_cancelled_scrape_does_not_cancel_the_others():
    """The calls that share a rendering get their answer."""
    exposition = Exposition(Metrics())
    first = asyncio.create_task(exposition.scrape())
    second = asyncio.create_task(exposition.scrape())
    await asyncio.sleep(0)
    first.cancel()

    assert b"http_requests_inprogress 0.0" in await second


async def test_renderings_take_a_tenth_of_the_time(monkeypatch: pytest.MonkeyPatch):
    """If a rendering is expensive, the period is as long as ten times what the renderings in it take, up to a limit."""
    monkeypatch.setattr(module, "_PERIOD_SECONDS", 0.1)
    exposition = Exposition(Metrics())
    starts: list[float] = []

    def render() -> bytes:
        starts.append(time.monotonic())
        began = time.thread_time()
        while time.thread_time() - began < 0.01:
            pass
        return b""

    monkeypatch.setattr(exposition, "render", render)
    for _ in range(5):
        await exposition.scrape()
    assert starts[4] - starts[0] > 0.35

    monkeypatch.setattr(module, "_LONGEST_PERIOD_SECONDS", 0.2)
    assert 0.2 == exposition._period_seconds()


@pytest.mark.parametrize("fails", [False, True])
async def test_a_rendering_lets_the_event_loop_run(monkeypatch: pytest.MonkeyPatch, fails: bool):
    """While it runs, threads change ten times as often as by default. Afterwards the interval is as before."""
    exposition = Exposition(Metrics())
    before = sys.getswitchinterval()
    during: list[float] = []

    def render() -> bytes:
        during.append(sys.getswitchinterval())
        if fails:
            raise OSError
        return b""

    monkeypatch.setattr(exposition, "render", render)
    await asyncio.gather(exposition.scrape(), return_exceptions=True)

    assert [0.0005] == pytest.approx(during)
    assert before == sys.getswitchinterval()
