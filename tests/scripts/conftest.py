"""The project that the programs change."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.copies import commit as commit
from tests.copies import copy_project
from tests.copies import git as git


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Path]:
    """A copy of the project, committed, with the environment of the tests."""
    folder = tmp_path / "repository"
    copy_project(folder)
    yield folder
    shutil.rmtree(folder)
