import asyncio
import contextlib
import os
import time
from pathlib import Path

import pytest

from tests.processes.history import create
from tests.processes.load import Report, Request, load, send_load
from tests.processes.scrape import fetch, scrape, total
from tests.processes.server import Server, eventually, service
from tests.processes.watch import measured


def in_namespace(*commands: str) -> tuple[str, ...]:
    """Runs what follows with mounts of its own."""
    return ("unshare", "--mount", "sh", "-ec", "; ".join([*commands, 'exec "$@"']), "sh")


def send(server: Server, count: int = 200) -> Report:
    """Create so many items."""
    return asyncio.run(send_load(server.port, rate=400, count=count, request=create))


@pytest.mark.slow
def test_a_log_that_nobody_reads_holds_nobody(database_url):
    """Standard output is a pipe that is full: requests, a reload and the end go on, and lost lines are counted."""
    reader, writer = os.pipe()
    server = service(database_url, workers=2)
    server.printing_to = writer
    with server:
        os.close(writer)
        server.serving(workers=2)
        with load(server.port, rate=200, request=lambda _: Request(target="/items?q=" + "x" * 90)) as report:
            time.sleep(2)
            server.reload()
        # A queue of 4 MiB a worker has to be full before lines are lost.
        long = Request(target="/" + "x" * 190, headers=(("X-Request-ID", "y" * 128),))
        flood = asyncio.run(send_load(server.port, rate=5_000, count=24_000, kept=40, request=lambda _: long))
        dropped = eventually(
            lambda: total(scrape(server.port), "log_lines_dropped_total"), seconds=3, what="lines dropped"
        )
        assert 0 == server.stop(seconds=20)
        os.close(reader)

    measured(all_but_1_percent=report.seconds(0.99), failed=len(report.failures()), lines_dropped=int(dropped))
    assert [] == report.failures()
    assert report.seconds(0.99) < 0.5
    assert {404: 24_000} == flood.statuses
    assert dropped > 0


def test_a_closed_standard_output_stops_nobody(database_url):
    """Started without one, or with one whose reader has gone, the service serves."""
    with service(database_url, workers=2).inside("sh", "-c", 'exec "$@" >&- 2>&-', "sh") as server:
        server.serving(workers=2)
        assert {201: 200} == send(server).statuses
        server.reload()
        assert {201: 200} == send(server).statuses
        assert 0 == server.stop()
        assert "" == server.output()

    reader, writer = os.pipe()
    server = service(database_url, workers=2)
    server.printing_to = writer
    with server:
        os.close(writer)
        server.serving(workers=2)
        os.close(reader)
        assert {201: 200} == send(server).statuses
        server.reload()
        assert {201: 200} == send(server).statuses
        assert 0 == server.stop()


@pytest.mark.parametrize("state", ["full", "read-only", "filling up"])
def test_a_folder_for_metrics_without_room_stops_nobody(database_url, tmp_path, state):
    """Requests are served and limited all the same; a scrape says whether it shows one worker or all."""
    folder = tmp_path / "metrics"
    folder.mkdir()
    options = {"full": "size=300k", "read-only": "ro", "filling up": "size=4m"}[state]
    settings = {"METRICS_DIRECTORY": str(folder), "RATE_LIMIT_WRITE": "100000/minute"}
    inside = in_namespace(f"mount -t tmpfs -o {options} none {folder}")
    with service(database_url, workers=2, **settings).inside(*inside) as server:
        server.serving(workers=2)
        workers = server.workers()
        if state == "filling up":
            assert {201: 50} == send(server, 50).statuses
            seen = Path(f"/proc/{server.process.pid}/root{folder}")
            with contextlib.suppress(OSError), (seen / "filler").open("wb", buffering=0) as filler:
                while True:
                    filler.write(bytes(4096))
        assert {201: 200} == send(server).statuses
        # New series want room.
        for number in range(200):
            fetch(server.port, f"/nothing/{number}")
            fetch(server.port, f"/items/{number + 1}")
        samples = scrape(server.port)
        assert workers == server.workers()
        server.reload()
        assert {201: 200} == send(server).statuses
        assert 0 == server.stop()

    assert (state == "filling up") == total(samples, "metrics_shared")


def test_a_read_only_root_file_system_is_enough(database_url):
    """With nothing to write to but shared memory the service starts, serves, reloads and ends."""
    with service(database_url, workers=2).inside(*in_namespace("mount -o remount,bind,ro /")) as server:
        server.serving(workers=2)
        assert {201: 200} == send(server).statuses
        assert 200 == fetch(server.port, "/health/ready")[0]
        assert 200 == total(scrape(server.port), "http_requests_total", {"method": "POST", "status": "201"})
        server.reload()
        assert {201: 200} == send(server).statuses
        assert 0 == server.stop()
