import subprocess
import sys

import pytest

from app.worker.stack_file import StackFile
from tests.paths import ROOT

FORK = """
import os, signal, sys, threading, time
from app.worker.stack_file import StackFile

def hang():
    exec(sys.argv[1])

stack_file = StackFile(None)
assert stack_file.read() is None
pid = os.fork()
if pid == 0:
    stack_file.enable()
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    hang()
os.waitpid(pid, 0)
print(stack_file.read())
"""


@pytest.mark.parametrize(
    "code", ["os.kill(os.getpid(), signal.SIGABRT); time.sleep(60)", "os.kill(os.getpid(), signal.SIGSEGV)"]
)
def test_the_master_reads_where_its_worker_was(code):
    """The main thread comes first, from the innermost frame."""
    # In a process of its own: a fork of this one, which has threads, would be unsafe.
    master = subprocess.run(
        [sys.executable, "-c", FORK, code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )

    main, other = master.stdout.strip().split("\n\n")
    assert main.startswith("Current thread ")
    frames = main.splitlines()[1:]
    assert [" in <module>", " in hang", " in <module>"] == [frame[frame.rindex(" in ") :] for frame in frames]
    assert "threading.py" in other
    assert "" == master.stderr


def test_a_worker_without_a_file_has_no_stack():
    """If the file cannot be made, the worker starts all the same."""
    missing = StackFile("/nonexistent")
    missing.enable()

    assert missing.read() is None
    missing.close()
