"""The project that a program writes to: whether it may, and what it runs there."""

import subprocess  # nosec B404
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


class RefusedError(Exception):
    """The program does not run. The message says why, and what to do."""


def run(root: Path, *command: str | Path) -> str:
    """The output of a command in the project's folder.

    Raises:
        RefusedError: The command fails.
    """
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)  # noqa: S603  # nosec B603
    except FileNotFoundError:
        raise RefusedError(f"{command[0]} is missing: install it.") from None
    if done.returncode:
        raise RefusedError(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}".rstrip())
    return done.stdout


def succeeds(root: Path, *command: str) -> bool:
    """Whether a command ends with success."""
    try:
        run(root, *command)
    except RefusedError:
        return False
    return True


def require_clean(root: Path) -> None:
    """Refuse a tree with changes that are not committed: what the program writes could not be told from them.

    Raises:
        RefusedError: There are such changes, or the folder is not a git repository.
    """
    if not (root / ".git").exists():
        raise RefusedError(f"{root} is not a git repository: run `git init`, then commit everything.")
    if run(root, "git", "status", "--porcelain"):
        raise RefusedError("The tree has changes that are not committed: commit or stash them first.")


def install(root: Path) -> None:
    """Make the environment of the project, if there is none."""
    if not (root / ".venv" / "bin" / "ruff").exists():
        sys.stdout.write("Installing the locked requirements into .venv, which takes a minute or more.\n")
        sys.stdout.flush()
        run(root, "make", "install")


def write(files: Mapping[Path, str]) -> None:
    """Write these files."""
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def format_files(root: Path, paths: Sequence[Path], *, ruff: Path | None = None) -> None:
    """Sort imports, format, and mark texts that a longer name has made too long."""
    ruff = ruff or root / ".venv" / "bin" / "ruff"
    files = [path for path in paths if path.suffix in ("", ".py")]
    check = (ruff, "check", "--quiet", "--exit-zero")
    run(root, *check, "--fix", "--fixable", "I", *files)
    run(root, ruff, "format", "--quiet", *files)
    # A line that the formatter breaks leaves its `noqa` behind, and the mark of a long line can make it break the next.
    # ARG001 is the one other rule from which a line is excepted that can be broken.
    for _ in range(2):
        run(root, *check, "--select", "E501,ARG001", "--add-noqa", *files)
        run(root, *check, "--fix", "--fixable", "RUF100", *files)
        run(root, ruff, "format", "--quiet", *files)


@contextmanager
def restored_after_failure(new: Sequence[Path], changed: Sequence[Path]) -> Iterator[None]:
    """Remove the new files and restore the changed ones if the block fails."""
    before = {path: path.read_text("utf-8") for path in changed}
    try:
        yield
    except BaseException:
        write(before)
        for path in new:
            path.unlink(missing_ok=True)
        raise
