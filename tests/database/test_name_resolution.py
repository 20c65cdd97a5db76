"""Connecting while no name server answers."""

import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from tests.paths import ROOT

SCRIPT = """
import asyncio, gc, socket
import structlog, uvloop
from app import logs
from app.errors import DatabaseUnavailableError, root_cause
from tests.databases import ONE, connected

silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
silent.bind(("127.0.0.1", 53))

async def main():
    logs.configure("info", "json")
    logs.capture_loop_failures(asyncio.get_running_loop())
    async with connected("postgresql://a@database.example/b") as database:
        try:
            await database.run(ONE, {})
        except DatabaseUnavailableError as error:
            structlog.get_logger().warning("refused", cause=root_cause(error))
    await asyncio.sleep(4)  # longer than the lookup
    gc.collect()

uvloop.run(main())
logs.flush()
"""


@pytest.mark.needs("unshare", "root", "ip")
def test_a_slow_lookup_is_reported_once(tmp_path: Path) -> None:
    """The attempt to connect says that it has timed out. When the lookup then fails as well, no line is logged."""
    resolver = tmp_path / "resolv.conf"
    resolver.write_text("nameserver 127.0.0.1\noptions timeout:3 attempts:1\n")
    prepare = f'ip link set lo up; mount --bind {resolver} /etc/resolv.conf; exec "$@"'
    done = subprocess.run(
        ["unshare", "--mount", "--net", "sh", "-ec", prepare, "sh", sys.executable, "-c", SCRIPT],
        cwd=ROOT, capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    (line,) = map(orjson.loads, done.stdout.splitlines())

    assert b"" == done.stderr
    assert ("refused", "TimeoutError: connecting to PostgreSQL failed: no answer in time") == (
        line["event"], line["cause"],
    )  # fmt: skip
