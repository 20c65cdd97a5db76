"""Gunicorn's master, replacing workers one at a time: a new one serves before an old one leaves."""

import importlib
import signal
import sys
import time
from types import ModuleType
from typing import ClassVar

from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer
from gunicorn.glogging import Logger

from app.worker import Worker
from app.worker.closing import refuse_new_connections
from app.worker.events import Event, Events
from app.worker.stage import Stage

_NO_EXIT_CODE = -1
_COULD_NOT_START = 3

_STABLE_SECONDS = 10.0
"""A worker that has served for this long has started well, whatever ends it."""

_LONGEST_PAUSE_SECONDS = 30.0
"""Between two starts, when one after the other fails."""

_STARTING_STOP_SECONDS = 1.0
"""A worker that has not begun to serve has this long to stop."""

_TICK_SECONDS = 0.2
"""How long the master sleeps while workers come and go."""


class RollingArbiter(Arbiter):
    """A master that never has fewer workers serving than it was asked for, and never more than one above.

    `on_starting` turns Gunicorn's master into one: the `gunicorn` command has no
    other place to name the class.
    """

    WORKERS: ClassVar[dict[int, Worker]]  # type: ignore[assignment]
    log: Logger

    # In Gunicorn a worker that exits with one of these ends the master and all other workers.
    WORKER_BOOT_ERROR = _NO_EXIT_CODE
    APP_LOAD_ERROR = _NO_EXIT_CODE

    generation = 0
    events = Events()
    _has_served = False
    _has_spawned = False
    _is_changing = True
    _failures = 0
    _failed_at = 0.0
    _spawn_after = 0.0

    def free_slot(self) -> int:
        """The lowest number that no living worker has."""
        taken = {worker.slot for worker in self.WORKERS.values()}
        return next(slot for slot in range(len(taken) + 1) if slot not in taken)

    def manage_workers(self) -> None:
        """Bring the workers one step closer to what was asked for."""
        now = time.monotonic()
        stages = {worker: worker.told_stage() for worker in self.WORKERS.values()}
        self._note_serving(stages, now)
        self._stop_surplus(stages, now)
        self._kill_overdue(now)
        self._spawn_missing(stages, now)
        self._is_changing = self._spawn_after > now or any(
            worker.stop_by is not None or worker.aborted or stage != Stage.SERVING for worker, stage in stages.items()
        )

    def _note_serving(self, stages: dict[Worker, Stage], now: float) -> None:
        for worker, stage in stages.items():
            if stage < Stage.SERVING:
                continue
            if worker.serving_since is None:
                worker.serving_since = now
                self._has_served = True
            if worker.spawned_at > self._failed_at and now - worker.serving_since > _STABLE_SECONDS:
                self._failures = 0

    def _stop_surplus(self, stages: dict[Worker, Stage], now: float) -> None:
        """Tell workers to stop that others have replaced."""
        staying = [worker for worker, stage in stages.items() if worker.stop_by is None and stage < Stage.DRAINING]
        serving = [worker for worker in staying if stages[worker] >= Stage.SERVING]
        serving.sort(key=lambda worker: (not self._is_outdated(worker, stages[worker]), worker.age))
        for worker in serving[: max(0, len(serving) - self.num_workers)]:
            self._stop_worker(worker, signal.SIGTERM, now, within=self.cfg.graceful_timeout)
        for worker in staying:
            # It has nothing to lose, and would keep the worker of a newer reload from starting.
            if stages[worker] < Stage.SERVING and worker.generation < self.generation:
                self._stop_worker(worker, signal.SIGTERM, now, within=_STARTING_STOP_SECONDS)

    def _kill_overdue(self, now: float) -> None:
        for worker in list(self.WORKERS.values()):
            if worker.stop_by is not None and worker.stop_by < now:
                self.log.error("Worker (pid:%s) did not stop in time and is killed.", worker.pid)
                self._stop_worker(worker, signal.SIGKILL, now, within=self.cfg.graceful_timeout)

    def _spawn_missing(self, stages: dict[Worker, Stage], now: float) -> None:
        """Start what is missing or to be replaced, so that at most one worker more than asked for lives."""
        if self._has_spawned and not self._has_served:
            if not self.WORKERS:
                raise HaltServer("No worker could start. The lines above say why.", _COULD_NOT_START)
            return
        if now < self._spawn_after:
            return
        fresh = sum(
            worker.stop_by is None and stage < Stage.DRAINING and not self._is_outdated(worker, stage)
            for worker, stage in stages.items()
        )
        for _ in range(min(self.num_workers - fresh, self.num_workers + 1 - len(self.WORKERS))):
            self.spawn_worker()
        self._has_spawned = True

    def spawn_worker(self) -> int:
        """Start one worker."""
        pid = super().spawn_worker()
        worker = self.WORKERS[pid]
        worker.spawned_at = time.monotonic()
        worker.generation = self.generation
        self.events.add(Event.STARTED)
        return pid

    def _is_outdated(self, worker: Worker, stage: Stage) -> bool:
        return worker.generation < self.generation or stage == Stage.WORN

    def _stop_worker(self, worker: Worker, number: signal.Signals, now: float, *, within: float) -> None:
        worker.stop_by = now + within
        self.kill_worker(worker.pid, number)

    def reap_workers(self) -> None:
        """Forget workers that have ended, and pause longer from failure to failure."""
        stages = {worker: worker.told_stage() for worker in self.WORKERS.values()}
        super().reap_workers()
        for worker, stage in stages.items():
            if worker.pid not in self.WORKERS and worker.stop_by is None and stage < Stage.DRAINING:
                self._note_failure(worker, stage)

    def _note_failure(self, worker: Worker, stage: Stage) -> None:
        now = time.monotonic()
        has_served = stage >= Stage.SERVING
        self.events.add(Event.TIMED_OUT if worker.aborted else Event.DIED if has_served else Event.START_FAILED)
        if worker.serving_since is not None and now - worker.serving_since > _STABLE_SECONDS:
            self._failures = 0
        # Several that were started together fail together, and count once.
        if worker.spawned_at > self._failed_at:
            self._failures += 1
        self._failed_at = now
        pause = 0.0 if self._failures <= 1 else min(_LONGEST_PAUSE_SECONDS, 0.5 * 2 ** (self._failures - 2))
        self._spawn_after = now + pause
        if self._has_served and not has_served:
            self.log.error(
                "Worker (pid:%s) ended before it served. %s workers go on; the next start is in %s seconds.",
                worker.pid,
                len(self.WORKERS),
                pause,
            )

    def stop(self, graceful: bool = True) -> None:
        """End the workers, none of which resets a connection that has just begun."""
        for listener in self.LISTENERS:
            refuse_new_connections(listener.sock)
        super().stop(graceful)

    def wait_for_signals(self, timeout: float | None = 1.0) -> list[int]:
        """Sleep until a signal comes, and not for long while workers come and go."""
        return super().wait_for_signals(_TICK_SECONDS if self._is_changing else timeout)

    def reload(self) -> None:
        """Read configuration and code anew, and have every worker replaced.

        A configuration that cannot be read leaves everything as it was.
        """
        kept_config, kept_modules = self.app.cfg, _forget_modules()
        try:
            self.app.reload()
            if self.app.cfg.address != kept_config.address:
                raise ValueError("HOST, PORT and OPS_PORT change with a restart only")  # noqa: TRY301
        except (Exception, SystemExit) as error:  # noqa: BLE001
            _forget_modules()
            sys.modules.update(kept_modules)
            self.app.cfg = kept_config
            self.events.add(Event.RELOAD_REFUSED)
            self.log.error("Reload refused, the workers stay as they are: %s", error)  # noqa: TRY400
            return
        self.setup(self.app)
        self.log.reopen_files()
        self.cfg.on_reload(self)
        self.events.add(Event.RELOADED)
        self.generation += 1
        self._failures, self._spawn_after, self._has_spawned = 0, 0.0, False

    def handle_ttin(self) -> None:
        """One worker more, up to those that the connection budget was divided among."""
        if self.num_workers < self.cfg.workers:
            super().handle_ttin()
        else:
            self.log.warning("SIGTTIN ignored: raise WEB_CONCURRENCY and send SIGHUP, or the budget would not hold.")

    def handle_usr2(self) -> None:
        """Refuse a second master: two sets of workers would hold twice the connections."""
        self.log.warning("SIGUSR2 ignored: send SIGHUP to replace the workers.")


def _forget_modules() -> dict[str, ModuleType]:
    """Have the application's modules imported anew, and return the old ones.

    Workers inherit what the master has imported: without this a reload would
    run new code beside the old settings. What the master itself runs stays: its
    parts must fit each other, so they change with a restart only.
    """
    importlib.invalidate_caches()
    names = [name for name in sys.modules if name.startswith("app.") and not name.startswith("app.worker")]
    return {name: sys.modules.pop(name) for name in names}
