"""What contributors are promised works."""

import re
import subprocess

import yaml

from tests.paths import ROOT


def test_make_alone_lists_every_line():
    """Each target of the Makefile that is no file stands in the list, with what it does."""
    phony = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    # These tests run below a make themselves, and one below another says which folder it enters.
    make = ["make", "--no-print-directory"]
    listed = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert phony

    assert sorted(phony[1].split()) == sorted(line.split()[1] for line in listed)
    assert all(len(line.split()) > 3 for line in listed)


def test_the_workflow_runs_what_everybody_can_run():
    """The forge checks by the same script, on pull requests too, and with no rights to write."""
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yaml").read_text())
    steps = [step.get("run", "") for job in workflow["jobs"].values() for step in job["steps"]]

    assert "bash .ci/run" in steps
    assert "pull_request" in workflow[True]  # YAML reads the key `on` so
    assert {"contents": "read"} == workflow["permissions"]


def test_the_forms_ask_for_what_is_needed():
    """Each form has a name, a description, and fields with a label."""
    forms = [yaml.safe_load(file.read_text()) for file in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yaml")]

    assert len(forms) == 2
    for form in forms:
        assert form["name"]
        assert form["description"]
        assert all(field["attributes"]["label"] for field in form["body"])
