"""The commands and forms for contributors work."""

import re
import subprocess

import yaml

from tests.paths import ROOT


def test_make_lists_every_target():
    """`make` lists each phony target with a description."""
    phony = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    # The tests may run under make, and a make that runs under another prints the folder it enters.
    make = ["make", "--no-print-directory"]
    listed = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert phony

    assert sorted(phony[1].split()) == sorted(line.split()[1] for line in listed)
    assert all(len(line.split()) > 3 for line in listed)


def test_the_workflow_runs_the_script_of_the_repository():
    """The forge runs `.ci/run`, on pull requests too, with read access only."""
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yaml").read_text())
    steps = [step.get("run", "") for job in workflow["jobs"].values() for step in job["steps"]]

    assert "bash .ci/run" in steps
    assert "pull_request" in workflow[True]  # YAML reads the key `on` as true
    assert {"contents": "read"} == workflow["permissions"]


def test_every_issue_form_is_complete():
    """Each form has a name, a description, and fields with a label."""
    forms = [yaml.safe_load(file.read_text()) for file in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yaml")]

    assert len(forms) == 2
    for form in forms:
        assert form["name"]
        assert form["description"]
        assert all(field["attributes"]["label"] for field in form["body"])
