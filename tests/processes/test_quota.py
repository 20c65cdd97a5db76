import http.client
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from tests.processes.scrape import scrape, total
from tests.processes.server import SAMPLES_APP, Server, eventually
from tests.processes.watch import print_figures

LIMIT = 800
CONNECTIONS = 8
REQUESTS = 130
"""Of each connection: together they send 240 more than the limit."""


class Connection:
    """A connection of a client, and what it was answered."""

    def __init__(self, port: int, address: str) -> None:
        self.http = http.client.HTTPConnection("127.0.0.1", port, timeout=10, source_address=(address, 0))
        self.statuses: list[int] = []
        self.failures = 0

    def send(self, count: int) -> None:
        """Send requests, one after the other. A connection that breaks is opened again."""
        for _ in range(count):
            try:
                self.http.request("GET", "/")
                answer = self.http.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException):
                self.http.close()
                self.failures += 1
                continue
            self.statuses.append(answer.status)
            remaining = int(answer.headers["RateLimit"].partition("r=")[2].partition(";")[0])
            assert remaining <= LIMIT - self.statuses.count(200)


def send(server: Server, address: str, *, kill: bool) -> tuple[int, int, int]:
    """Send more than the limit, and kill a worker meanwhile. How many were admitted, refused, and not answered."""
    connections = [Connection(server.port, address) for _ in range(CONNECTIONS)]
    barrier = Barrier(CONNECTIONS)

    def work(connection: Connection) -> None:
        connection.send(REQUESTS // 4)
        if barrier.wait(60) == 0 and kill:
            os.kill(server.workers()[0], signal.SIGKILL)
        connection.send(REQUESTS - REQUESTS // 4)
        connection.http.close()

    with ThreadPoolExecutor(CONNECTIONS) as threads:
        list(threads.map(work, connections))
    answers = [connection.statuses.count(status) for status in (200, 429) for connection in connections]
    return sum(answers[:CONNECTIONS]), sum(answers[CONNECTIONS:]), sum(one.failures for one in connections)


def test_four_workers_admit_a_limit_together():
    """Never more than the limit, and at most a hundredth less, also if a worker is killed while it counts.

    The metrics say what was answered.
    """
    environment = {"WEB_CONCURRENCY": "4", "RATE_LIMIT_READ": f"{LIMIT}/hour"}
    with Server(app=SAMPLES_APP, environment=environment) as server:
        server.serving(workers=4)
        admitted, refused, failures = send(server, "127.0.0.2", kill=False)
        assert LIMIT - LIMIT // 100 <= admitted <= LIMIT
        assert (CONNECTIONS * REQUESTS, 0) == (admitted + refused, failures)

        def counts() -> list[float]:
            samples = scrape(server.port)
            return [total(samples, "rate_limit_decisions_total", {"outcome": name}) for name in ("admitted", "refused")]

        eventually(lambda: counts() == [admitted, refused], seconds=5, what="the metrics of all requests")

        # What the killed worker held, and the requests that it did not answer, are lost.
        again, _, failures = send(server, "127.0.0.3", kill=True)
        assert failures <= 4 * CONNECTIONS
        assert LIMIT - 2 * LIMIT // 100 - failures <= again <= LIMIT
        print_figures(limit=LIMIT, admitted=admitted, admitted_with_a_kill=again, not_answered=failures)
