import shutil
from pathlib import Path

import pytest

from tests.copies import commit, git
from tests.migrations.previous_code import previous_code

pytestmark = pytest.mark.needs("git")


@pytest.fixture
def repository(tmp_path):
    """A repository with a commit for each of two revisions, and a later one."""
    git(tmp_path, "init", "--quiet")
    (tmp_path / "CHANGELOG.md").write_text("## [Unreleased]\n")
    (tmp_path / "pyproject.toml").write_text('name = "letters"\nversion = "1.0.0"\n')
    for name in ("0001_first.py", "0002_second.py", "readme"):
        (tmp_path / name).touch()
        commit(tmp_path)
    return tmp_path


def head(repository: Path, name: str = "HEAD") -> str:
    """The id of a commit."""
    return git(repository, "rev-parse", name).strip()


def test_before_the_first_release_it_is_the_commit_before_the_newest_revision(repository):
    """Later commits have the revision, so they are not compared with it."""
    assert head(repository, "HEAD~2") == previous_code(repository, Path("0002_second.py"))


def test_a_revision_that_is_not_committed_is_compared_with_the_newest_commit(repository):
    """It is tested before it is committed."""
    (repository / "0003_third.py").touch()

    assert "HEAD" == previous_code(repository, Path("0003_third.py"))


def test_the_newest_release_before_this_version_comes_first(repository):
    """The tag of this version is not compared with itself."""
    for tag in ("v0.9.0", "v0.10.0", "v1.0.0"):
        git(repository, "tag", tag)

    assert "v0.10.0" == previous_code(repository, Path("0002_second.py"))


def test_nothing_is_before_the_first_revision(repository):
    """The first commit has no parent."""
    assert previous_code(repository, Path("0001_first.py")) is None


def test_another_service_is_not_the_release_before(repository):
    """A service that is generated from this one has its history."""
    (repository / "pyproject.toml").write_text('name = "parcels"\nversion = "1.0.0"\n')
    shutil.move(repository / "0002_second.py", repository / "0002_parcels.py")
    commit(repository)

    assert previous_code(repository, Path("0002_parcels.py")) is None


def test_missing_tags_are_not_taken_for_a_first_release(repository):
    """A changelog with two releases needs the tag of the first one."""
    (repository / "CHANGELOG.md").write_text("## [1.0.0]\n\n## [0.9.0]\n")

    with pytest.raises(AssertionError, match="run git fetch --tags"):
        previous_code(repository, Path("0002_second.py"))


def test_a_missing_history_is_not_taken_for_a_first_release(repository, tmp_path_factory):
    """A shallow clone does not have the commit."""
    clone = tmp_path_factory.mktemp("clone")
    git(clone, "clone", "--quiet", "--depth=2", f"file://{repository}", ".")

    with pytest.raises(AssertionError, match="run git fetch --unshallow"):
        previous_code(clone, Path("0002_second.py"))
