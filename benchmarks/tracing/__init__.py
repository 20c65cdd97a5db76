"""Measures what tracing costs a request: switched off, and on with a part and with all of the requests traced."""

from contextlib import ExitStack
from statistics import median

from benchmarks.harness.databases import databases
from benchmarks.harness.load import CASES, require_wrk
from benchmarks.harness.numbers import format_number, paired
from benchmarks.harness.progress import Progress
from benchmarks.harness.reports import Report, Table
from benchmarks.harness.servers import service
from benchmarks.request.sides import Samples, take_turns, warm_up_all
from tests.tracing.collector import Collector, collecting

SERIES = 6
ROUNDS = 5
SECONDS = 1.0

_OFF = "off"
_RATIOS = {"1 % of the requests": "0.01", "all requests": "1"}
_METHOD = f"""
One worker for each way to run this service, with all controls on, under wrk with 32 connections. The figure is the CPU
time of the worker per request, with all of its threads, so that the export of the spans is in it. The ways are measured
in turns of {SECONDS:g} s, {ROUNDS} rounds in each of {SERIES} series. Each series starts new processes, because two
processes of one program differ by some percent. The figure is the median of all rounds; "relative to off" is the median
of the ratios in each round, with the quartiles. A collector in another process takes the spans.
"""


def run() -> Report:
    """Run the benchmark."""
    samples = _measure()
    cases = list(dict.fromkeys(case for case, _ in samples))
    cpu = {key: [sample.cpu_us for sample in taken] for key, taken in samples.items()}
    rows = [
        [
            f"{case}, {way}",
            format_number(median(cpu[case, way])),
            "" if way == _OFF else str(paired(cpu[case, way], cpu[case, _OFF])),
        ]
        for case in cases
        for way in (_OFF, *_RATIOS)
    ]
    return Report(
        title="Tracing",
        method=_METHOD,
        tables=[Table(title="Worker CPU per request", columns=["", "µs", "relative to off"], rows=rows)],
        facts={
            "relative_to_off": {
                way: {case: round(paired(cpu[case, way], cpu[case, _OFF]).median, 3) for case in cases}
                for way in _RATIOS
            }
        },
    )


def _measure() -> Samples:
    require_wrk()
    samples: Samples = {}
    ways = (_OFF, *_RATIOS)
    progress = Progress("tracing", SERIES * ROUNDS * len(CASES) * len(ways))
    with collecting() as collector:
        for _ in range(SERIES):
            with databases() as made, ExitStack() as stack:
                servers = {}
                for way in ways:
                    url = made.create()
                    environment = {} if way == _OFF else _settings(collector, _RATIOS[way])
                    server = service(way, url, workers=1, DATABASE_CONNECTIONS="20", **environment)
                    servers[way] = stack.enter_context(server), url
                warm_up_all(servers)
                take_turns(servers, progress, samples, rounds=ROUNDS, seconds=SECONDS)
    progress.end()
    return samples


def _settings(collector: Collector, ratio: str) -> dict[str, str]:
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": ratio,
    }
