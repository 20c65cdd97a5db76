"""Faults of workers, and none at all."""

import os
import signal

from tests.alerts.scene import Scene
from tests.processes.failing_fork import FailingFork
from tests.processes.server import Server


def no_fault(scene: Scene) -> None:
    """No fault."""
    with scene.serving():
        scene.begin()
        scene.hold()


def worker_killed_once(scene: Scene) -> None:
    """A worker is killed once."""
    with scene.serving(workers=2) as server:
        scene.begin()
        os.kill(server.workers()[0], signal.SIGKILL)
        scene.hold()


def workers_killed(scene: Scene) -> None:
    """A worker is killed every minute."""
    with scene.serving(workers=2) as server:
        scene.begin()
        for _ in scene.every(60):
            os.kill(server.workers()[0], signal.SIGKILL)


def worker_hangs(scene: Scene) -> None:
    """A worker hangs."""
    with scene.serving(workers=2) as server:
        scene.begin()
        os.kill(server.workers()[0], signal.SIGSTOP)
        scene.hold()


def fork_fails(scene: Scene) -> None:
    """A worker cannot be started."""
    failing = FailingFork(scene.folder)
    with scene.serving(workers=2, prepare=lambda server: server.environment.update(failing.environment)) as server:
        scene.begin()
        with failing.set("EAGAIN"):
            os.kill(server.workers()[0], signal.SIGKILL)
            scene.hold()


def reloads(scene: Scene) -> None:
    """Five reloads."""
    with scene.serving(workers=2) as server:
        scene.begin()
        for _ in range(5):
            server.reload(seconds=120)
        scene.hold()


def reload_refused(scene: Scene) -> None:
    """A reload is refused: a setting became invalid."""
    file = scene.folder / "url"
    file.write_text(scene.url)

    def read_from_file(server: Server) -> None:
        del server.environment["DATABASE_URL"]

    with scene.serving(prepare=read_from_file, DATABASE_URL_FILE=str(file)) as server:
        scene.begin()
        file.write_text("not a URL")
        server.send(signal.SIGHUP)
        scene.hold()
