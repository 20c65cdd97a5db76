"""Folders that PostgreSQL's user can reach. When the tests run as root it cannot reach pytest's own."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.embedded_postgres.programs import account, find_binaries, identity


@pytest.fixture
def checkout() -> Iterator[Path]:
    """A folder in place of a checkout. Servers that a test leaves running in it are stopped."""
    folder = Path(tempfile.mkdtemp(prefix="checkout-"))
    folder.chmod(0o755)
    yield folder
    for pid_file in folder.glob("**/postmaster.pid"):
        owner = pid_file.stat()
        subprocess.run(
            [find_binaries() / "pg_ctl", "stop", "--mode=immediate", f"--pgdata={pid_file.parent}"],
            check=False, cwd="/", **(identity() and {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}),
        )  # fmt: skip
    shutil.rmtree(folder)


@pytest.fixture
def own_folder(checkout: Path) -> Path:
    """A private folder of PostgreSQL's user."""
    folder = checkout / ".postgres"
    folder.mkdir(mode=0o700)
    if user := account():
        os.chown(folder, user.pw_uid, user.pw_gid)
    return folder
