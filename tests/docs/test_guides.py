"""The changes in docs/guides can be made, and are right."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.copies import add_type_cache, commit, copy_project, git
from tests.docs.documents import PATCH, blocks
from tests.paths import ROOT

GUIDES = [page for page in sorted((ROOT / "docs/guides").glob("*.md")) if f"```{PATCH}\n" in page.read_text("utf-8")]

NEEDED = {"related-resource": ("scripts/new_resource.py", "review")}
"""The program that a guide runs first."""

LISTS = (
    "tests/docs/test_layout.py",
    "tests/docs/test_observe.py",
    "tests/metrics/test_instruments.py",
    "tests/settings/test_documentation.py",
    "tests/test_guard.py",
    "tests/test_imports.py",
    "tests/test_neutral.py",
    "tests/test_product_name.py",
    "tests/test_seams.py",
)
"""The tests that compare the code with lists, which a change must keep true."""

pytestmark = pytest.mark.needs("git")


def run(folder: Path, *command: str) -> None:
    """Run a command of the environment, which must succeed."""
    program = str(folder / ".venv/bin" / command[0])
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE", "PYTEST"))}
    ended = subprocess.run(
        [program, *command[1:]], cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert 0 == ended.returncode, f"{' '.join(command)}\n{ended.stdout}\n{ended.stderr}"


def changed(page: Path, folder: Path) -> list[str]:
    """Make the changes of a guide in a copy of the project, and return the files that they change."""
    if page.stem in NEEDED:
        run(folder, "python", *NEEDED[page.stem])
        commit(folder)
    patch = "".join(block.text for block in blocks(page) if block.kind == PATCH)
    subprocess.run(["git", "apply", "-"], cwd=folder, input=patch, capture_output=True, text=True, check=True)
    git(folder, "add", "--all", "--intent-to-add")
    return git(folder, "diff", "--name-only", "HEAD").split()


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_a_guide_fits_the_code(page, tmp_path):
    """The changes can be made, and add a test."""
    copy_project(tmp_path / "copy")

    assert any(Path(path).name.startswith("test_") for path in changed(page, tmp_path / "copy"))


@pytest.mark.slow
@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_a_guide_ends_green(page, tmp_path):
    """With the changes the checks pass, and so do the tests that the guide names."""
    folder = tmp_path / "copy"
    copy_project(folder)
    add_type_cache(folder)
    files = changed(page, folder)
    tests = [path for path in files if Path(path).name.startswith("test_")]
    run(folder, "ruff", "format", "--check")
    run(folder, "ruff", "check")
    run(folder, "lint-imports", "--no-logo")
    run(folder, "mypy", *(path for path in files if path.endswith(".py")))
    run(
        folder,
        "pytest",
        "-q",
        *tests,
        *LISTS,
    )
