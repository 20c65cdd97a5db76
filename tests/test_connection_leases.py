"""Leases of a master and its workers, which are processes of their own: a process has locks, not an object in it."""

import errno
import json
import os
import subprocess
import sys
import tempfile
from unittest.mock import Mock

import pytest

from app.connection_leases import VARIABLE, LeaseFile, worker_connections
from app.errors import StartupError
from app.settings.shared_memory import temporary_folder
from tests.paths import ROOT

MASTER = """
import json, os, signal, socket, time
from app import connection_leases
from app.connection_leases import LeaseFile, worker_connections
from app.settings.shared_memory import temporary_folder

connection_leases.REST_SECONDS = 0.5
BUDGET = 5
file = LeaseFile(temporary_folder())
sockets = []

class Worker:
    def __init__(self, slot):
        self.socket, others = socket.socketpair()
        sockets.append(self.socket)
        self.pid = os.fork()
        if not self.pid:
            leases = worker_connections(budget=BUDGET, workers=2, slot=slot)
            while sessions := others.recv(9):
                others.send(b"%d" % leases.adjust(int(sessions)))
            leases.give_back()
            os._exit(0)

    def adjust(self, sessions=0):
        self.socket.send(b"%d" % sessions)
        return int(self.socket.recv(9))

    def end(self, number=0):
        if number:
            os.kill(self.pid, number)
        else:
            self.socket.shutdown(socket.SHUT_RDWR)
        sockets.remove(self.socket)
        os.waitpid(self.pid, 0)

def show(*values):
    print(json.dumps(values))
"""


END = """
for each in sockets:
    each.shutdown(socket.SHUT_RDWR)
"""


def run(scenario):
    """What the scenario shows, line by line."""
    output = subprocess.run(
        [sys.executable, "-c", MASTER + scenario + END],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    return [json.loads(line) for line in output.splitlines()]


def test_the_workers_have_the_whole_budget_and_give_a_new_one_its_share():
    """A session that a worker still has keeps its lease, so the new worker waits for its end."""
    shown = run("""
first, second, third = Worker(0), Worker(1), Worker(2)
show(first.adjust(), second.adjust())
file.divide([0, 1], at_least=2)
show(first.adjust(), second.adjust())
file.divide([0, 1, 2], at_least=2)
show(third.adjust(), first.adjust(sessions=3), third.adjust(), first.adjust(sessions=2), third.adjust())
show(second.adjust(), third.adjust())
second.end()
file.divide([0, 2], at_least=2)
show(first.adjust(), third.adjust())
file.divide([0, 2], at_least=1)
third.end()
file.divide([0], at_least=1)
show(first.adjust())
""")

    assert [[0, 0], [3, 2], [0, 2, 0, 2, 1], [2, 1], [3, 2], [5]] == shown


@pytest.mark.parametrize("noticed", [True, False], ids=["the master notices", "a worker notices"])
def test_the_leases_of_a_killed_worker_rest(noticed):
    """The server may still run its statements. The leases that were given back before are taken at once."""
    shown = run(f"""
first, second, third = Worker(0), Worker(1), Worker(2)
file.divide([0], at_least=1)
first.adjust()
file.divide([0, 1], at_least=2)
first.adjust()
second.end(signal.SIGKILL)
first.end(signal.SIGKILL)
killed = time.monotonic()
if {noticed}:
    file.worker_gone()
file.divide([2], at_least=1)
show(third.adjust())
while third.adjust() < BUDGET:
    time.sleep(0.01)
show(time.monotonic() - killed)
""")

    assert [2] == shown[0]
    assert shown[1][0] >= 0.5


def test_without_a_master_each_worker_has_an_equal_part(monkeypatch):
    """Also in a process that a worker has started: it has the variable, and not the file."""
    monkeypatch.setenv(VARIABLE, f"0/{os.getpid()}")

    assert 10 == worker_connections(budget=20, workers=2, slot=0)
    assert 1 == worker_connections(budget=1, workers=2, slot=0)


def test_a_file_without_room_is_refused(monkeypatch):
    """The sentence names the folder, and how much room is needed."""
    full = Mock(side_effect=OSError(errno.ENOSPC, "No space left on device"))
    monkeypatch.setattr(tempfile, "TemporaryFile", full)

    with pytest.raises(StartupError, match=r"in /\S+: No space left on device\. .* \d+ KiB\.$"):
        LeaseFile(temporary_folder())
