"""Gunicorn's master, changed to replace workers one at a time: a new one serves before an old one stops."""

import importlib
import math
import os
import signal
import sys
import time
from contextlib import suppress
from types import ModuleType
from typing import Any, ClassVar

import structlog
from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.errors import ConfigError, HaltServer
from gunicorn.glogging import Logger

from app.connection_leases import LeaseFile
from app.settings.shared_memory import temporary_folder
from app.worker.events import Event, Events
from app.worker.exit_status import ExitStatus
from app.worker.stage import Stage, StageTable
from app.worker.syn_filter import drop_new_connections
from app.worker.worker import Worker

log = structlog.get_logger(__name__)

_NO_EXIT_CODE = -1
_COULD_NOT_START = 3

_STABLE_SECONDS = 10.0
"""A worker that has served for this long sets the number of failures in a row back to zero."""

_MAX_PAUSE_SECONDS = 30.0
"""The longest pause between two starts, when one after the other fails."""

_MAX_DOUBLINGS = 6
"""After these the pause has its greatest length. Without a bound, the number would become too large for a float after
nine hours of failures, and the error would end the master."""

_STARTING_STOP_SECONDS = 1.0
"""A worker that does not serve yet has this long to stop."""

_CHECKS = frozenset({"app.worker.configuration", "app.worker.descriptors"})
"""The modules of this package that only check the configuration. They raise errors that gunicorn.conf.py catches."""

_RESTART_ONLY = ("pidfile", "proc_name", "raw_env", "reuse_port", "user", "group", "umask", "daemon")
"""Gunicorn's settings that a reload does not apply. A reload that changes one is refused."""

_TIMED_OUT = (
    "It sent no heartbeat for WORKER_TIMEOUT_SECONDS, and its master ended it. `stack` says where it was. "
    "Without one it was stopped, or waited in the kernel: it was ended by SIGKILL, which leaves no stack."
)

_CHECK_SECONDS = 0.2
"""How often the master looks at the workers while some of them start or stop."""


class RollingArbiter(Arbiter):
    """A master that replaces workers one at a time.

    A replacement serves before the worker that it replaces is asked to stop, and at most one process more
    than configured runs.
    """

    WORKERS: ClassVar[dict[int, Worker]]  # type: ignore[assignment]
    log: Logger

    # In Gunicorn a worker that exits with one of these codes ends the master and all other workers.
    WORKER_BOOT_ERROR = _NO_EXIT_CODE
    APP_LOAD_ERROR = _NO_EXIT_CODE

    stages: StageTable
    events: Events
    leases: LeaseFile

    generation = 0
    """The number of reloads."""

    _has_served = False
    _has_spawned = False
    _is_changing = True
    _failures = 0
    _failed_at = 0.0
    _spawn_after = 0.0

    @classmethod
    def convert(cls, arbiter: Any) -> None:
        """Turn Gunicorn's running master into this class.

        `on_starting` calls it, because the `gunicorn` command has no option for the master's class.

        Raises:
            StartupError: What the workers share cannot be created.
        """
        arbiter.__class__ = cls
        arbiter.stages = StageTable()
        arbiter.events = Events()
        arbiter.leases = LeaseFile(temporary_folder())

    def free_slot(self) -> int:
        """The lowest number that no living worker has."""
        taken = {worker.slot for worker in self.WORKERS.values()}
        return next(slot for slot in range(len(taken) + 1) if slot not in taken)

    def manage_workers(self) -> None:
        """Take one step towards the configured number of workers, all of the newest generation."""
        now = time.monotonic()
        stages = {worker: worker.status.stage for worker in self.WORKERS.values()}
        self._note_serving(stages, now)
        self._stop_surplus(stages, now)
        self._kill_overdue(now)
        self._spawn_missing(stages, now)
        self.leases.divide((worker.slot for worker in self.WORKERS.values()), at_least=self.num_workers)
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
        """Ask workers to stop that others have replaced."""
        staying = [worker for worker, stage in stages.items() if worker.stop_by is None and stage < Stage.DRAINING]
        serving = [worker for worker in staying if stages[worker] >= Stage.SERVING]
        serving.sort(key=lambda worker: (not self._is_outdated(worker, stages[worker]), worker.age))
        for worker in serving[: max(0, len(serving) - self.num_workers)]:
            self._stop_worker(worker, signal.SIGTERM, now, within=self.cfg.graceful_timeout)
        for worker in staying:
            # It has no requests to lose, and takes the place of a worker of the newest generation.
            if stages[worker] < Stage.SERVING and worker.generation < self.generation:
                self._stop_worker(worker, signal.SIGTERM, now, within=_STARTING_STOP_SECONDS)

    def _kill_overdue(self, now: float) -> None:
        for worker in list(self.WORKERS.values()):
            if worker.stop_by is not None and worker.stop_by < now:
                self.log.error("Worker (pid:%s) did not stop in time and is killed.", worker.pid)
                self._stop_worker(worker, signal.SIGKILL, now, within=self.cfg.graceful_timeout)

    def _spawn_missing(self, stages: dict[Worker, Stage], now: float) -> None:
        """Start workers that are missing or have to be replaced, with at most one more alive than configured."""
        if self._has_spawned and not self._has_served:
            if not self.WORKERS:
                raise HaltServer("No worker could start. The lines above say why.", _COULD_NOT_START)
            return
        if now < self._spawn_after:
            return
        current = sum(
            worker.stop_by is None and stage < Stage.DRAINING and not self._is_outdated(worker, stage)
            for worker, stage in stages.items()
        )
        for _ in range(min(self.num_workers - current, self.num_workers + 1 - len(self.WORKERS))):
            try:
                self.spawn_worker()
            except OSError as error:
                if os.getpid() != self.pid:  # the new worker itself
                    raise
                self._note_failed_fork(error)
                return
            self._has_spawned = True

    def spawn_worker(self) -> int:
        """Start one worker.

        Raises:
            OSError: The system has no process, memory or file for it at the moment.
        """
        pid = super().spawn_worker()
        worker = self.WORKERS[pid]
        worker.spawned_at = time.monotonic()
        worker.generation = self.generation
        self.events.add(Event.STARTED)
        return pid

    def _is_outdated(self, worker: Worker, stage: Stage) -> bool:
        return worker.generation < self.generation or stage == Stage.RECYCLING

    def _stop_worker(self, worker: Worker, number: signal.Signals, now: float, *, within: float) -> None:
        worker.stop_by = now + within
        self.kill_worker(worker.pid, number)

    def reap_workers(self) -> None:
        """Remove workers that have ended. After each failure in a row the pause before the next start is longer.

        Gunicorn's own method asks "Perhaps out of memory?" for each SIGKILL, also for one that the master has sent.
        """
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG)) != (0, 0):
                pid, status = ended
                # As the first process of a container the master reaps other processes, too.
                worker = self.WORKERS.pop(pid, None)
                if worker is not None:
                    self._note_end(worker, worker.status.stage, ExitStatus.parse(status))
                    self.leases.worker_gone()
                    worker.tmp.close()
                    worker.stack_file.close()
                    self.cfg.child_exit(self, worker)

    def _note_end(self, worker: Worker, stage: Stage, status: ExitStatus) -> None:
        """Say what was seen of an end that the master did not ask for, or asked for because the worker hung."""
        was_asked = worker.stop_by is not None or stage >= Stage.DRAINING
        facts = {
            "slot": str(worker.slot),
            "pid": worker.pid,
            "signal": status.signal,
            "exit_code": status.exit_code,
            "stack": worker.stack_file.read(),
        }
        if worker.aborted:
            log.error("worker_timed_out", **facts, timeout_seconds=self.timeout, cause=_TIMED_OUT)
        elif not was_asked or not status.follows_stop:
            log.error("worker_died", **facts, cause=status.cause)
        if not was_asked:
            self._note_failure(worker, stage)

    def _note_failed_fork(self, error: OSError) -> None:
        """Count a worker that could not be started as one that failed to start, and try again after the pause."""
        self.events.add(Event.START_FAILED)
        self._failures += 1
        self._failed_at = time.monotonic()
        pause = self._pause_next_start()
        self.log.error(
            "A worker could not be started: %s. %s workers keep serving. The next start is in %s seconds. "
            "Raise the limits on processes and memory of this service, or stop other processes.",
            error,
            len(self.WORKERS),
            pause,
        )

    def _pause_next_start(self) -> float:
        """Set when the next worker may start. The first failure in a row costs no pause."""
        doublings = min(self._failures - 2, _MAX_DOUBLINGS)
        pause = 0.0 if self._failures <= 1 else min(_MAX_PAUSE_SECONDS, 0.5 * 2**doublings)
        self._spawn_after = time.monotonic() + pause
        return pause

    def _note_failure(self, worker: Worker, stage: Stage) -> None:
        now = time.monotonic()
        has_served = stage >= Stage.SERVING
        self.events.add(Event.TIMED_OUT if worker.aborted else Event.DIED if has_served else Event.START_FAILED)
        if worker.serving_since is not None and now - worker.serving_since > _STABLE_SECONDS:
            self._failures = 0
        # Workers that were started together and fail together count as one failure.
        if worker.spawned_at > self._failed_at:
            self._failures += 1
        self._failed_at = now
        pause = self._pause_next_start()
        if self._has_served and not has_served:
            self.log.error(
                "Worker (pid:%s) ended before it served. %s workers keep serving. The next start is in %s seconds.",
                worker.pid,
                len(self.WORKERS),
                pause,
            )

    def stop(self, graceful: bool = True) -> None:
        """Stop the workers. Before that, drop new SYNs, so that closing the listeners resets no connection."""
        for worker in self.WORKERS.values():
            worker.stop_by = worker.stop_by or math.inf
        for listener in self.LISTENERS:
            drop_new_connections(listener.sock)
        super().stop(graceful)

    def wait_for_signals(self, timeout: float | None = 1.0) -> list[int]:
        """Sleep until a signal arrives, but not for long while workers start or stop."""
        return super().wait_for_signals(_CHECK_SECONDS if self._is_changing else timeout)

    def reload(self) -> None:
        """Read configuration and code again, and replace all workers.

        If the configuration cannot be used, everything stays as it was.
        """
        old_app, old_logging, old_modules = vars(self.app).copy(), structlog.get_config(), _forget_modules()
        try:
            self.app.reload()
            _check_restart_only(old_app["cfg"], self.app.cfg)
        except (Exception, SystemExit) as error:  # noqa: BLE001
            _restore_modules(old_modules)
            structlog.configure(**old_logging)
            # Gunicorn has forgotten which application it runs, and is in the folder of the start.
            vars(self.app).update(old_app)
            with suppress(OSError):
                os.chdir(self.app.cfg.chdir)
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
        """Start one worker more, up to the number for which the connection budget was checked."""
        if self.num_workers < self.cfg.workers:
            super().handle_ttin()
        else:
            self.log.warning(
                "SIGTTIN ignored: more workers would exceed the connection budget. Raise WEB_CONCURRENCY, send SIGHUP."
            )

    def handle_usr2(self) -> None:
        """Start no second master: two sets of workers would hold twice the connections."""
        self.log.warning("SIGUSR2 ignored: send SIGHUP to replace the workers.")


def _check_restart_only(old: Config, new: Config) -> None:
    """Refuse a reload that changes what the master reads at its start only."""
    if old.address != new.address:
        raise ConfigError("HOST, PORT and OPS_PORT change with a restart only.")
    for name in _RESTART_ONLY:
        if old.settings[name].get() != new.settings[name].get():
            raise ConfigError(f"Gunicorn's setting `{name}` changes with a restart only.")


def _forget_modules() -> dict[str, ModuleType]:
    """Make the next import read the application's modules again, and return the old ones.

    Workers inherit what the master has imported: without this a reload would
    run new code with the old settings. The package `app` is forgotten too: its
    attributes are its modules, and `from app import logs` reads the attribute
    first. The master's own modules stay: they must fit each other, so they
    change with a restart only, except the checks.
    """
    importlib.invalidate_caches()
    names = [
        name
        for name in sys.modules
        if name in _CHECKS or name == "app" or (name.startswith("app.") and not name.startswith("app.worker"))
    ]
    for name in _CHECKS:
        package, _, attribute = name.rpartition(".")
        vars(sys.modules[package]).pop(attribute, None)
    return {name: sys.modules.pop(name) for name in names}


def _restore_modules(old: dict[str, ModuleType]) -> None:
    """Make imports find the modules again that `_forget_modules` has returned, and none that were imported since."""
    _forget_modules()
    sys.modules.update(old)
    # The other modules are attributes of packages that were forgotten and restored with them.
    for name in _CHECKS & old.keys():
        package, _, attribute = name.rpartition(".")
        setattr(sys.modules[package], attribute, old[name])
