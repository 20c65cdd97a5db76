"""Makes environments of Python in temporary folders."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_UV = str(Path(sys.executable).with_name("uv"))


def make_environment(folder: Path, requirements: Path, *, python: str = sys.executable) -> str:
    """Install the requirements for an interpreter, and return the path of `python` in the new environment."""
    made = str(folder / "bin/python")
    run_or_exit([_UV, "venv", "--quiet", "--no-config", "--python", python, str(folder)])
    run_or_exit(
        [_UV, "pip", "install", "--quiet", "--no-config", "--python", made, "--requirements", str(requirements)]
    )
    return made


def run_or_exit(command: Sequence[str], folder: Path | None = None) -> None:
    """Run a command in the folder, and end with its error if it fails."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"Failed; a package index must be in reach: {' '.join(command)}\n{done.stderr[-2000:]}")
