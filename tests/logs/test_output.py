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


def test_lines_of_many_processes_stay_whole(run_script: Script):
    """Four forked processes share a pipe, their lines of up to 4 KiB do not mix, and none is lost."""
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

    assert b"" == done.stderr
    assert ["master_started"] == [e["event"] for e in events if "worker" not in e][:1]
    assert {(w, n) for w in range(4) for n in range(300)} == {
        (e["worker"], e["number"]) for e in events if "worker" in e
    }
    assert 1202 == len(events)


def test_the_last_line_of_a_process_is_written(run_script: Script):
    """What is logged just before the interpreter ends still comes out, in order."""
    done = run_script("import structlog\nfor n in range(50): structlog.get_logger().info('counted', n=n)")

    assert list(range(50)) == [orjson.loads(line)["n"] for line in done.stdout.splitlines()]


def test_a_forked_child_does_not_repeat_its_parents_lines(run_script: Script):
    """Lines that wait in the parent's queue are written once."""
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


def test_a_reader_that_stops_reading_blocks_nobody():
    """With the pipe full no call waits; what does not fit into the queue is dropped, counted, and told later."""
    process = start(LOG_MANY.format(count=30_000, filling=300), stdout=subprocess.PIPE)
    assert process.stderr
    slowest, flushed, flushing, dropped = process.stderr.readline().split()  # nothing was read from stdout so far

    assert float(slowest) < 0.1
    assert b"False" == flushed
    assert float(flushing) < 0.7
    assert int(dropped) > 1_000
    events = [orjson.loads(line) for line in process.communicate(timeout=10)[0].splitlines()]
    told = [e for e in events if e["event"] == "log_lines_dropped"]
    assert int(dropped) == sum(e["lines"] for e in told)
    assert 30_000 == int(dropped) + len(events) - len(told)


def test_a_process_ends_in_time_though_nobody_reads():
    """The end waits a second for a blocked reader, not longer."""
    process = start(LOG_MANY.format(count=3_000, filling=300), stdout=subprocess.PIPE)
    assert process.stderr
    process.stderr.readline()
    started = time.monotonic()

    assert 0 == process.wait(timeout=5)
    assert time.monotonic() - started < 2
    process.communicate()


def test_a_reader_that_went_away_stops_nobody():
    """Writing into a closed pipe loses the lines, counts them and does nothing else."""
    reader, writer = os.pipe()
    os.close(reader)
    process = start(LOG_MANY.format(count=1_000, filling=1), stdout=writer)
    os.close(writer)
    said = process.communicate(timeout=10)[1].split()

    assert 0 == process.returncode
    assert [b"True", b"1000"] == [said[1], said[3]]


def test_a_closed_standard_output_stops_nobody():
    """A process that is started without a standard output runs, and writes its lines nowhere else."""
    code = "import os, sys, structlog\nfrom app import logs\nlogs.configure()\n"
    code += "stranger = os.open('/dev/null', os.O_RDWR)\nprint(stranger, file=sys.stderr)\n"
    code += "r, w = os.pipe()\nos.dup2(w, stranger)\nos.set_blocking(r, False)\n"
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


def test_a_non_blocking_pipe_loses_nothing():
    """Another program may have made the shared pipe non-blocking."""
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
    """A handler that interrupts a log call may log itself, as that of Gunicorn's master does."""
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


def test_a_warning_is_written_at_once():
    """A process killed right after a warning has told it."""
    code = "import os, signal, structlog, time\nfrom app import logs\nlogs.configure()\n"
    code += "structlog.get_logger().warning('sinking')\ntime.sleep(0.015)\nos.kill(os.getpid(), signal.SIGKILL)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=10, check=False)

    assert -signal.SIGKILL == done.returncode
    assert b"sinking" in done.stdout


@pytest.mark.parametrize("format", ["json", "console"])
def test_importing_starts_and_opens_nothing(format: str):  # noqa: A002
    """Neither the import nor the configuration starts a thread; the first line does."""
    code = "import threading\nfrom app import logs\nimport structlog, sys\n"
    code += f"logs.configure('info', {format!r})\nprint(threading.active_count(), file=sys.stderr)\n"
    code += "structlog.get_logger().info('begun')\nprint(threading.active_count(), file=sys.stderr)\n"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=10, check=False)

    assert [b"1", b"2"] == done.stderr.split()


def start(code: str, stdout: int) -> subprocess.Popen[bytes]:
    """A process whose standard output is not read by itself."""
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=stdout, stderr=subprocess.PIPE)
