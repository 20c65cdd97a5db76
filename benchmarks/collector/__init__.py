"""Measures the cost of Python's cyclic garbage collector for a request, by default and frozen."""

import asyncio
import gc
import io
import os
import time
from contextlib import redirect_stdout
from importlib import import_module
from statistics import median
from typing import Any

from app import logs
from app.main import create_app
from app.settings import Settings
from app.worker.server import _COLLECTOR_THRESHOLDS
from benchmarks.harness.databases import databases
from benchmarks.harness.numbers import format_number, paired
from benchmarks.harness.progress import Progress
from benchmarks.harness.reports import Claim, Report, Table
from benchmarks.steps.routes import receive, scope, send

CALLERS = 16
CALLS = 40
ROUNDS = 9

_SERVICE = "this service"
_COMMON = "common pattern"
_DEFAULT = "Python's default"
_FROZEN = "frozen after the start, with high thresholds"
_METHOD = f"""
One process runs the whole application with a real database. In each round {CALLERS} concurrent callers request an item
{CALLS} times each. The figures are CPU time per request, and the collector's part of it. The common pattern uses
BaseHTTPMiddleware and sessions of the ORM.
"""

Times = dict[tuple[str, str], list[float]]
"""Microseconds a request by application and collector, one value a round."""


def run() -> Report:
    """Run the benchmark."""
    progress = Progress("collector", 2 * ROUNDS)
    with databases() as made:
        cpu, collecting = asyncio.run(_measure(made.create(), progress))
    progress.end()
    saved = {name: 1 - 1 / paired(cpu[name, _DEFAULT], cpu[name, _FROZEN]).median for name in (_SERVICE, _COMMON)}
    rows = [
        [f"{name}: {way}", format_number(median(values)), format_number(median(collecting[name, way]))]
        for (name, way), values in cpu.items()
    ]
    return Report(
        title="The garbage collector",
        method=_METHOD,
        tables=[Table(title="A read by id", columns=["", "CPU, µs", "collector, µs"], rows=rows)],
        claims=[
            Claim(
                claimed="A frozen collector saves a third of the CPU of a request",
                measured=f"{saved[_SERVICE]:.0%} here, {saved[_COMMON]:.0%} of the common pattern",
                why="Reference counting frees nearly all objects of a request here, so the collector has little to do. "
                "Kept: frozen pages also stay shared between the workers",
            )
        ],
        facts={"cpu_us": {f"{name}, {way}": round(median(values), 1) for (name, way), values in cpu.items()}},
    )


async def _measure(url: str, progress: Progress) -> tuple[Times, Times]:
    cpu: Times = {}
    collecting: Times = {}
    null_device = os.open(os.devnull, os.O_WRONLY)
    settings = Settings.load(database_url=url, rate_limit_read="1000000000/minute", log_format="json", _env_file=None)
    service = create_app(settings)
    async with service.router.lifespan_context(service):
        logs.output.descriptor = null_device
        await _compare(service, _SERVICE, cpu, collecting, progress)
    os.environ["DATABASE_URL"] = url
    with io.StringIO() as quiet, redirect_stdout(quiet):
        common = import_module("benchmarks.request.common_pattern").app
        async with common.router.lifespan_context(common):
            await _compare(common, _COMMON, cpu, collecting, progress)
    logs.flush()
    os.close(null_device)
    return cpu, collecting


async def _compare(app: Any, name: str, cpu: Times, collecting: Times, progress: Progress) -> None:
    thresholds = gc.get_threshold()
    timer = _CollectionTimer()
    await _ask(app)
    gc.callbacks.append(timer)
    for number in range(ROUNDS):
        progress.step(f"{name}, round {number + 1}")
        for way in (_DEFAULT, _FROZEN):
            gc.unfreeze()
            gc.collect()
            if way == _FROZEN:
                gc.freeze()
            gc.set_threshold(*(_COLLECTOR_THRESHOLDS if way == _FROZEN else thresholds))
            timer.seconds = 0.0
            started = time.thread_time()
            await _ask(app)
            cpu.setdefault((name, way), []).append((time.thread_time() - started) / (CALLERS * CALLS) * 1e6)
            collecting.setdefault((name, way), []).append(timer.seconds / (CALLERS * CALLS) * 1e6)
    gc.callbacks.remove(timer)
    gc.unfreeze()
    gc.set_threshold(*thresholds)


async def _ask(app: Any) -> None:
    async def caller() -> None:
        for _ in range(CALLS):
            await app(scope("/items/5"), receive, send)

    await asyncio.gather(*(caller() for _ in range(CALLERS)))


class _CollectionTimer:
    """Adds up the time of all collections."""

    seconds = 0.0
    _started = 0.0

    def __call__(self, phase: str, _info: dict[str, int]) -> None:
        if phase == "start":
            self._started = time.thread_time()
        else:
            self.seconds += time.thread_time() - self._started
