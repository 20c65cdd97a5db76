import asyncio
import contextlib
import dataclasses
import os
import time
from pathlib import Path

import pytest

from tests.processes.history import History
from tests.processes.load import Report, Request, load, send_load
from tests.processes.scrape import fetch, scrape, total
from tests.processes.server import Server, eventually, service, without_coverage
from tests.processes.watch import print_figures


def in_namespace(*commands: str) -> tuple[str, ...]:
    """A command that runs its arguments in a mount namespace of its own."""
    return ("unshare", "--mount", "sh", "-ec", "; ".join([*commands, 'exec "$@"']), "sh")


class Creations:
    """Creations that must all succeed and be stored."""

    def __init__(self, url: str) -> None:
        self._history = History(url)
        self._report = Report()

    def send(self, server: Server, count: int = 200) -> None:
        """Send this many more creations."""
        sent = len(self._report.results)
        asyncio.run(
            send_load(
                server.port,
                rate=400,
                count=count,
                request=lambda number: self._history.creation(sent + number),
                report=self._report,
            )
        )
        assert {201: sent + count} == self._report.statuses

    def check(self) -> None:
        """Check that each of them is stored."""
        acknowledged = self._history.check(self._report)["acknowledged"]
        print_figures(acknowledged=acknowledged)
        assert acknowledged == len(self._report.results) > 0


@pytest.fixture
def creations(database_url: str) -> Creations:
    """Creations in this test's database."""
    return Creations(database_url)


def with_long_id(request: Request) -> Request:
    """The request with a long request id, so that its log line is long."""
    return dataclasses.replace(request, headers=(*request.headers, ("X-Request-ID", "y" * 128)))


@pytest.mark.slow
def test_a_full_standard_output_blocks_nothing(database_url):
    """Standard output is a pipe that nobody reads. Requests, a reload and the shutdown work; lost lines are counted."""
    history = History(database_url)

    def flooding(number: int) -> Request:
        if number % 24:
            return with_long_id(Request(target="/" + "x" * 190))
        return with_long_id(history.creation(100_000 + number // 24))

    reader, writer = os.pipe()
    # The test measures how long requests wait, so the server must not be slowed down by measuring coverage.
    server = without_coverage(service(database_url, workers=2))
    server.stdout = writer
    with server:
        os.close(writer)
        server.serving(workers=2)
        with load(server.port, rate=200, request=lambda number: with_long_id(history.request(number))) as report:
            time.sleep(2)
            server.reload()
        # Lines are lost only when a worker's queue of 4 MiB is full.
        flood = asyncio.run(send_load(server.port, rate=5_000, count=24_000, kept=40, request=flooding))
        dropped = eventually(
            lambda: total(scrape(server.port), "log_lines_dropped_total"), seconds=3, what="lines dropped"
        )
        assert 0 == server.stop(seconds=20)
        os.close(reader)

    acknowledged = history.check(report, flood)["acknowledged"]
    print_figures(
        all_but_1_percent=report.seconds(0.99),
        failed=len(report.failures()),
        lines_dropped=int(dropped),
        acknowledged=acknowledged,
    )
    assert [] == report.failures()
    assert report.seconds(0.99) < 0.5
    assert {404: 23_000, 201: 1_000} == flood.statuses
    assert acknowledged > 1_300
    assert dropped > 0


def test_the_service_works_without_a_standard_output(database_url, creations):
    """This holds if it is closed at the start, and if its reader ends later."""
    with service(database_url, workers=2).started_by("sh", "-c", 'exec "$@" >&- 2>&-', "sh") as server:
        server.serving(workers=2)
        creations.send(server)
        server.reload()
        creations.send(server)
        assert 0 == server.stop()
        assert "" == server.output()

    reader, writer = os.pipe()
    server = service(database_url, workers=2)
    server.stdout = writer
    with server:
        os.close(writer)
        server.serving(workers=2)
        os.close(reader)
        creations.send(server)
        server.reload()
        creations.send(server)
        assert 0 == server.stop()
    creations.check()


@pytest.mark.needs("unshare", "root")
@pytest.mark.parametrize("state", ["full", "filling up"])
def test_the_service_works_with_a_full_metrics_directory(database_url, creations, tmp_path, state):
    """Requests are served and rate limited. A scrape says whether it shows one worker or all."""
    folder = tmp_path / "metrics"
    folder.mkdir()
    options = {"full": "size=300k", "filling up": "size=4m"}[state]
    settings = {"METRICS_DIRECTORY": str(folder), "RATE_LIMIT_WRITE": "100000/minute"}
    inside = in_namespace(f"mount -t tmpfs -o {options} none {folder}")
    with service(database_url, workers=2, **settings).started_by(*inside) as server:
        server.serving(workers=2)
        workers = server.workers()
        if state == "filling up":
            creations.send(server, 50)
            folder_of_the_server = Path(f"/proc/{server.process.pid}/root{folder}")
            with contextlib.suppress(OSError), (folder_of_the_server / "filler").open("wb", buffering=0) as filler:
                while True:
                    filler.write(bytes(4096))
        creations.send(server)
        # New series need space.
        for number in range(200):
            fetch(server.port, f"/nothing/{number}")
            fetch(server.port, f"/samples/{number + 1}")
        samples = scrape(server.port)
        assert workers == server.workers()
        server.reload()
        creations.send(server)
        assert 0 == server.stop()

    creations.check()
    assert (state == "filling up") == total(samples, "metrics_shared")


@pytest.mark.needs("unshare", "root")
def test_a_read_only_metrics_directory_ends_the_start(database_url, tmp_path):
    """The folder exists, and no file can be made in it."""
    inside = in_namespace(f"mount -t tmpfs -o ro none {tmp_path}")
    with service(database_url, workers=2, METRICS_DIRECTORY=str(tmp_path)).started_by(*inside) as server:
        assert 1 == server.wait()
        assert f"Error: METRICS_DIRECTORY {tmp_path} cannot be used (Read-only file system)" in server.output()


@pytest.mark.needs("unshare", "root")
def test_the_service_works_on_a_read_only_root_file_system(database_url, creations):
    """It starts, serves, reloads and ends when only shared memory can be written."""
    with service(database_url, workers=2).started_by(*in_namespace("mount -o remount,bind,ro /")) as server:
        server.serving(workers=2)
        creations.send(server)
        assert 200 == fetch(server.port, "/health/ready")[0]
        assert 200 == total(scrape(server.port), "http_requests_total", {"method": "POST", "status": "201"})
        server.reload()
        creations.send(server)
        assert 0 == server.stop()
    creations.check()
