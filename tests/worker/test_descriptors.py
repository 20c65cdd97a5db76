import resource

import pytest
from structlog.testing import capture_logs

from app.errors import StartupError
from app.worker.descriptors import RESERVED, connections_with_descriptors


@pytest.fixture
def set_limit(monkeypatch):
    """Set the limit of open files that the process reads."""
    return lambda limit: monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))


@pytest.mark.parametrize("limit", [1_000 + RESERVED + 6, 1_000_000, resource.RLIM_INFINITY])
def test_enough_descriptors_leave_the_setting_as_it_is(set_limit, limit):
    """And nothing is logged."""
    set_limit(limit)
    with capture_logs() as lines:
        assert 1_000 == connections_with_descriptors(1_000, 6)
    assert [] == lines


def test_a_low_soft_limit_is_raised_as_far_as_needed(monkeypatch):
    """The setting stays as it is where the hard limit allows it, and nothing is logged."""
    raised = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 4_096))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: raised.append(limits))

    with capture_logs() as lines:
        assert 1_000 == connections_with_descriptors(1_000, 6)

    assert [(1_000 + RESERVED + 6, 4_096)] == raised
    assert [] == lines


def test_few_descriptors_lower_the_setting(set_limit):
    """The log says to how many connections, and which limit of open files the setting needs."""
    set_limit(64)
    with capture_logs() as lines:
        assert 64 - RESERVED - 6 == connections_with_descriptors(1_000, 6)

    (line,) = lines
    assert ("max_connections_lowered", 64, 1_000 + RESERVED + 6) == (line["event"], line["open_files"], line["needed"])


def test_too_few_descriptors_are_refused(set_limit):
    """The sentence names the limit, its smallest value and the setting that can be lowered."""
    set_limit(64)
    with pytest.raises(StartupError) as refused:
        connections_with_descriptors(1_000, 20)

    assert (
        f"The limit of open files is 64, and a worker with 20 database connections needs more: raise it to at least "
        f"{RESERVED + 28} (`ulimit -n`), or lower DATABASE_CONNECTIONS."
    ) == str(refused.value)
