"""A server whose application needs no database, and what its answers tell."""

from tests.processes.load import Report
from tests.processes.server import PLAIN, Server


def plain(workers: int, **settings: str) -> Server:
    """A server of the application that needs no database."""
    return Server(app=PLAIN, environment={"WEB_CONCURRENCY": str(workers), **settings})


def facts(report: Report, name: str) -> set[str]:
    """The different values that the answers had for one line of their body."""
    lines = (line for e in report.exchanges if e.answer for line in e.answer.body.decode().splitlines())
    return {line.partition("=")[2] for line in lines if line.startswith(f"{name}=")}
