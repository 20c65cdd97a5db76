"""Measures the CPU time of functions in turns, so that other load on the machine affects all of them alike."""

import gc
import time
from collections.abc import Awaitable, Callable, Mapping

Times = dict[str, list[float]]
"""CPU time per call in microseconds, by name, one value a round."""


def in_turns(cases: Mapping[str, Callable[[], object]], *, calls: int, rounds: int) -> Times:
    """Call each function `calls` times a round, and return the times."""
    times: Times = {name: [] for name in cases}
    for call in cases.values():
        call()
    for _ in range(rounds):
        for name, call in cases.items():
            gc.collect()
            started = time.thread_time()
            for _ in range(calls):
                call()
            times[name].append((time.thread_time() - started) / calls * 1e6)
    return times


async def in_turns_async(
    cases: Mapping[str, Callable[[], Awaitable[object]]],
    *,
    calls: int,
    rounds: int,
    clock: Callable[[], float] = time.thread_time,
) -> Times:
    """Await each function `calls` times a round, one call after the other.

    Args:
        cases: The functions by name.
        calls: How often each is called a round.
        rounds: How often the functions take turns.
        clock: The clock; `time.perf_counter` includes waiting.
    """
    times: Times = {name: [] for name in cases}
    for call in cases.values():
        await call()
    for _ in range(rounds):
        for name, call in cases.items():
            gc.collect()
            started = clock()
            for _ in range(calls):
                await call()
            times[name].append((clock() - started) / calls * 1e6)
    return times
