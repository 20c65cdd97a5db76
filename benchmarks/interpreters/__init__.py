"""Measures this service and the floor on each CPython that is installed, and on those that `PYTHONS` names."""

import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from benchmarks.harness import interpreter
from benchmarks.harness.databases import databases
from benchmarks.harness.environments import make_environment
from benchmarks.harness.load import CASES, require_wrk
from benchmarks.harness.numbers import format_number, paired
from benchmarks.harness.plots import Plot
from benchmarks.harness.progress import Progress
from benchmarks.harness.reports import Report, Table
from benchmarks.harness.servers import ROOT, Server, service, uvicorn
from benchmarks.request.sides import FLOOR, SERVICE, Samples, take_turns, warm_up_all

ROUNDS = 7
SECONDS = 2.0

MINORS = (11, 12, 13, 14)
"""Of Python 3. One that is not installed is left out."""

_METHOD = """
This service and the floor, each on each CPython, with the packages of the image (`requirements/runtime.txt`). All take
turns over 32 connections of wrk, with a table of 10,000 items in one PostgreSQL. CPU is the user and system time of
the worker. Ratios are paired within a round: the tables show their median and their quartiles. How an interpreter was
compiled matters as much as its release. One is said to be optimized with a profile (PGO) if it was configured with
`--enable-optimizations`, or if it is Debian's: its rules use PGO and LTO, and remove both from what `sysconfig` says.
"""


def run() -> Report:
    """Run the benchmark."""
    require_wrk()
    interpreters = installed_interpreters()
    progress = Progress("interpreters", ROUNDS * len(CASES) * len(interpreters) * 2 + 2)
    samples: Samples = {}
    progress.step("installing the packages")
    with (
        tempfile.TemporaryDirectory(prefix="interpreters-") as folder,
        databases({"max_connections": str(len(interpreters) * 40)}) as made,
        ExitStack() as stack,
    ):
        servers = {}
        for name, (python, _) in interpreters.items():
            environment = make_environment(Path(folder, name), ROOT / "requirements" / "runtime.txt", python=python)
            for server in _servers(name, environment, (made.create(), made.create())):
                servers[server.name] = stack.enter_context(server), server.environment["DATABASE_URL"]
        progress.step("warming up")
        warm_up_all(servers)
        take_turns(servers, progress, samples, rounds=ROUNDS, seconds=SECONDS)
    progress.end()
    return _report(samples, {name: compiled for name, (_, compiled) in interpreters.items()})


def installed_interpreters() -> dict[str, tuple[str, str]]:
    """Path and compiler by release: those that `PYTHONS` names, with colons between them, this one, pyenv's and uv's.

    Of two with the same name the first is taken.
    """
    paths = [path for path in os.environ.get("PYTHONS", "").split(os.pathsep) if path]
    for minor in MINORS:
        path = sys.executable if minor == sys.version_info.minor else _find(f"3.{minor}")
        paths += [path] if path else []
    found: dict[str, tuple[str, str]] = {}
    for path in paths:
        described = subprocess.run([path, interpreter.__file__], check=True, capture_output=True, text=True)
        name, compiled = described.stdout.splitlines()
        found.setdefault(name, (path, compiled))
    return found


def _find(release: str) -> str | None:
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    for python in sorted(versions.glob(f"{release}.*/bin/python")):
        return str(python)
    uv = [str(Path(sys.executable).with_name("uv")), "python", "find", "--no-config", "--no-python-downloads", release]
    done = subprocess.run(uv, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def _servers(release: str, python: str, urls: tuple[str, str]) -> tuple[Server, Server]:
    # Started in its folder: the packages of the image are too few for the one around it.
    floor = uvicorn(
        f"{FLOOR}, {release}", "floor:with_reset", urls[0], python=python, folder=ROOT / "benchmarks" / "request"
    )
    return floor, service(f"{SERVICE}, {release}", urls[1], python=python, DATABASE_CONNECTIONS="10")


def _report(samples: Samples, compilers: dict[str, str]) -> Report:
    cpu = {key: [sample.cpu_us for sample in taken] for key, taken in samples.items()}
    names = [case.name for case in CASES]
    first = next(iter(compilers))

    def medians(side: str, release: str) -> dict[str, float]:
        return {name: median(cpu[name, f"{side}, {release}"]) for name in names}

    def ratios(release: str, other: str) -> list[str]:
        return [str(paired(cpu[name, f"{SERVICE}, {release}"], cpu[name, other])) for name in names]

    return Report(
        title="What one request costs on each CPython",
        method=_METHOD,
        tables=[
            Table(
                title="CPU per request, µs",
                columns=["", "compiled", *names],
                rows=[
                    [f"{side}, {release}", compiler, *map(format_number, medians(side, release).values())]
                    for side in (SERVICE, FLOOR)
                    for release, compiler in compilers.items()
                ],
            ),
            Table(
                title=f"This service, as a multiple of itself on {first}",
                columns=["", *names],
                rows=[[release, *ratios(release, f"{SERVICE}, {first}")] for release in compilers],
            ),
            Table(
                title="This service, as a multiple of the floor on the same CPython",
                columns=["", *names],
                rows=[[release, *ratios(release, f"{FLOOR}, {release}")] for release in compilers],
            ),
        ],
        plot=Plot(
            title="Worker CPU per request of this service",
            unit="µs",
            groups={name: {release: medians(SERVICE, release)[name] for release in compilers} for name in names},
        ),
        facts={
            side: {
                release: {name: round(value, 1) for name, value in medians(side, release).items()}
                for release in compilers
            }
            for side in (SERVICE, FLOOR)
        },
    )
