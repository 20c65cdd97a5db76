"""A server whose application needs no database, and the facts in its answers."""

from tests.processes.load import Report
from tests.processes.server import PLAIN, Server


def plain(workers: int, **settings: str) -> Server:
    """A server of the application that needs no database (`apps.py`)."""
    return Server(app=PLAIN, environment={"WEB_CONCURRENCY": str(workers), **settings})


def facts(report: Report, name: str) -> set[str]:
    """The values of one fact in all answers."""
    lines = (line for e in report.results if e.answer for line in e.answer.body.decode().splitlines())
    return {line.partition("=")[2] for line in lines if line.startswith(f"{name}=")}
