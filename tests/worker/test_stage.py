"""The stage that a worker reports, read by the process that it was forked from."""

import subprocess
import sys

import pytest

from app.worker.stage import Stage, StageTable
from app.worker.status import WorkerStatus
from tests.paths import ROOT

FORK = """
import os, sys
from app.worker.stage import Stage, StageTable
from app.worker.status import WorkerStatus
table = StageTable()
workers = [WorkerStatus(slot=slot, stages=table, heartbeat=int, master_pid=os.getpid()) for slot in range(3)]
pid = os.fork()
if pid == 0:
    workers[1].report_stage(Stage.DRAINING)
    os._exit(0)
assert os.waitpid(pid, 0) == (pid, 0)
print(*(worker.stage.name for worker in workers))
"""


def test_the_master_reads_the_stage_that_a_worker_reports():
    """The table was made before the fork, so a worker's write is visible in the master, in that worker's slot only."""
    # In a process of its own: a fork of this one, which has threads, would be unsafe.
    master = subprocess.run([sys.executable, "-c", FORK], cwd=ROOT, capture_output=True, text=True, check=True)

    assert "STARTING DRAINING STARTING" == master.stdout.strip()


def test_a_worker_that_takes_over_a_slot_begins_with_starting():
    """The stage of the worker that had the slot before does not stay in it."""
    table = StageTable()
    table.write_stage(0, Stage.DRAINING)

    assert Stage.STARTING == WorkerStatus(slot=0, stages=table, heartbeat=lambda: None, master_pid=0).stage


@pytest.mark.parametrize("stage", Stage)
def test_a_report_is_a_heartbeat(stage):
    """Each reported stage also shows the master that the worker is alive."""
    heartbeats: list[int] = []
    status = WorkerStatus(slot=0, stages=StageTable(), heartbeat=lambda: heartbeats.append(1), master_pid=0)

    status.report_stage(stage)

    assert [1] == heartbeats
    assert stage == status.stage


def test_the_table_has_a_slot_for_every_worker_that_may_be_configured():
    """WEB_CONCURRENCY allows 256 workers, and one more lives while it replaces another."""
    table = StageTable()
    table.write_stage(256, Stage.SERVING)

    assert Stage.SERVING == table.read_stage(256)
