"""The programs that some tests need and that Python's packages do not bring.

A test names what it needs: `@pytest.mark.needs("redis-server")`. Where that is missing the test is skipped,
and the last lines of the run say what to install. With CI=true it fails.
"""

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from _pytest.nodes import Node

from app.embedded_postgres.programs import find_binaries, run
from tests.paths import ROOT

_LIST = ".ci/programs.txt"

_DEBIAN_PACKAGES: dict[str, str] = dict(
    line.split() for line in (ROOT / _LIST).read_text().splitlines() if not line.startswith("#")
)

KNOWN = frozenset(_DEBIAN_PACKAGES)
"""The names of the programs."""

_EXTENSIONS = ("hstore", "pg_trgm")
"""Of PostgreSQL. The one that comes as a Python package has none of them."""

_POSTGRESQL = "postgresql"
"""The system's PostgreSQL, with all of its programs."""

_ROOT = "root"
"""The right to do everything."""

_declared: set[str] = set()
"""What the running test names."""


def find(name: str) -> str:
    """The path of a program.

    Raises:
        AssertionError: The running test does not say that it needs the program.
    """
    assert name in _declared, f'Mark this test with @pytest.mark.needs("{name}"): it may be missing.'
    path = _path(name)
    assert path, f"{name} is missing"
    return path


def declare(test: Node) -> list[str]:
    """Take note of what a test needs that is about to run, and return what of that is missing."""
    _declared.clear()
    _declared.update(name for marker in test.iter_markers("needs") for name in marker.args)
    return sorted(name for name in _declared if not _is_there(name))


def how_to_get(names: Iterable[str]) -> Iterator[str]:
    """A line for each of the names."""
    for name in names:
        if name == _ROOT:
            yield f"{name}: run the tests as root"
        elif name == _POSTGRESQL or name in _EXTENSIONS:
            yield f"{name}: apt-get install postgresql postgresql-contrib"
        else:
            yield f"{name}: apt-get install {_DEBIAN_PACKAGES[name]}"


def _is_there(name: str) -> bool:
    if name == _ROOT:
        return os.geteuid() == 0
    if name == _POSTGRESQL:
        return "site-packages" not in find_binaries().parts
    if name in _EXTENSIONS:
        shared = run([str(find_binaries() / "pg_config"), "--sharedir"]).stdout.strip()
        return Path(shared, "extension", f"{name}.control").exists()
    return _path(name) is not None


def _path(name: str) -> str | None:
    assert name in _DEBIAN_PACKAGES, f"{name} does not stand in {_LIST}"
    # An ordinary user's PATH has no folders of servers.
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
