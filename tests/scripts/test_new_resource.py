import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.copies import add_type_cache
from tests.paths import ROOT
from tests.scripts.conftest import commit, git

WORD_OF_PYTHON = next(word for word in ("class", "lambda") if not (ROOT / f"app/models/{word}_.py").exists())
WORD_OF_SQL = next(word for word in ("reference", "overlap") if not (ROOT / f"app/models/{word}.py").exists())
"""Its plural is a word of SQL."""

pytestmark = pytest.mark.needs("git")


def new_resource(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the program."""
    command = [sys.executable, "scripts/new_resource.py", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)


def check(folder: Path, program: str, *arguments: str) -> None:
    """Assert that a program of the environment succeeds."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE", "PYTEST"))}
    done = subprocess.run(
        [folder / ".venv" / "bin" / program, *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=400,
    )  # fmt: skip
    assert 0 == done.returncode, f"{program}: {done.stdout}{done.stderr}"


def test_resources_pass_the_checks_and_their_own_tests(repository):
    """Two resources, named by a word of Python and one of SQL: all checks, and the tests of the second one."""
    for singular in (WORD_OF_PYTHON, WORD_OF_SQL):
        done = new_resource(repository, singular)
        assert 0 == done.returncode, done.stderr
        commit(repository)
    written = git(repository, "diff", "--name-only", "--diff-filter=A", "HEAD~2").split()
    own_tests = [
        f"tests/crud/test_{WORD_OF_SQL}.py",
        f"tests/crud/test_{WORD_OF_SQL}_idempotency.py",
        f"tests/crud/test_{WORD_OF_SQL}_feed.py",
        f"tests/routers/test_{WORD_OF_SQL}.py",
    ]

    assert {f"app/crud/{WORD_OF_PYTHON}_.py", f"app/routers/{WORD_OF_SQL}.py", *own_tests} <= set(written)
    texts = "".join((repository / path).read_text() for path in written)
    assert not re.search("trgm|letter_pairs", texts)  # they are for the previous release alone
    check(repository, "ruff", "format", "--check")
    check(repository, "ruff", "check")
    add_type_cache(repository)
    check(repository, "mypy", *(path for path in written if path.endswith(".py")))
    check(repository, "bandit", "--quiet", "--recursive", "--configfile", "pyproject.toml", "app")
    check(repository, "pytest", "-q", "-p", "no:cacheprovider", *own_tests, "tests/docs/test_layout.py",
          "tests/migrations/test_revisions.py::test_the_models_match_the_revisions")  # fmt: skip


def test_a_name_that_cannot_be_used_is_refused(repository):
    """One sentence says why, and nothing is written."""
    for arguments, reason in [
        (["item"], "/items exists already"),
        (["sample"], "/samples has another use"),
        (["page"], "Lists have a member pages"),
        (["Order"], "'Order' is not a name"),
        (["doc"], "/docs has another use"),
    ]:
        done = new_resource(repository, *arguments)
        assert 1 == done.returncode
        assert done.stderr.startswith("Error: ")
        assert reason in done.stderr
        assert 1 == len(done.stderr.splitlines())
    assert "" == git(repository, "status", "--porcelain")


def test_a_dry_run_writes_nothing(repository):
    """It lists what would be written."""
    done = new_resource(repository, "--dry-run", "quokka")

    assert 0 == done.returncode, done.stderr
    assert "new      app/crud/quokka.py" in done.stdout
    assert "changed  app/main.py" in done.stdout
    assert "" == git(repository, "status", "--porcelain")


def test_a_tree_with_changes_is_refused(repository):
    """What the program writes could not be told from the changes."""
    (repository / "README.md").write_text("changed")

    done = new_resource(repository, "quokka")

    assert (1, "Error: The tree has changes that are not committed: commit or stash them first.\n") == (
        done.returncode, done.stderr,
    )  # fmt: skip
    assert " M README.md\n" == git(repository, "status", "--porcelain")


def test_a_failure_leaves_the_tree_as_it_was(repository):
    """If a step fails, the new files are removed and the changed ones restored."""
    model = repository / "app" / "models" / "item.py"
    model.write_text(model.read_text() + "\nassert not __import__('sys').argv[1:2] == ['quokkas']\n")
    commit(repository)

    done = new_resource(repository, "quokka")

    assert 1 == done.returncode
    assert "AssertionError" in done.stderr
    assert "" == git(repository, "status", "--porcelain")
