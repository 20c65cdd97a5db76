"""A copy of the project in a git repository of its own."""

import shutil
import subprocess
import sys
from pathlib import Path

from tests.paths import ROOT

_LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", ".postgres", ".*cache", ".hypothesis", ".coverage*", "__pycache__", "node_modules"
)


def copy_project(folder: Path) -> None:
    """Copy the project into a new folder, committed, with the environment of the tests."""
    shutil.copytree(ROOT, folder, ignore=_LEFT_OUT)
    add_environment(folder)
    git(folder, "init", "--quiet")
    commit(folder)


def add_environment(folder: Path) -> None:
    """Give the project the environment of the tests."""
    (folder / ".venv").mkdir()
    for part in ("bin", "lib", "pyvenv.cfg"):
        (folder / ".venv" / part).symlink_to(Path(sys.prefix, part))
    (folder / ".venv/installed").touch()


def add_type_cache(folder: Path) -> None:
    """Give the project what mypy knows after `make check`, so that it need not read all libraries again."""
    if (ROOT / ".mypy_cache").exists():
        shutil.copytree(ROOT / ".mypy_cache", folder / ".mypy_cache")


def git(folder: Path, *arguments: str) -> str:
    """The output of a command of git."""
    identity = ("-c", "user.name=tests", "-c", "user.email=tests@example.com")
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


def commit(folder: Path) -> None:
    """Commit everything."""
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--no-verify", "--message=everything")
