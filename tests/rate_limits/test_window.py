from itertools import pairwise
from math import ceil

from hypothesis import given
from hypothesis import strategies as st

from app.rate_limits.window import (
    SLICES,
    Decision,
    Log,
    count_ahead,
    count_request,
    is_expired,
    pack,
    remove_expired,
    remove_latest,
    unpack,
)

WINDOW = 60.0

pauses = st.lists(st.floats(0, 20) | st.floats(0, 0.5), min_size=1, max_size=200)
limits = st.integers(1, 20)


def send(pauses: list[float], limit: int) -> list[tuple[float, Decision, Log]]:
    """Send requests with these pauses; return for each its time, its decision and the log after it."""
    log: Log = (WINDOW, 0.0)
    now, decided = 1000.0, []
    for pause in pauses:
        now += pause
        decision, log = count_request(log, now, limit)
        decided.append((now, decision, log))
    return decided


@given(pauses, limits)
def test_no_period_of_a_window_admits_more_than_the_limit(pauses, limit):
    """Any period of a window's length contains at most `limit` admitted requests."""
    admitted = [now for now, decision, _ in send(pauses, limit) if decision.admitted]

    assert all(later - earlier >= WINDOW for earlier, later in zip(admitted, admitted[limit:], strict=False))


@given(pauses, limits)
def test_a_request_within_the_limit_is_admitted(pauses, limit):
    """A client with fewer than `limit` admitted requests in the last 1.1 windows is admitted."""
    decided = send(pauses, limit)
    for index, (now, decision, _) in enumerate(decided):
        if not decision.admitted:
            before = [at for at, earlier, _ in decided[:index] if earlier.admitted]
            assert limit <= sum(at > now - WINDOW * (1 + 1 / SLICES) for at in before)


@given(pauses, limits)
def test_a_client_is_admitted_after_the_wait_it_was_given(pauses, limit):
    """A refused client that waits for the given whole seconds, at most one window, is admitted."""
    for now, decision, log in send(pauses, limit):
        if not decision.admitted:
            wait = max(1, ceil(decision.reset_seconds))
            assert wait <= WINDOW
            assert count_request(log, now + wait + 1e-6, limit)[0].admitted


@given(pauses, limits)
def test_the_remaining_requests_are_admitted(pauses, limit):
    """Exactly as many requests are admitted at once as `remaining` says."""
    now, decision, log = send(pauses, limit)[-1]
    for _ in range(decision.remaining):
        again, log = count_request(log, now, limit)
        assert again.admitted

    assert not count_request(log, now, limit)[0].admitted


@given(st.lists(st.floats(0, 10), min_size=1, max_size=400))
def test_the_length_of_a_log_is_bounded(pauses):
    """A log never has more than SLICES + 2 entries, however many requests are admitted."""
    decided = send(pauses, 10**6)

    assert max(len(log) for *_, log in decided) <= 2 + 2 * (SLICES + 2)
    assert all(earlier <= later for earlier, later in pairwise(decided[-1][2][2::2]))


@given(pauses, limits)
def test_packing_and_unpacking_a_log_changes_nothing(pauses, limit):
    """A log that is packed and unpacked is equal to the original."""
    for *_, log in send(pauses, limit):
        assert log == unpack(pack(log))


def test_the_cost_of_a_request_is_counted():
    """A request of cost 3 is refused where 2 remain, and admitted where 3 do."""
    decision, log = count_request((WINDOW, 0), 0, 5, cost=2)
    assert 3 == decision.remaining

    assert not count_request(log, 0, 4, cost=3)[0].admitted
    assert count_request(log, 0, 5, cost=3)[0].admitted


@given(pauses, st.integers(2, 20), st.data())
def test_a_request_that_counts_as_several_is_admitted_whole_or_not_at_all(pauses, limit, data):
    """A request that has counted as one counts as `cost` in all, or the log does not change.

    A refused client that waits for the seconds it was given, and then sends the same request, is admitted, and not
    more than one second before that.
    """
    now, decision, log = send(pauses, limit)[-1]
    cost = data.draw(st.integers(2, limit))
    if not decision.admitted:
        return
    before = sum(log[3::2])
    again, after = count_request(log, now, limit, cost, counted=1)

    assert again.admitted == (before - 1 + cost <= limit)
    assert sum(after[3::2]) == before + (cost - 1 if again.admitted else 0)
    if again.admitted:
        assert 0 == again.retry_seconds
        return
    for pause, is_admitted in ((again.retry_seconds + 1e-6, True), (again.retry_seconds - 1e-6, False)):
        first, later = count_request(after, now + pause, limit)
        last, _ = count_request(later, now + pause, limit, cost, counted=1)
        assert (first.admitted and last.admitted) == is_admitted


@given(pauses, st.integers(1, 30))
def test_removing_a_request_that_counted_as_several_removes_all_of_it(pauses, cost):
    """Whatever other requests were counted since, as many are left as there would be without it."""
    *_, log = send(pauses, 10**6)[-1]

    assert max(0, sum(log[3::2]) - cost) == sum(remove_latest(log, cost)[3::2])


def test_removing_the_latest_request_frees_its_quota():
    """A removed request no longer counts, and a log without requests is expired."""
    _, log = count_request((WINDOW, 0), 0, 1)

    assert is_expired(remove_latest(log, 1), 0)
    assert count_request(remove_latest(log, 1), 0, 1)[0].admitted


def test_a_clock_that_is_set_back_blocks_no_client():
    """Entries with a time in the future are discarded."""
    _, log = count_request((WINDOW, 0), 10_000, 1)

    assert (WINDOW, 5) == remove_expired(log, 5)
    assert count_request(log, 5, 1)[0].admitted


def test_an_entry_never_has_an_earlier_time_than_what_was_counted_ahead():
    """Requests that were counted ahead leave the log a window after the last time at which they may be sent."""
    decision, log = count_request((WINDOW, 0), 0, 1000)
    _, log = count_ahead(decision, log, 0, 5)
    assert (WINDOW, 0, 0.1, 6) == log

    _, same = count_request(log, 0.05, 1000)
    assert (WINDOW, 0, 0.1, 7) == same
    _, other = count_request((WINDOW, -6, *log[2:]), 0.05, 1000)
    assert (WINDOW, 0.05, 0.1, 6, 0.1, 1) == other
