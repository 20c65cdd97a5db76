"""Servers that tests about processes share."""

from collections.abc import Iterator

import pytest

from tests.processes.server import PLAIN, Server


@pytest.fixture(scope="module")
def impatient() -> Iterator[Server]:
    """A server of one worker that has little patience with its clients."""
    environment = {
        "WEB_CONCURRENCY": "1",
        "REQUEST_RECEIVE_SECONDS": "1",
        "KEEP_ALIVE_SECONDS": "0.5",
    }
    with Server(app=PLAIN, environment=environment) as server:
        yield server.serving()
