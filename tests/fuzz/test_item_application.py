"""Random reads and writes of a few items, sent to the real service at the same time for half a minute."""

import os

import pytest

from tests.fuzz.item_application import ApplicationFuzzer
from tests.processes.server import service
from tests.processes.watch import print_figures


@pytest.mark.slow
def test_concurrent_random_requests_keep_the_contract(database_url):
    """No request fails, no update is lost, no key creates two items, and each list shows what it should."""
    with service(database_url, workers=2, DATABASE_WAIT_SECONDS="20", DATABASE_STATEMENT_SECONDS="20") as running:
        fuzzer = ApplicationFuzzer(running.serving(workers=2).port, seed=int(os.environ.get("FUZZ_SEED", "1")))
        fuzzer.run(seconds=float(os.environ.get("FUZZ_SECONDS", "20")))
    print_figures(**fuzzer.counts)

    assert {} == fuzzer.findings
    for status in (200, 201, 204, 304, 400, 404, 412, 422):
        assert fuzzer.counts[f"answered {status}"] >= 1, status
