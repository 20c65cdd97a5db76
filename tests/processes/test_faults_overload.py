import asyncio
import json
import re
import subprocess
import time
from statistics import median

import pytest

from tests.cluster import slow_down_creations
from tests.processes.history import History, create
from tests.processes.load import Report, Request, load, send_load
from tests.processes.scrape import fetch, scrape, total
from tests.processes.server import Server, eventually, service, without_coverage
from tests.processes.watch import polling, print_figures
from tests.programs import find


def created(report: Report) -> float:
    """The number of creations a second that were answered within a second."""
    good = [e for e in report.results if e.answer and e.answer.status == 201 and e.seconds < 1]
    return len(good) / span(report)


def span(report: Report) -> float:
    """The seconds from the first request to the last answer."""
    return max(e.started + e.seconds for e in report.results) - min(e.started for e in report.results)


def creation(number: int) -> Request:
    """A creation. Every second one has a key."""
    return create(number, key=f"key-{number}" if number % 2 else None)


class Creations:
    """Sends creations, all of them different."""

    def __init__(self, server: Server) -> None:
        self.reports: list[Report] = []
        self._port = server.port

    def send(self, rate: float, seconds: float, clients: int) -> Report:
        """Send creations at a constant rate, even if they fail."""
        sent = sum(len(report.results) for report in self.reports)
        report = asyncio.run(
            send_load(
                self._port,
                rate=rate,
                seconds=seconds,
                kept=clients,
                request=lambda number: creation(sent + number),
                timeout_seconds=5,
            )
        )
        self.reports.append(report)
        return report


def test_overload_is_refused_and_goodput_stays(own_cluster):
    """At five times the rate that the database can handle, goodput stays above 80 % of its peak.

    The rest is refused at once, probes are not, and 5 s after the load nothing is refused.
    """
    history = History(own_cluster.url)
    slow_down_creations(own_cluster.url, seconds=0.02)
    # One connection of each worker for the only client, 20 ms a statement: 100 a second at most.
    with without_coverage(service(own_cluster.url, workers=2, DATABASE_CONNECTIONS="3")) as server:
        server.serving(workers=2)
        creations = Creations(server)
        peak = created(creations.send(rate=200, seconds=3, clients=8))
        before = total(scrape(server.port), "requests_shed_total")
        with polling(lambda: (fetch(server.port, "/health/ready")[0], fetch(server.port, "/health")[0])) as probes:
            report = creations.send(rate=5 * peak, seconds=4, clients=500)
        ended = time.monotonic()
        shed = total(scrape(server.port), "requests_shed_total") - before
        eventually(
            lambda: set(creations.send(rate=peak / 2, seconds=0.5, clients=10).statuses) == {201},
            seconds=5,
            what="no refusal",
        )
        recovered = time.monotonic() - ended

    acknowledged = history.check(*creations.reports)["acknowledged"]
    refused = [e for e in report.results if e.answer and e.answer.status == 503]
    refusals = sorted(e.seconds for e in refused)
    sent, goodput = len(report.results) / span(report), created(report)
    print_figures(
        peak=peak,
        sent=sent,
        goodput=goodput,
        goodput_of_peak=goodput / peak,
        refused_median_seconds=median(refusals),
        refused_99_percent_seconds=refusals[int(0.99 * len(refusals))],
        normal_after_seconds=recovered,
        acknowledged=acknowledged,
    )
    assert set(report.statuses) == {201, 503}
    assert goodput >= 0.8 * peak
    assert acknowledged > 300
    assert sent > 3 * peak
    assert median(refusals) < 0.1
    assert {"overloaded"} <= {json.loads(e.answer.body)["code"] for e in refused if e.answer}
    assert all(e.answer.headers["retry-after"] == "1" for e in refused if e.answer)
    assert len(refused) == shed
    assert {(200, 200)} == set(probes)


def good_per_second(server: Server, connections: int, seconds: int) -> float:
    """The number of successful answers that wrk counts, each connection sending as soon as it has an answer."""
    url = f"http://127.0.0.1:{server.port}/samples/1"
    output = subprocess.run(
        [find("wrk"), "--threads=1", f"--connections={connections}", f"--duration={seconds}s", url],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    sent = int(re.findall(r"(\d+) requests in", output)[0])
    failed = sum(int(count) for count in re.findall(r"(?:Non-2xx or 3xx responses:|timeout) (\d+)", output))
    return (sent - failed) / seconds


@pytest.mark.needs("wrk")
@pytest.mark.parametrize(
    ("budget", "connections"),
    [pytest.param("20", 32, id="ample"), pytest.param("3", 16, id="scarce")],
)
def test_goodput_stays_with_five_times_as_many_clients(database_url, budget, connections):
    """With five times the connections that keep both workers busy, goodput stays above 80 % of its peak.

    No client pauses after a refusal, and with few database connections most requests are refused.
    """
    history = History(database_url)
    with without_coverage(service(database_url, workers=2, DATABASE_CONNECTIONS=budget)) as server:
        server.serving(workers=2)
        good_per_second(server, connections, 1)
        # So few writes that they hardly change what is measured.
        with load(server.port, rate=10, kept=10, fresh=0, request=history.creation) as writes:
            pairs = [
                (good_per_second(server, connections, 2), good_per_second(server, 5 * connections, 2)) for _ in range(3)
            ]
        with load(server.port, rate=100, request=lambda _: Request(target="/samples/1")) as report:
            time.sleep(1)
        shed = total(scrape(server.port), "requests_shed_total")
    acknowledged = history.check(writes)["acknowledged"]
    print_figures(
        peak=median(peak for peak, _ in pairs),
        goodput=median(over for _, over in pairs),
        goodput_of_peak=median(over / peak for peak, over in pairs),
        refused=shed,
        acknowledged=acknowledged,
    )
    assert {200} == set(report.statuses)
    assert set(writes.statuses) <= {201, 503}
    assert acknowledged > 30
    assert median(over / peak for peak, over in pairs) >= 0.8
    assert budget == "20" or shed > 0
