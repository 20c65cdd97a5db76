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


def test_the_standard_library_logs_as_we_do(lines: Lines):
    """A library's record is a line with its logger's name and its message as the event."""
    logging.getLogger("sqlalchemy.engine").warning("slow: %s", "SELECT 1")
    logging.getLogger("alembic.runtime").log(25, "odd level")

    first, second = lines()
    assert ("slow: SELECT 1", "warning", "sqlalchemy.engine") == (first["event"], first["level"], first["logger"])
    assert "info" == second["level"]


def test_a_record_that_cannot_be_formatted_is_told(run_script: Script):
    """A library's mistake in a log call does not raise, and leaves a line."""
    done = run_script("import logging\nlogging.getLogger('careless').warning('%d items', 'many')")

    assert b"" == done.stderr
    assert {"event": "log_line_failed", "logger": "careless"}.items() <= orjson.loads(done.stdout).items()


def test_a_librarys_own_handlers_are_dropped(lines: Lines):
    """Uvicorn and Gunicorn bring handlers; with them a line would come twice, once as plain text."""
    logger = logging.getLogger("uvicorn.error")
    logger.addHandler(logging.StreamHandler())
    logger.propagate = False
    logs.configure("info", "json", logs.output.descriptor)
    logger.info("Started server process")
    logging.getLogger("uvicorn.access").info("GET /")

    assert ["Started server process"] == [line["event"] for line in lines()]
    assert not logging.getLogger("uvicorn.access").hasHandlers()


def test_lines_below_the_level_are_not_written(run_script: Script):
    """One level holds for our own lines and for those of libraries."""
    done = run_script(
        "import logging, structlog\nstructlog.get_logger().info('a')\nlogging.getLogger('x').info('b')\n"
        "structlog.get_logger().warning('c')\nlogging.getLogger('x').warning('d')",
        level="warning",
    )

    assert ["c", "d"] == [orjson.loads(line)["event"] for line in done.stdout.splitlines()]


def test_a_warning_is_a_line(run_script: Script):
    """`warnings.warn` does not write to standard error."""
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
def test_what_nobody_caught_is_a_line(run_script: Script, code: str, event: str):
    """The last words of a process, a thread or a destructor are JSON too."""
    done = run_script(code)
    (line,) = map(orjson.loads, done.stdout.splitlines())

    assert b"" == done.stderr
    assert event == line["event"]
    assert "Error: " in line["exception"]


def test_an_interrupt_is_told_in_a_line(run_script: Script):
    """Ctrl-C ends without a traceback."""
    done = run_script("raise KeyboardInterrupt")

    assert b"" == done.stderr
    assert "process_interrupted" == orjson.loads(done.stdout)["event"]


def test_a_failed_task_is_a_line(run_script: Script):
    """A task whose failure nobody awaits is told with its exception."""
    done = run_script("""
import asyncio, gc
async def fail(): raise ValueError("unawaited")
async def main():
    logs.watch(asyncio.get_running_loop())
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


def test_console_lines_are_coloured_on_a_terminal():
    """A person at a terminal sees levels by colour."""
    leader, terminal = pty.openpty()
    code = "from app import logs\nimport structlog\nlogs.configure('info', 'console')\n"
    code += "structlog.get_logger().info('started')"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=terminal, timeout=10, check=True)
    os.close(terminal)

    assert b"\x1b[" in os.read(leader, 4_096)
    os.close(leader)


def test_gunicorn_and_its_workers_print_only_json(run_script: Script):
    """Gunicorn's logger gives its one handler to Uvicorn's, and its access log stays silent."""
    done = run_script("""
import logging
from gunicorn.config import Config
from app.logs.gunicorn import GunicornLogger
logger = GunicornLogger(Config())
logger.info("Starting gunicorn %s", "27")
try: 1 / 0
except ZeroDivisionError: logger.exception("Exception in worker process")
uvicorn = logging.getLogger("uvicorn.error")  # as uvicorn-worker sets it up
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
