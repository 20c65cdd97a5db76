from dataclasses import replace
from http import HTTPStatus

import pytest

from benchmarks.harness.databases import databases
from benchmarks.peers import started_and_checked
from benchmarks.peers.checks import check_answers, check_controls, check_limit
from benchmarks.peers.installing import installed
from benchmarks.peers.sides import NEVER_REACHED, SIDES, TEMPLATE

pytestmark = pytest.mark.slow

CHECKED = [side for side in SIDES if side.refusal]


@pytest.fixture(scope="module")
def peers():
    """The peers, installed."""
    with installed() as installation:
        yield installation


@pytest.fixture(scope="module")
def made():
    """Databases with items."""
    with databases() as all_databases:
        yield all_databases


@pytest.mark.parametrize("side", CHECKED, ids=lambda side: side.name)
def test_a_peer_answers_correctly_and_has_the_controls_that_the_result_names(side, peers, made):
    """Fields, 404, refused bodies; and where it has them one log line, request id and count a request, and 429."""
    started_and_checked(side, peers, made.create())


def test_the_checks_fail_if_a_control_is_missing(peers, made):
    """The template's way has no rate limit, no metrics and no request ids, and refuses a body with 422."""
    (side,) = (side for side in SIDES if side.name == TEMPLATE)
    with side.start(peers, made.create(), NEVER_REACHED) as server:
        for check in (
            lambda: check_answers(server, replace(side, refusal=HTTPStatus.BAD_REQUEST)),
            lambda: check_controls(server, replace(side, is_controlled=True)),
            lambda: check_limit(server),
        ):
            with pytest.raises(AssertionError):
                check()
