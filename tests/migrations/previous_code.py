"""Finds the code that may still run while the newest revisions are applied."""

import re
import subprocess
from pathlib import Path


def git(root: Path, *arguments: str) -> str:
    """The output of a git command in this repository."""
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout.strip()


def previous_code(root: Path, newest_revision: Path) -> str | None:
    """The tag or commit that the release before was made from, None if there is none.

    It is the newest tag of a release other than this version. Before the first release, it is the newest commit that
    does not have the newest revision: main is deployed, and this commit is what runs when the revision is applied.
    """
    tags = git(root, "tag", "--list", "v*", "--sort=-version:refname").split()
    project = (root / "pyproject.toml").read_text()
    this_version = f"v{_value(project, 'version')}"
    if tag := next((tag for tag in tags if tag != this_version), None):
        return tag
    changelog = (root / "CHANGELOG.md").read_text()
    assert len(re.findall(r"^## \[\d", changelog, re.MULTILINE)) <= 1, (
        "the tags of the previous releases are missing: run git fetch --tags"
    )
    added = git(root, "log", "--diff-filter=A", "--format=%H", "--max-count=1", "--", str(newest_revision))
    if not added:
        return "HEAD"  # the revision is not committed yet
    parents = git(root, "log", "--format=%P", "--max-count=1", added).split()
    if not parents:
        assert git(root, "rev-parse", "--is-shallow-repository") == "false", (
            "the history is missing: run git fetch --unshallow"
        )
        return None
    # A service that was generated from another one has that one's history.
    is_this_service = _value(git(root, "show", f"{parents[0]}:pyproject.toml"), "name") == _value(project, "name")
    return parents[0] if is_this_service else None


def _value(project: str, name: str) -> str:
    found = re.search(rf'^{name} = "(.*)"', project, re.MULTILINE)
    assert found
    return found[1]
