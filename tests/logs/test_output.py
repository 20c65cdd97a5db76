import os
import signal
import subprocess
import sys
import time

import orjson
import pytest

from tests.logs.conftest import Script
from tests.paths import ROOT

LOG_MANY = """
import sys, time, structlog
from app import logs
logs.configure()
log = structlog.get_logger()
slowest = 0.0
for number in range({count}):
    started = time.perf_counter()
    log.info("number_counted", number=number, filling="x" * {filling})
    slowest = max(slowest, time.perf_counter() - started)
flushing = time.perf_counter()
flushed = logs.flush(0.5)
print(slowest, flushed, time.perf_counter() - flushing, logs.lines_dropped(), file=sys.stderr, flush=True)
"""


def test_lines_of_several_processes_do_not_mix(run_script: Script):
    """Four forked processes share a pipe: their lines of up to 4 KiB do not mix, and no line is lost."""
    done = run_script("""
import os, structlog
log = structlog.get_logger()
log.info("master_started")
children = []
for worker in range(4):
    child = os.fork()
    if not child:
        for number in range(300):
            log.info("number_counted", worker=worker, number=number, filling="x" * (number * 20))
        logs.flush()
        os._exit(0)
    children.append(child)
for child in children:
    os.waitpid(child, 0)
log.info("master_stopped")
""")
    events = [orjson.loads(line) for line in done.stdout.splitlines()]
    # Python 3.12 and later warn of a fork beside a thread, if the writer has not ended in time.
    own = [event for event in events if "DeprecationWarning" not in event["event"]]

    assert b"" == done.stderr
    assert ["master_started"] == [e["event"] for e in own if "worker" not in e][:1]
    assert {(w, n) for w in range(4) for n in range(300)} == {(e["worker"], e["number"]) for e in own if "worker" in e}
    assert 1202 == len(own)


def test_lines_are_written_without_a_thread(run_script: Script):
    """While the system has no thread to give, the caller writes its lines itself, in order and at once."""
    done = run_script("""
import os, structlog, threading
def refuse(self): raise RuntimeError("can't start new thread")
start, threading.Thread.start = threading.Thread.start, refuse
log = structlog.get_logger()
log.error("first_failed")
log.info("second_counted")
threading.Thread.start = start
os.write(1, b'{"event": "between"}\\n')
log.info("third_counted")
""")

    events = [orjson.loads(line)["event"] for line in done.stdout.splitlines()]
    assert ["first_failed", "second_counted", "between", "third_counted"] == events


def test_the_last_line_of_a_process_is_written(run_script: Script):
    """Lines that are logged just before the interpreter ends are written, in order."""
    done = run_script("import structlog\nfor n in range(50): structlog.get_logger().info('counted', n=n)")

    assert list(range(50)) == [orjson.loads(line)["n"] for line in done.stdout.splitlines()]


def test_a_forked_child_does_not_write_its_parents_lines(run_script: Script):
    """Lines in the parent's queue at the fork are written once."""
    done = run_script("""
import os, structlog
for n in range(100): structlog.get_logger().info("counted", n=n)
if not (child := os.fork()):
    structlog.get_logger().info("child_started")
    raise SystemExit
os.waitpid(child, 0)
""")
    events = [orjson.loads(line) for line in done.stdout.splitlines()]

    assert list(range(100)) == [e["n"] for e in events if e["event"] == "counted"]
    assert 1 == len([e for e in events if e["event"] == "child_started"])


def test_a_reader_that_stops_does_not_block_callers():
    """With a full pipe no call blocks. Lines past the queue's size are dropped, counted and reported later."""
    process = start(LOG_MANY.format(count=30_000, filling=300), stdout=subprocess.PIPE)
    assert process.stderr
    slowest, flushed, flushing, dropped = process.stderr.readline().split()  # nothing has been read from stdout so far

    assert float(slowest) < 0.1
    assert b"False" == flushed
    assert float(flushing) < 0.7
    assert int(dropped) > 1_000
    events = [orjson.loads(line) for line in process.communicate(timeout=10)[0].splitlines()]
    reported = [e for e in events if e["event"] == "log_lines_dropped"]
    assert int(dropped) == sum(e["lines"] for e in reported)
    assert 30_000 == int(dropped) + len(events) - len(reported)


def test_a_process_ends_although_its_output_is_not_read():
    """The flush at the end waits at most one second for the reader."""
    process = start(LOG_MANY.format(count=3_000, filling=300), stdout=subprocess.PIPE)
    assert process.stderr
    process.stderr.readline()
    started = time.monotonic()

    assert 0 == process.wait(timeout=5)
    assert time.monotonic() - started < 2
    process.communicate()


def test_a_closed_pipe_does_not_stop_the_process():
    """Lines for a closed pipe are dropped and counted, and nothing else happens."""
    reader, writer = os.pipe()
    os.close(reader)
    process = start(LOG_MANY.format(count=1_000, filling=1), stdout=writer)
    os.close(writer)
    printed = process.communicate(timeout=10)[1].split()

    assert 0 == process.returncode
    assert [b"True", b"1000"] == [printed[1], printed[3]]


def test_a_missing_standard_output_does_not_stop_the_process():
    """A process without a standard output runs, and writes no line into another file."""
    code = "import os, sys, structlog\nfrom app import logs\nlogs.configure()\n"
    code += "other = os.open('/dev/null', os.O_RDWR)\nprint(other, file=sys.stderr)\n"
    code += "r, w = os.pipe()\nos.dup2(w, other)\nos.set_blocking(r, False)\n"
    code += "structlog.get_logger().info('lost')\nlogs.flush()\nprint(logs.lines_dropped(), file=sys.stderr)\n"
    code += "try: print(os.read(r, 99), file=sys.stderr)\nexcept BlockingIOError: print('empty', file=sys.stderr)\n"
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        timeout=10,
        check=False,
    )

    assert [b"1", b"1", b"empty"] == done.stderr.split()
    assert 0 == done.returncode


def test_no_line_is_lost_in_a_non_blocking_pipe():
    """Lines are complete although another program has made the shared pipe non-blocking."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    process = start(LOG_MANY.format(count=2_000, filling=200), stdout=writer)
    os.close(writer)
    time.sleep(0.3)
    written = b""
    while chunk := os.read(reader, 65_536):
        written += chunk
    os.close(reader)
    process.communicate(timeout=10)

    assert list(range(2_000)) == [orjson.loads(line)["number"] for line in written.splitlines()]


def test_logging_in_a_signal_handler_cannot_deadlock(run_script: Script):
    """A signal handler that interrupts a log call can log, as in Gunicorn's master."""
    done = run_script("""
import signal, structlog, logging
log = structlog.get_logger()
signal.signal(signal.SIGALRM, lambda *_: logging.getLogger("gunicorn.error").warning("handled"))
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
for number in range(3000):
    log.warning("counted", number=number)
signal.setitimer(signal.ITIMER_REAL, 0)
""")
    events = [orjson.loads(line)["event"] for line in done.stdout.splitlines()]

    assert 0 == done.returncode
    assert 3000 == events.count("counted")
    assert events.count("handled") > 10


def test_a_warning_is_written_without_delay():
    """The warning of a process that is killed 15 ms later is written."""
    code = "import os, signal, structlog, time\nfrom app import logs\nlogs.configure()\n"
    code += "structlog.get_logger().warning('urgent')\ntime.sleep(0.015)\nos.kill(os.getpid(), signal.SIGKILL)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=10, check=False)

    assert -signal.SIGKILL == done.returncode
    assert b"urgent" in done.stdout


@pytest.mark.parametrize("format", ["json", "console"])
def test_the_first_line_starts_the_thread(format: str):  # noqa: A002
    """The import and the configuration start no thread."""
    code = "import threading\nfrom app import logs\nimport structlog, sys\n"
    code += f"logs.configure('info', {format!r})\nprint(threading.active_count(), file=sys.stderr)\n"
    code += "structlog.get_logger().info('started')\nprint(threading.active_count(), file=sys.stderr)\n"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=10, check=False)

    assert [b"1", b"2"] == done.stderr.split()


def start(code: str, stdout: int) -> subprocess.Popen[bytes]:
    """Start a process; the caller reads its standard output."""
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=stdout, stderr=subprocess.PIPE)
