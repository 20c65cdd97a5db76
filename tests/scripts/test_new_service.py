import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.names import Name, UnusableNameError
from scripts.service_names import ServiceName
from tests.copies import add_environment, git

pytestmark = pytest.mark.needs("git")

WORDS_OF_OTHERS = {
    r"\.items\(\)": r".*\.(?:py|txt)",  # the method of dictionaries
    r"__getitem__": r".*\.py",
    r"^\s*items:": r"deploy/kubernetes/.*",  # of Kubernetes
    r'\["items"\]': r"tests/deploy/test_.*\.py",  # of Kubernetes
    r'member\["items"\]': r"app/http/openapi\.py",  # of JSON Schema
    r"\bitems(?=: |:$|\.sort)": r"tests/deploy/conftest\.py",  # the argument of a hook of pytest
}
"""Where the word may still be in a new service because it has another meaning, and in which files."""


def new_service(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the program."""
    # Without an identity in git's settings, as in a new container.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "COVERAGE"))}
    return subprocess.run(
        [sys.executable, "scripts/new_service.py", *arguments],
        cwd=folder, env=environment | {"HOME": str(folder.parent)},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def grep(folder: Path, *arguments: str) -> list[str]:
    """The lines of the committed files that git finds, in upper or lower case."""
    command = ["git", "grep", "-I", "--ignore-case", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout.splitlines()


def traces(folder: Path) -> list[str]:
    """The lines that name the items."""
    found = []
    for path, text in (line.split(":", 1) for line in grep(folder, "-E", r"\bitems?\b|items?_|_items?|items?-")):
        left = text
        for pattern, place in WORDS_OF_OTHERS.items():
            if re.fullmatch(place, path):
                left = re.sub(pattern, "", left)
        if re.search(r"\bitems?\b|items?[_-]|_items?\b", left, re.IGNORECASE):
            found.append(f"{path}: {text}")
    return found


def run(folder: Path, program: str, *arguments: str) -> None:
    """Assert that a program of the environment succeeds."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE", "PYTEST"))}
    done = subprocess.run(
        [Path(sys.executable).parent / program, *arguments],
        cwd=folder, env=kept, capture_output=True, text=True, check=False, timeout=400,
    )  # fmt: skip
    assert 0 == done.returncode, f"{program}: {done.stdout}{done.stderr}"


def test_a_service_has_its_own_names_and_no_trace_of_the_items(repository, tmp_path):
    """It is one commit, passes the checks and the tests of its names, and can get a second resource."""
    service = tmp_path / "shelf"
    done = new_service(repository, "book-shelf", "--resource", "import", service)

    assert 0 == done.returncode, done.stderr
    assert 1 == len(git(service, "log", "--oneline").splitlines())
    assert "" == git(service, "status", "--porcelain")
    assert [] == traces(service)
    assert [] == grep(service, "--word-regexp", "item")
    assert (service / "app" / "crud" / "import_.py").exists()
    assert (service / "migrations" / "versions" / "book_0001_create_imports.py").exists()
    assert "[Unreleased]\n" == (service / "CHANGELOG.md").read_text()[-13:]
    run(service, "ruff", "format", "--check")
    run(service, "ruff", "check")
    run(service, "pytest", "-q", "-p", "no:cacheprovider", "tests/test_product_name.py", "tests/scripts/test_names.py",
        "tests/crud/test_import_idempotency.py", "tests/deploy/test_release_guide.py",
        "tests/migrations/test_import_version_table.py::test_the_old_table_may_be_dropped")  # fmt: skip
    add_environment(service)
    run(service, "python", "scripts/new_resource.py", "category")
    assert "/categories" in (service / "app" / "routers" / "category.py").read_text()
    run(service, "ruff", "check")
    run(service, "pytest", "-q", "-p", "no:cacheprovider", "tests/crud/test_category_idempotency.py",
        "tests/migrations/test_import_version_table.py::test_a_revision_without_tables_is_refused",
        "tests/migrations/test_session.py::test_a_role_without_ddl_cannot_migrate",
        "tests/migrations/test_revisions.py::test_the_models_match_the_revisions")  # fmt: skip


def test_a_service_that_cannot_be_made_is_refused(repository, tmp_path):
    """One sentence says why, and nothing is written."""
    full = tmp_path / "full"
    full.mkdir()
    (full / "file").touch()
    for arguments, reason in [
        (["orders", "--resource", "order", tmp_path / "new"], "two words"),
        (["Orders-API", "--resource", "order", tmp_path / "new"], "not a name of a service"),
        (["orders-api", "--resource", "Order", tmp_path / "new"], "'Order' is not a name"),
        (["orders-api", "--resource", "sample", tmp_path / "new"], "/samples has another use"),
        (["orders-api", "--resource", "order", full], "exists already"),
        (["orders-api", "--resource", "order", repository / "new"], "is in this project"),
        (["orders-api", "--resource", "order", full / "file" / "new"], "cannot be read or written: Not a directory"),
    ]:
        done = new_service(repository, *arguments)
        assert 1 == done.returncode, arguments
        assert done.stderr.startswith("Error: ")
        assert reason in done.stderr
        assert 1 == len(done.stderr.splitlines())
    assert not (tmp_path / "new").exists()


def test_a_dry_run_makes_no_service(repository, tmp_path):
    """It lists the files."""
    done = new_service(repository, "orders-api", "--resource", "order", "--dry-run", tmp_path / "new")

    assert 0 == done.returncode, done.stderr
    assert "app/crud/order.py" in done.stdout.splitlines()
    assert not (tmp_path / "new").exists()


def test_a_tree_with_changes_is_not_copied(repository, tmp_path):
    """The copy would not be what is committed."""
    (repository / "README.md").write_text("changed")

    done = new_service(repository, "orders-api", "--resource", "order", tmp_path / "new")

    assert (1, "Error: The tree has changes that are not committed: commit or stash them first.\n") == (
        done.returncode, done.stderr,
    )  # fmt: skip


def test_each_place_gets_the_form_of_the_name_that_it_needs():
    """Kubernetes, PostgreSQL, alerts, titles and prose."""
    forms = ServiceName("order-book-api", Name("order", "orders")).forms()

    assert {
        "SERVICE_KEBAB": "order-book-api",
        "SERVICE_SNAKE": "order_book_api",
        "SERVICE_CAMEL": "OrderBookApi",
        "SERVICE_TITLE": "Order Book API",
        "SERVICE_TEXT": "order book API",
        "SERVICE_SHORT": "order_book",
    }.items() <= forms.items()


@pytest.mark.parametrize("name", ["orders", "", "a_b", "A-b", "a-" + "b" * 25, "purchase-order"])
def test_a_name_that_cannot_be_a_service_is_refused(name):
    """The message says what to write."""
    with pytest.raises(UnusableNameError, match="write"):
        ServiceName(name, Name("purchase_order", "purchase_orders"))
