"""Patroni, as requirements/patroni.txt locks it, in a folder that PostgreSQL's user may read."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from app.embedded_postgres.programs import identity
from tests.paths import ROOT
from tests.patroni.processes import start_in

_SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"


class Patroni:
    """The program and the control program beside it."""

    def __init__(self, folder: Path) -> None:
        """Install it into this folder, for the system's Python: PostgreSQL's user cannot enter every home directory."""
        python = shutil.which("python3", path=_SYSTEM_PATH)
        assert python, "the system has no python3"
        self._python, self._packages = python, folder
        install = ["pip", "install", "--quiet", "--require-hashes", f"--target={folder}", f"--python={python}"]
        lock = ROOT / "requirements" / "patroni.txt"
        subprocess.run([sys.executable, "-m", "uv", *install, f"--requirements={lock}"], check=True)

    def start(self, configuration: Path, variables: dict[str, str], *, folder: Path) -> None:
        """Start the server of one node, with its output in `log` in its folder."""
        start_in(folder, [self._python, "-m", "patroni", configuration], self._environment(variables))

    def control(self, configuration: Path, variables: dict[str, str], *arguments: str) -> None:
        """Run `patronictl` with these arguments."""
        subprocess.run(
            [self._python, "-c", "from patroni.ctl import ctl; ctl()", f"--config-file={configuration}", *arguments],
            env=self._environment(variables), cwd=configuration.parent, stdin=subprocess.DEVNULL, check=True,
            capture_output=True, timeout=60, **identity(),
        )  # fmt: skip

    def _environment(self, variables: dict[str, str]) -> dict[str, str]:
        return variables | {
            "PATH": os.environ.get("PATH", os.defpath),
            "LC_ALL": "C.UTF-8",
            "PYTHONPATH": str(self._packages),
        }
