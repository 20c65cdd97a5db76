"""Changed HTTP requests, sent to the real service for half a minute."""

import os

import pytest

from tests.fuzz.protocol import ProtocolFuzzer, server
from tests.processes.watch import print_figures


@pytest.mark.slow
def test_changed_requests_do_only_what_their_answers_say(database_url):
    """What is answered, done, logged and counted agrees, and no request makes the service fail."""
    with server(database_url) as running:
        fuzzer = ProtocolFuzzer(running.serving(workers=2), database_url, seed=int(os.environ.get("FUZZ_SEED", "1")))
        fuzzer.run(seconds=float(os.environ.get("FUZZ_SECONDS", "25")))
    print_figures(**fuzzer.counts)

    assert not fuzzer.findings, str(fuzzer.findings)
    assert fuzzer.counts["connections"] >= 300
    assert fuzzer.counts["answered 201"] >= 30
    assert fuzzer.counts["answered 400"] >= 30
