"""Faults of Redis, of the shared memory, of standard output and of the file system."""

import os
import random
from contextlib import suppress
from pathlib import Path

from tests.alerts.scene import Scene
from tests.processes.load import Request, load
from tests.processes.scrape import fetch, scrape, total
from tests.processes.server import Server
from tests.redis_server import redis_server


def in_namespace(command: str) -> tuple[str, ...]:
    """A command that runs its arguments in a mount namespace of its own, after this command of the shell."""
    return ("unshare", "--mount", "sh", "-ec", f'{command}; exec "$@"', "sh")


def redis_frozen(scene: Scene) -> None:
    """Redis is frozen."""
    with redis_server(scene.folder) as redis, scene.serving(RATE_LIMIT_STORAGE_URI=redis.uri):
        scene.begin()
        redis.freeze()
        scene.hold()


def counters_overwritten(scene: Scene) -> None:
    """The counters of the rate limit are overwritten."""
    folder = scene.folder / "metrics"
    folder.mkdir()
    with scene.serving(METRICS_DIRECTORY=str(folder)):
        scene.begin()
        (file,) = folder.rglob("counters")
        with file.open("r+b") as counters:
            counters.write(random.Random(1).randbytes(file.stat().st_size))
        scene.hold()


def output_not_read(scene: Scene) -> None:
    """Standard output is not read, and the queues are full."""
    reader, writer = os.pipe()

    def into_the_pipe(server: Server) -> None:
        server.stdout = writer

    def long_line(_: int) -> Request:
        return Request(target="/" + "x" * 190, headers=(("X-Request-ID", "y" * 128),))

    with scene.serving(prepare=into_the_pipe, RATE_LIMIT_READ="100000/minute") as server:
        scene.timing.faults_begin.wait()
        with load(server.port, rate=200, seconds=7200, kept=10, fresh=0, request=long_line):
            for _ in scene.every(1):
                # The flood may delay the answer.
                with suppress(OSError):
                    if total(scrape(scene.port), "log_lines_dropped_total"):
                        break
        scene.begin()
        scene.hold()
        os.close(reader)


def output_closed(scene: Scene) -> None:
    """Standard output is closed."""
    reader, writer = os.pipe()

    def into_the_pipe(server: Server) -> None:
        server.stdout = writer

    with scene.serving(prepare=into_the_pipe):
        scene.begin()
        os.close(reader)
        scene.hold()


def metrics_too_small(scene: Scene) -> None:
    """The folder of the metrics is too small, from the start."""
    folder = scene.folder / "metrics"
    folder.mkdir()
    inside = in_namespace(f"mount -t tmpfs -o size=300k none {folder}")
    with scene.serving(prepare=lambda server: server.started_by(*inside), METRICS_DIRECTORY=str(folder)):
        scene.begin()
        scene.began = scene.timing.watched_since
        scene.hold()


def metrics_full(scene: Scene) -> None:
    """The folder of the metrics becomes full."""
    folder = scene.folder / "metrics"
    folder.mkdir()
    inside = in_namespace(f"mount -t tmpfs -o size=20m none {folder}")
    with scene.serving(prepare=lambda server: server.started_by(*inside), METRICS_DIRECTORY=str(folder)) as server:
        scene.begin()
        filler = Path(f"/proc/{server.process.pid}/root{folder}") / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        # New series need space.
        for number in range(100):
            fetch(server.port, f"/samples/{number}/unknown")
        scene.hold()


def root_read_only(scene: Scene) -> None:
    """The root file system is read-only."""
    inside = in_namespace("mount -o remount,bind,ro /")
    with scene.serving(prepare=lambda server: server.started_by(*inside)):
        scene.begin()
        scene.began = scene.timing.watched_since
        scene.hold()
