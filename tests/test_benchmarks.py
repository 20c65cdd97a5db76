import importlib
import json
import os
import platform
import re
import select
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from benchmarks import interpreters
from benchmarks.__main__ import LONG, QUESTIONS
from benchmarks.harness.numbers import paired
from benchmarks.harness.plots import Plot
from benchmarks.harness.reports import Claim, Report, Table
from benchmarks.tail.load import CONNECTIONS, send
from tests.paths import ROOT

BENCHMARKS = ROOT / "benchmarks"


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Call `python -m benchmarks`."""
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("question", QUESTIONS)
def test_every_benchmark_has_a_consistent_result(question):
    """`result.md` has the title of `result.json`, and `claims.md` has its claims."""
    folder = BENCHMARKS / question
    result = json.loads((folder / "result.json").read_text())

    assert (folder / "result.md").read_text().startswith(f"# {result['title']}\n")
    for claim in result["claims"]:
        assert claim["measured"] in (BENCHMARKS / "claims.md").read_text()
    assert importlib.import_module(f"benchmarks.{question}").run


def test_the_peers_share_the_releases_of_this_service():
    """A package that a peer and this service both use has one release, so the packages make no difference."""
    peers = _pins(BENCHMARKS / "peers/applications/requirements.txt")
    ours = _pins(ROOT / "requirements/development.txt")

    assert {"asyncpg", "fastapi", "pydantic", "uvicorn", "uvloop"} <= peers.keys() & ours.keys()
    assert {name: ours[name] for name in peers.keys() & ours.keys()}.items() <= peers.items()


def _pins(file: Path) -> dict[str, str]:
    """The releases in a file of requirements, by the name of the package."""
    return dict(re.findall(r"(?m)^([a-z0-9-]+)\S*==([^\s;]+)", file.read_text()))


def test_results_do_not_name_the_machine():
    """No result contains the path of the repository or the name of the host."""
    host = os.uname().nodename
    for file in BENCHMARKS.glob("*/result.*"):
        text = file.read_text()

        assert str(ROOT) not in text
        assert host not in text


def test_an_unknown_benchmark_is_refused():
    """The error is one sentence that lists the benchmarks."""
    done = run("nonsense")

    assert done.returncode == 1
    assert done.stderr == f"There is no benchmark nonsense; choose from {', '.join(QUESTIONS + LONG)}.\n"


@pytest.mark.parametrize("question", ["request", "threads", "memory"])
def test_a_missing_load_generator_is_named(question, tmp_path):
    """Without wrk the benchmark ends at once, with a sentence that names wrk."""
    done = run(question, PATH=str(tmp_path))

    assert done.returncode == 1
    assert done.stderr.startswith("wrk is missing")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "scheme", "compiled"),
    [
        ("--enable-optimizations", "venv", "with PGO"),
        ("--enable-shared", "deb_system", "with PGO"),
        ("--enable-shared", "venv", "without PGO"),
    ],
)
def test_a_named_interpreter_is_measured_and_says_how_it_was_compiled(
    tmp_path, monkeypatch, arguments, scheme, compiled
):
    """`PYTHONS` names interpreters. One has a profile if it was configured with it, or is Debian's, which hides it."""
    named = tmp_path / "python"
    pretend = f"sysconfig.get_config_vars()['CONFIG_ARGS'] = '{arguments}'"
    pretend += f"; sysconfig.get_scheme_names = lambda: ['{scheme}']; runpy.run_path('$1', run_name='__main__')"
    named.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "import runpy, sysconfig; {pretend}"\n')
    named.chmod(0o755)
    monkeypatch.setenv("PYTHONS", str(named))
    monkeypatch.setattr(interpreters, "MINORS", ())

    [(name, (path, compiler))] = interpreters.installed_interpreters().items()
    assert (f"{platform.python_version()} {compiled}", str(named)) == (name, path)
    assert (scheme == "deb_system") == compiler.startswith("by Debian's rules, ")


def test_ratios_are_paired():
    """The ratio is computed within each pair, so a slow round and an outlier do not change the median."""
    ratio = paired([2, 20, 2, 4, 90], [1, 10, 1, 2, 1])

    assert (2, 2, 2) == (ratio.median, ratio.low, ratio.high)
    assert "2.00 (2.00 to 2.00)" == str(ratio)


def test_a_report_is_written_in_three_formats(tmp_path):
    """JSON, Markdown and SVG; the same values give the same bytes."""
    report = Report(
        title="A question",
        method="Somehow.",
        tables=[Table(title="Numbers", columns=["", "µs"], rows=[["this", "1.00"]])],
        plot=Plot(title="Bars", unit="µs", groups={"case": {"this": 1.0, "that": 2.0}}),
        claims=[Claim(claimed="a", measured="b", why="c")],
        facts={"this": 1.0},
    )
    report.write(tmp_path)
    first = (tmp_path / "result.svg").read_bytes()
    report.write(tmp_path)

    assert {"this": 1.0} == json.loads((tmp_path / "result.json").read_text())["facts"]
    assert "| this | 1.00 |" in (tmp_path / "result.md").read_text()
    assert b"that" in first
    assert first == (tmp_path / "result.svg").read_bytes()


def test_requests_that_a_hanging_server_delays_count_as_late():
    """While the server hangs, requests become due at the same rate, and more of them are late than it has clients."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

    def serve(listener: socket.socket) -> None:
        clients = [listener.accept()[0] for _ in range(CONNECTIONS)]
        number = 0
        while clients:
            for client in select.select(clients, (), ())[0]:
                if not client.recv(4096):
                    clients.remove(client)
                    client.close()
                    continue
                number += 1
                if number == 50:
                    time.sleep(0.2)
                client.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve, args=[listener], daemon=True)
        server.start()
        seconds = send(listener.getsockname()[1], "/", rate=500, seconds=0.4)
        server.join()

    assert 200 == len(seconds)
    assert sum(value > 0.02 for value in seconds) > 2 * CONNECTIONS
