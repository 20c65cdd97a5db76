from itertools import pairwise
from math import ceil

from hypothesis import given
from hypothesis import strategies as st

from app.rate_limits.window import SLICES, Decision, Log, current, expired, pack, spend, take_back, unpack

WINDOW = 60.0

pauses = st.lists(st.floats(0, 20) | st.floats(0, 0.5), min_size=1, max_size=200)
limits = st.integers(1, 20)


def send(pauses: list[float], limit: int) -> list[tuple[float, Decision, Log]]:
    """Send requests with these pauses; tell when each was sent, and what was decided."""
    log: Log = (WINDOW, 0.0)
    now, decided = 1000.0, []
    for pause in pauses:
        now += pause
        decision, log = spend(log, now, limit)
        decided.append((now, decision, log))
    return decided


@given(pauses, limits)
def test_no_window_ever_admits_more_than_the_limit(pauses, limit):
    """Wherever a window is laid, at most `limit` admitted requests are in it."""
    admitted = [now for now, decision, _ in send(pauses, limit) if decision.admitted]

    assert all(later - earlier >= WINDOW for earlier, later in zip(admitted, admitted[limit:], strict=False))


@given(pauses, limits)
def test_a_request_is_never_refused_without_a_reason(pauses, limit):
    """A client that was granted fewer than `limit` in the last window and a tenth is admitted."""
    decided = send(pauses, limit)
    for index, (now, decision, _) in enumerate(decided):
        if not decision.admitted:
            before = [at for at, earlier, _ in decided[:index] if earlier.admitted]
            assert limit <= sum(at > now - WINDOW * (1 + 1 / SLICES) for at in before)


@given(pauses, limits)
def test_waiting_as_told_admits_again(pauses, limit):
    """A refused client that waits the whole seconds it is told, at most a window, is admitted."""
    for now, decision, log in send(pauses, limit):
        if not decision.admitted:
            wait = max(1, ceil(decision.reset_seconds))
            assert wait <= WINDOW
            assert spend(log, now + wait + 1e-6, limit)[0].admitted


@given(pauses, limits)
def test_what_remains_can_be_sent(pauses, limit):
    """As many requests as are said to remain are admitted at once, and not one more."""
    now, decision, log = send(pauses, limit)[-1]
    for _ in range(decision.remaining):
        again, log = spend(log, now, limit)
        assert again.admitted

    assert not spend(log, now, limit)[0].admitted


@given(st.lists(st.floats(0, 10), min_size=1, max_size=400))
def test_a_log_is_bounded(pauses):
    """However many requests are granted, a log keeps SLICES + 2 entries at most."""
    decided = send(pauses, 10**6)

    assert max(len(log) for *_, log in decided) <= 2 + 2 * (SLICES + 2)
    assert all(earlier <= later for earlier, later in pairwise(decided[-1][2][2::2]))


@given(pauses, limits)
def test_a_log_is_read_as_it_was_written(pauses, limit):
    """Packing loses nothing."""
    for *_, log in send(pauses, limit):
        assert log == unpack(pack(log))


def test_a_request_that_costs_more_needs_the_room():
    """A request of cost 3 is refused where 2 remain, and admitted where 3 do."""
    decision, log = spend((WINDOW, 0), 0, 5, cost=2)
    assert 3 == decision.remaining

    assert not spend(log, 0, 4, cost=3)[0].admitted
    assert spend(log, 0, 5, cost=3)[0].admitted


def test_taking_back_makes_room():
    """A request that was not admitted after all does not count, and leaves nothing behind."""
    _, log = spend((WINDOW, 0), 0, 1)

    assert expired(take_back(log, 1), 0)
    assert spend(take_back(log, 1), 0, 1)[0].admitted


def test_a_clock_set_back_blocks_nobody():
    """What is dated in the future is forgotten, not waited for."""
    _, log = spend((WINDOW, 0), 10_000, 1)

    assert (WINDOW, 5) == current(log, 5)
    assert spend(log, 5, 1)[0].admitted
