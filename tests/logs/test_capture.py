import logging
import os
import pty
import subprocess
import sys

import orjson
import pytest

from app import logs
from tests.log_lines import Lines
from tests.logs.conftest import Script
from tests.paths import ROOT


def test_a_standard_library_record_is_an_event(lines: Lines):
    """The line has the logger's name, and the message as its event."""
    logging.getLogger("sqlalchemy.engine").warning("slow: %s", "SELECT 1")
    logging.getLogger("alembic.runtime").log(25, "level 25")

    first, second = lines()
    assert ("slow: SELECT 1", "warning", "sqlalchemy.engine") == (first["event"], first["level"], first["logger"])
    assert "info" == second["level"]


def test_a_record_that_cannot_be_formatted_is_logged(run_script: Script):
    """A wrong log call of a library raises nothing and writes `log_line_failed`."""
    done = run_script("import logging\nlogging.getLogger('careless').warning('%d samples', 'many')")

    assert b"" == done.stderr
    assert {"event": "log_line_failed", "logger": "careless"}.items() <= orjson.loads(done.stdout).items()


def test_handlers_of_libraries_are_removed(lines: Lines):
    """Each line of Uvicorn appears once, although Uvicorn adds a handler, and its access log is off."""
    logger = logging.getLogger("uvicorn.error")
    logger.addHandler(logging.StreamHandler())
    logger.propagate = False
    logs.configure("info", "json", logs.output.descriptor)
    logger.info("Started server process")
    logging.getLogger("uvicorn.access").info("GET /")

    assert ["Started server process"] == [line["event"] for line in lines()]
    assert not logging.getLogger("uvicorn.access").hasHandlers()


def test_lines_below_the_level_are_not_written(run_script: Script):
    """The same level applies to the application's lines and to those of libraries."""
    done = run_script(
        "import logging, structlog\nstructlog.get_logger().info('a')\nlogging.getLogger('x').info('b')\n"
        "structlog.get_logger().warning('c')\nlogging.getLogger('x').warning('d')",
        level="warning",
    )

    assert ["c", "d"] == [orjson.loads(line)["event"] for line in done.stdout.splitlines()]


def test_a_warning_is_a_line(run_script: Script):
    """`warnings.warn` writes an event, and nothing to standard error."""
    done = run_script("import warnings\nwarnings.warn('outdated')")
    (line,) = map(orjson.loads, done.stdout.splitlines())

    assert b"" == done.stderr
    assert "py.warnings" == line["logger"]
    assert "outdated" in line["event"]


@pytest.mark.parametrize(
    ("code", "event"),
    [
        ("raise ValueError('broken')", "process_failed"),
        ("import threading\nt = threading.Thread(target=lambda: 1 / 0)\nt.start()\nt.join()", "thread_failed"),
        ("class A:\n    def __del__(self): 1 / 0\nA()", "exception_unraisable"),
    ],
)
def test_an_uncaught_exception_is_a_line(run_script: Script, code: str, event: str):
    """Uncaught exceptions of a process, a thread or a destructor are logged as JSON."""
    done = run_script(code)
    (line,) = map(orjson.loads, done.stdout.splitlines())

    assert b"" == done.stderr
    assert event == line["event"]
    assert "Error: " in line["exception"]


def test_an_interrupt_is_logged(run_script: Script):
    """Ctrl-C logs an event without a traceback."""
    done = run_script("raise KeyboardInterrupt")

    assert b"" == done.stderr
    assert "process_interrupted" == orjson.loads(done.stdout)["event"]


def test_a_failed_task_is_a_line(run_script: Script):
    """The exception of a task that no code awaits is logged."""
    done = run_script("""
import asyncio, gc
async def fail(): raise ValueError("unawaited")
async def main():
    logs.capture_loop_failures(asyncio.get_running_loop())
    task = asyncio.ensure_future(fail())
    await asyncio.sleep(0)
    del task
    gc.collect()
asyncio.run(main())
""")
    (line,) = map(orjson.loads, done.stdout.splitlines())

    assert b"" == done.stderr
    assert "task_failed" == line["event"]
    assert "ValueError: unawaited" in line["exception"]


def test_a_task_that_cannot_look_up_a_host_is_a_line(run_script: Script):
    """Only a lookup that nobody awaits any more is left out: a task of this service has failed."""
    done = run_script("""
import asyncio, gc, socket
async def fail(): raise socket.gaierror("no such host")
async def main():
    loop = asyncio.get_running_loop()
    logs.capture_loop_failures(loop)
    task = asyncio.ensure_future(fail())
    lookup = loop.create_future()
    lookup.set_exception(socket.gaierror("left behind"))
    await asyncio.sleep(0)
    del task, lookup
    gc.collect()
asyncio.run(main())
""")
    (line,) = map(orjson.loads, done.stdout.splitlines())

    assert "task_failed" == line["event"]
    assert "no such host" in line["exception"]


def test_console_lines_are_coloured_on_a_terminal():
    """The console format uses colours when standard output is a terminal."""
    leader, terminal = pty.openpty()
    code = "from app import logs\nimport structlog\nlogs.configure('info', 'console')\n"
    code += "structlog.get_logger().info('started')"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=terminal, timeout=10, check=True)
    os.close(terminal)

    assert b"\x1b[" in os.read(leader, 4_096)
    os.close(leader)


def test_gunicorn_and_its_workers_print_only_json(run_script: Script):
    """Gunicorn's and Uvicorn's lines are events, and Gunicorn's access log is off."""
    done = run_script("""
import logging
from gunicorn.config import Config
from app.logs.gunicorn import GunicornLogger
logger = GunicornLogger(Config())
logger.info("Starting gunicorn %s", "27")
try: 1 / 0
except ZeroDivisionError: logger.exception("Exception in worker process")
uvicorn = logging.getLogger("uvicorn.error")  # as uvicorn-worker configures it
uvicorn.handlers = logger.error_log.handlers
uvicorn.setLevel(logger.error_log.level)
uvicorn.propagate = False
uvicorn.info("Started server process")
logs.configure()  # a reload reads the configuration again
logger.setup(Config())
logger.reopen_files()
logger.info("Hang up: %s", "Master")
assert not logger.access_log_enabled
""")
    found = [orjson.loads(line) for line in done.stdout.splitlines()]

    assert b"" == done.stderr
    assert [
        "Starting gunicorn 27",
        "Exception in worker process",
        "Started server process",
        "Hang up: Master",
    ] == [x["event"] for x in found]
    assert ["gunicorn.error", "gunicorn.error", "uvicorn.error", "gunicorn.error"] == [x["logger"] for x in found]
    assert "ZeroDivisionError" in found[1]["exception"]
