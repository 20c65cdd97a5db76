import time
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.rate_limits import shared_memory_counters, slices
from app.rate_limits.shared_memory_counters import SharedMemoryCounters
from app.rate_limits.slices import Slices
from app.rate_limits.window import SLICES, Decision, slice_seconds

WINDOW = 10.0

numbers = count()


class CountedCalls(SharedMemoryCounters):
    """Counters that count how often they are asked."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def hit(self, *arguments, **options):
        """Count the call."""
        self.calls += 1
        return super().hit(*arguments, **options)


class Workers:
    """Workers that share counters and a clock, and the requests of one client that they admitted."""

    def __init__(self, shared: tuple[CountedCalls, list[float]], limit: int, workers: int) -> None:
        self.counters, self.clock = shared
        self.limit = limit
        self.slices = [Slices(self.counters, workers) for _ in range(workers)]
        self.key = b"client %d" % next(numbers)
        self.admitted: list[float] = []
        self.kills: list[float] = []

    def send(self, worker: int, cost: int = 1) -> Decision:
        """Send a request to a worker."""
        decision = self.slices[worker].hit(self.key, self.limit, WINDOW, cost)
        if decision.admitted:
            self.admitted += [self.clock[0]] * cost
        return decision

    def kill(self, worker: int) -> None:
        """Replace a worker that gives nothing back."""
        self.slices[worker] = Slices(self.counters, len(self.slices))
        self.kills.append(self.clock[0])

    def admitted_within(self, seconds: float) -> int:
        """The requests that were admitted in the last seconds."""
        return len(self.admitted) - bisect_right(self.admitted, self.clock[0] - seconds)

    @property
    def held(self) -> int:
        """How many requests the workers hold without having admitted them."""
        return sum(held.left for worker in self.slices for held in worker._slices.values())

    @property
    def bound(self) -> int:
        """How many requests the workers may hold without sending them."""
        return self.limit // 100 if self.limit >= 200 * len(self.slices) else 0


@contextmanager
def opened(folder: Path) -> Iterator[tuple[CountedCalls, list[float]]]:
    """Counters in a folder, and the clock that they and the slices use."""
    clock = [1000.0]

    class Time:
        sleep = staticmethod(time.sleep)
        monotonic = staticmethod(lambda: clock[0])

    counters = CountedCalls()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared_memory_counters, "time", Time)
        patch.setattr(slices, "time", Time)
        counters.open(folder)
        yield counters, clock
        counters.close()


@pytest.fixture(scope="module")
def shared():
    """Counters and clock for all tests: each uses a client of its own."""
    with TemporaryDirectory() as folder, opened(Path(folder)) as both:
        yield both


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([20, 100, 199, 200, 450, 810]), st.integers(1, 4), st.integers(0, 10**9))
def test_workers_with_slices_admit_the_limit_and_never_more(shared, limit, number, seed):
    """No period of a window's length contains more than the limit, and no request is refused far below it.

    Before a request is refused, 1.1 windows have had the whole limit, but for a hundredth, and as much for each killed
    worker. Up to a limit of 200 for each worker nothing is missing. `remaining` never promises more than there is.
    """
    workers, random = Workers(shared, limit, number), Random(seed)
    reach = WINDOW * (1 + 1 / SLICES) + slice_seconds(WINDOW)
    for _ in range(12):
        worker, rate = random.randrange(number), random.choice([0.5, 2, 8, 30, 1000]) * limit / WINDOW
        for _ in range(random.randrange(limit)):
            cost = random.choice([1] * 30 + [7])
            decision = workers.send(worker, cost)
            assert decision.remaining <= limit - workers.admitted_within(WINDOW)
            assert workers.held <= workers.bound
            if not decision.admitted:
                killed = sum(at > workers.clock[0] - reach for at in workers.kills)
                assert workers.admitted_within(reach) > limit - cost - workers.bound * (1 + killed)
            workers.clock[0] += random.expovariate(rate)
        if random.random() < 0.1:
            workers.kill(worker)
        workers.clock[0] += random.choice([0, 0, 0, WINDOW * random.random()])

    admitted = workers.admitted
    assert all(later - earlier >= WINDOW for earlier, later in zip(admitted, admitted[limit:], strict=False))


def test_a_fast_client_is_counted_with_few_questions(shared):
    """Slices grow to a hundredth of the limit and shrink to nothing near it."""
    workers = Workers(shared, 6000, 1)
    before = workers.counters.calls
    remaining = []
    while (decision := workers.send(0)).admitted:
        remaining.append(decision.remaining)
        workers.clock[0] += 0.0001

    assert list(reversed(range(6000))) == remaining
    assert workers.counters.calls - before < 600


def test_a_slow_client_is_counted_one_by_one(shared):
    """Without a request within the time of a slice, none is taken: another worker knows what is left."""
    workers = Workers(shared, 600, 2)
    for number in range(1, 20):
        assert 600 - number == workers.send(number % 2).remaining
        workers.clock[0] += 0.06


def test_a_request_that_counts_as_several_uses_the_rest_of_a_slice(shared):
    """What a worker holds is given back with the question, so it is refused only for what is really used."""
    workers = Workers(shared, 1000, 1)
    for _ in range(20):
        workers.send(0)
    assert workers.send(0, 980).admitted
    assert not workers.send(0).admitted


def test_what_a_worker_holds_is_given_back_at_its_end(shared):
    """Another worker admits all that is left."""
    workers = Workers(shared, 1000, 1)
    for _ in range(19):
        workers.send(0)
    first = workers.slices[0]
    other = Slices(workers.counters, 1)
    assert not other.hit(workers.key, 1000, WINDOW, 981).admitted
    first.give_back_all()

    assert other.hit(workers.key, 1000, WINDOW, 981).admitted


def test_the_number_of_slices_is_bounded(shared, monkeypatch):
    """The oldest slice ends, and what is left of it is given back. An old one ends with the next question."""
    monkeypatch.setattr(slices, "MAX_SLICES", 3)
    counters, clock = shared
    worker = Slices(counters, 1)
    keys = [b"bounded %d" % number for number in range(5)]
    for key in keys:
        for _ in range(4):
            worker.hit(key, 1000, WINDOW)
    assert keys[2:] == list(worker._slices)
    clock[0] += 1
    for _ in range(4):
        worker.hit(b"another", 1000, WINDOW)

    assert [b"another"] == list(worker._slices)
    assert [4] * 5 == [counters.read(key)[1] for key in keys]


@pytest.mark.parametrize("damage", [b"", b"other", bytes(8) * 40_000])
def test_damaged_numbers_are_not_believed(tmp_path, damage):
    """If the file of what remains is overwritten or cut off, a worker asks the counters instead."""
    with opened(tmp_path) as shared:
        workers = Workers(shared, 1000, 1)
        for _ in range(20):
            workers.send(0)
        (tmp_path / "remaining").write_bytes(damage)
        assert [979, 978] == [workers.send(0).remaining for _ in range(2)]
