import importlib
import json
import os
import subprocess
import sys
from typing import Any

import pytest

from benchmarks.__main__ import LONG, QUESTIONS
from benchmarks.harness.numbers import paired
from benchmarks.harness.reports import Claim, Plot, Report, Table
from tests.paths import ROOT

BENCHMARKS = ROOT / "benchmarks"


def facts(question: str) -> Any:
    """The numbers of a question's last result."""
    return json.loads((BENCHMARKS / question / "result.json").read_text())["facts"]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Call `python -m benchmarks`."""
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(("case", "most"), [("read by id", 3.0), ("page of 20", 2.5), ("create", 3.0)])
def test_a_request_costs_few_times_the_floor(case, most):
    """By the last result, with everything on."""
    assert facts("request")["multiple_of_floor"][case] <= most


@pytest.mark.parametrize("case", ["read by id", "page of 20", "create"])
def test_a_request_is_five_times_cheaper_than_by_the_common_pattern(case):
    """By the last result, with the same controls."""
    assert facts("request")["times_cheaper_than_common_pattern"][case] >= 5


def test_four_workers_weigh_little_do_not_grow_and_start_soon():
    """By the last result: at most 60 MB each, no growth over 100,000 requests, and ready within two seconds."""
    found = facts("memory")

    assert len(found["pss_mb"]["after"]) == 4
    assert max(found["pss_mb"]["after"]) <= 60
    assert found["growth_mb"] < 2
    assert sorted(found["ready_seconds"])[len(found["ready_seconds"]) // 2] <= 2


@pytest.mark.parametrize("question", QUESTIONS)
def test_every_question_has_its_result_beside_it(question):
    """Its numbers, its tables, and what it claims in the table of all claims."""
    folder = BENCHMARKS / question
    result = json.loads((folder / "result.json").read_text())

    assert (folder / "result.md").read_text().startswith(f"# {result['title']}\n")
    for claim in result["claims"]:
        assert claim["measured"] in (BENCHMARKS / "claims.md").read_text()
    assert importlib.import_module(f"benchmarks.{question}").run


def test_results_do_not_tell_where_they_were_made():
    """Neither a path nor a name of the machine stands in them."""
    host = os.uname().nodename
    for file in BENCHMARKS.glob("*/result.*"):
        text = file.read_text()

        assert str(ROOT) not in text
        assert host not in text


def test_an_unknown_question_is_refused_in_one_sentence():
    """It names those that there are."""
    done = run("nonsense")

    assert done.returncode == 1
    assert done.stderr == f"There is no question nonsense; there are {', '.join(QUESTIONS + LONG)}.\n"


@pytest.mark.parametrize("question", ["request", "threads", "memory"])
def test_a_missing_load_generator_is_named(question, tmp_path):
    """Where wrk is not installed, nothing else is tried."""
    done = run(question, PATH=str(tmp_path))

    assert done.returncode == 1
    assert done.stderr.startswith("wrk is missing")
    assert "Traceback" not in done.stderr


def test_ratios_are_paired():
    """A slow round slows both sides of its pair, and one that went wrong does not count."""
    ratio = paired([2, 20, 2, 4, 90], [1, 10, 1, 2, 1])

    assert (2, 2, 2) == (ratio.median, ratio.low, ratio.high)
    assert "2.00 (2.00 to 2.00)" == str(ratio)


def test_a_report_is_written_in_three_forms(tmp_path):
    """JSON to compute with, Markdown to read, SVG to look at, with the same bytes for the same values."""
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
