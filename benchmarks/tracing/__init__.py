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

ROUNDS = 5
SECONDS = 1.0

_OFF = "off"
_RATIOS = {"1 % of the requests": ("0.01", 6), "all requests": ("1", 2)}
"""What is traced, with OTEL_TRACES_SAMPLER_ARG and the number of series."""

_METHOD = f"""
One worker for each way to run this service, with all controls on, under wrk with 32 connections. The figure is the CPU
time of the worker per request, with all of its threads, so that the export of the spans is in it. Tracing off and on
are measured in turns of {SECONDS:g} s, {ROUNDS} rounds in each series. Each series starts new processes, because two
processes of one program differ by some percent. The part of the requests is compared in
{_RATIOS["1 % of the requests"][1]} series, and all requests in {_RATIOS["all requests"][1]} of their own: a worker that
traces all of them is still sending spans when its turn has ended. The figures are the medians of all rounds; "relative
to off" is the median of the ratios in each round, with the quartiles. A collector in another process takes the spans.
"""


def run() -> Report:
    """Run the benchmark."""
    require_wrk()
    progress = Progress("tracing", sum(series for _, series in _RATIOS.values()) * ROUNDS * len(CASES) * 2)
    cpu: dict[tuple[str, str, str], list[float]] = {}
    for traced in _RATIOS:
        for (case, way), taken in _measure(traced, progress).items():
            cpu[traced, case, way] = [sample.cpu_us for sample in taken]
    progress.end()
    cases = [case.name for case in CASES]
    ratios = {
        traced: {case: paired(cpu[traced, case, traced], cpu[traced, case, _OFF]) for case in cases}
        for traced in _RATIOS
    }
    rows = [
        [
            f"{case}, {traced}",
            *(format_number(median(cpu[traced, case, way])) for way in (_OFF, traced)),
            str(ratios[traced][case]),
        ]
        for traced in _RATIOS
        for case in cases
    ]
    return Report(
        title="Tracing",
        method=_METHOD,
        tables=[Table(title="Worker CPU per request", columns=["", "off, µs", "on, µs", "relative to off"], rows=rows)],
        facts={
            "relative_to_off": {
                traced: {case: round(ratio.median, 3) for case, ratio in of_cases.items()}
                for traced, of_cases in ratios.items()
            }
        },
    )


def _measure(traced: str, progress: Progress) -> Samples:
    samples: Samples = {}
    ratio, series = _RATIOS[traced]
    with collecting() as collector:
        for _ in range(series):
            with databases() as made, ExitStack() as stack:
                servers = {}
                for way, settings in {_OFF: {}, traced: _settings(collector, ratio)}.items():
                    url = made.create()
                    server = service(way, url, workers=1, DATABASE_CONNECTIONS="20", **settings)
                    servers[way] = stack.enter_context(server), url
                warm_up_all(servers)
                take_turns(servers, progress, samples, rounds=ROUNDS, seconds=SECONDS)
    return samples


def _settings(collector: Collector, ratio: str) -> dict[str, str]:
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": ratio,
    }
