"""The commands and forms for contributors work."""

import os
import re
import subprocess
from typing import Any

import pytest
import yaml

import app
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


def test_a_release_is_published_for_two_architectures_with_attestations():
    """Only tags are published, for amd64 and arm64, with an SBOM and provenance. No job writes more than packages."""
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "publish.yaml").read_text())
    build, publish = workflow["jobs"]["build"], workflow["jobs"]["publish"]
    (command,) = (step["run"] for step in build["steps"] if "docker buildx build" in step.get("run", ""))
    (index,) = (step["run"] for step in publish["steps"] if "imagetools create" in step.get("run", ""))

    assert {"push": {"tags": ["v*"]}} == workflow[True]  # YAML reads the key `on` as true
    assert [{}, {"contents": "read", "packages": "write"}, {"packages": "write"}] == [
        part["permissions"] for part in (workflow, build, publish)
    ]
    architectures = [entry["architecture"] for entry in build["strategy"]["matrix"]["include"]]
    assert ["amd64", "arm64"] == architectures
    assert all(f'"$image-{architecture}"' in index for architecture in architectures)
    assert {"--push", "--sbom=true", "--provenance=mode=max"} <= set(command.split())
    assert "build" == publish["needs"]


def test_a_tag_is_compared_with_the_version_of_the_project():
    """The first command of a release accepts the tag of the project's version, and no other."""
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "publish.yaml").read_text())
    (check,) = (step["run"] for step in workflow["jobs"]["build"]["steps"] if "pyproject.toml" in step.get("run", ""))

    def accepted(tag: str) -> bool:
        command = ["bash", "-euo", "pipefail", "-c", check]
        environment = {"PATH": os.environ["PATH"], "GITHUB_REF_NAME": tag}
        return not subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False).returncode

    assert accepted(f"v{app.__version__}")
    assert not accepted("v0.0.1")


def test_every_waiver_of_checkov_has_a_reason():
    """A comment stands before each check that is skipped, and the workflow runs Checkov with this file."""
    file = (ROOT / ".checkov.yaml").read_text()
    waivers = yaml.safe_load(file)["skip-check"]
    steps = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yaml").read_text())["jobs"]["checkov"]["steps"]

    assert waivers == re.findall(r"^  # [A-Z].+\.\n  - (CKV\w+)$", file, re.MULTILINE)
    assert any("--config-file .checkov.yaml" in step.get("run", "") for step in steps)


def test_every_issue_form_is_complete():
    """Each form has a name, a description, and fields with a label."""
    forms = [yaml.safe_load(file.read_text()) for file in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yaml")]

    assert len(forms) == 2
    for form in forms:
        assert form["name"]
        assert form["description"]
        assert all(field["attributes"]["label"] for field in form["body"])


def test_every_action_is_pinned_to_a_commit():
    """An action is named by a commit, not by a tag, which its owner can move."""
    used = [
        line.split("uses:")[1].strip()
        for file in (ROOT / ".github" / "workflows").glob("*.yaml")
        for line in file.read_text().splitlines()
        if "uses:" in line
    ]

    assert used
    for action in used:
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}  # v[\d.]+", action), action


def hooks() -> list[dict[str, Any]]:
    """The hooks of pre-commit."""
    configured = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert {"local"} == {repository["repo"] for repository in configured}
    return [hook for repository in configured for hook in repository["hooks"]]


@pytest.mark.parametrize("hook", [hook for hook in hooks() if hook["id"] != "check"], ids=lambda hook: str(hook["id"]))
def test_a_hook_before_a_commit_checks_the_changed_files(hook: dict[str, Any]):
    """Each hook runs a tool of `.venv` and accepts a formatted file."""
    file = ROOT / "tests" / "paths.py"

    done = subprocess.run([*hook["entry"].split(), file], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert hook["language"] == "system"


def test_the_full_check_runs_before_a_push():
    """`make check` is a hook of the push, not of the commit."""
    (check,) = (hook for hook in hooks() if hook["id"] == "check")

    assert (check["entry"], check["stages"]) == ("make check", ["pre-push"])


def test_dependabot_updates_every_kind_of_dependency():
    """Python packages, images and actions each have an entry, and the folders that it names exist."""
    updates = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text())["updates"]

    assert {"pip", "docker", "docker-compose", "github-actions"} == {entry["package-ecosystem"] for entry in updates}
    for entry in updates:
        for folder in entry.get("directories", [entry.get("directory")]):
            assert (ROOT / folder.strip("/")).is_dir(), folder


def test_every_path_with_an_owner_exists():
    """Each line of CODEOWNERS has an existing path and an owner."""
    lines = [line.split() for line in (ROOT / ".github" / "CODEOWNERS").read_text().splitlines() if line[:1] in "*/"]

    assert lines
    for path, *owners in lines:
        assert path == "*" or (ROOT / path.strip("/")).exists(), path
        assert owners
