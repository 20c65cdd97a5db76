"""Servers that several tests use."""

from collections.abc import Iterator

import pytest

from tests.processes.server import PLAIN, Server


@pytest.fixture(scope="module")
def short_timeouts() -> Iterator[Server]:
    """A server of one worker with short client timeouts."""
    environment = {
        "WEB_CONCURRENCY": "1",
        "REQUEST_RECEIVE_SECONDS": "1",
        "KEEP_ALIVE_SECONDS": "0.5",
    }
    with Server(app=PLAIN, environment=environment) as server:
        yield server.serving()
