"""The figures in the README are those of the pages that they name as their source."""

import re

import pytest

from tests.paths import ROOT

README = (ROOT / "README.md").read_text()

ROWS = [
    line for line in README.split("\n## Three measured figures\n")[1].split("\n## ")[0].splitlines() if "](" in line
]

NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")


def numbers(text):
    """The numbers in a text, without the commas between their thousands."""
    return [number.replace(",", "") for number in NUMBER.findall(text)]


@pytest.mark.parametrize("row", [row for row in ROWS if row.startswith("| ")])
def test_a_figure_stands_in_its_source(row):
    """Each number of the row's figure is a number of the linked page, rounded to as many decimals."""
    _, _, figure, source, _ = row.split("|")
    (page,) = re.findall(r"\]\(([^)]+)\)", source)
    found = numbers((ROOT / page).read_text())
    shown = numbers(figure.replace("page of 20", "page"))

    assert shown
    for number in shown:
        decimals = len(number.partition(".")[2])
        assert number in {f"{float(one):.{decimals}f}" for one in found}, (page, number)


def test_there_are_three_figures():
    """The section has as many rows as its heading says."""
    assert len([row for row in ROWS if row.startswith("| ")]) == 3


def table(page, heading):
    """The lines of the table below a heading."""
    lines = page.split(f"\n## {heading}\n")[1].split("\n## ")[0].splitlines()
    return [line for line in lines if line.startswith("| ")]


def test_the_peers_are_those_of_the_last_measurement():
    """The table is that of the result: after a measurement, copy it from there."""
    measured = (ROOT / "benchmarks" / "peers" / "result.md").read_text()

    assert table(measured, "This service, divided by each peer") == table(README, "Its cost beside other frameworks")
