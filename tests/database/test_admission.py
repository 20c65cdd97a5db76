import asyncio
import random
from time import perf_counter

import pytest

from app.database import admission as admission_module
from app.database.admission import Admission
from app.database.lanes import ALL_WAITING_PER_CONNECTION, WAITING_PER_CONNECTION
from app.errors import OverloadedError, PoolExhaustedError, SlowRequestsBusyError
from tests.databases import PoolEvents


async def enter(admission, client, lane):
    """Use a connection now, or after a wait, as the pool does."""
    if not admission.enter_now(client, lane):
        await admission.wait(client, lane)


class Requests:
    """Requests that ask an `Admission`, each in a task of its own, and hold what they get until they are told."""

    def __init__(self, size, wait_seconds=5.0):
        self.events = PoolEvents()
        self.admission = Admission(size=size, wait_seconds=wait_seconds, observer=self.events)
        self.admitted = []
        """The client of each request that was admitted and has not left, in the order of admission."""

    def lane(self, kind):
        """The lane `quick` or `slow`."""
        return self.admission.slow if kind == "slow" else self.admission.quick

    async def ask(self, *clients, kind="quick"):
        """One request of each of these clients; returns their tasks."""

        async def request(client):
            await enter(self.admission, client, self.lane(kind))
            self.admitted.append((client, kind))

        tasks = [asyncio.create_task(request(client)) for client in clients]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return tasks

    async def leave(self, client, kind="quick"):
        """Let an admitted request of this client leave; returns the clients that are admitted because of it."""
        before = len(self.admitted)
        self.admitted.remove((client, kind))
        self.admission.leave(client, self.lane(kind))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return self.admitted[before - 1 :]

    @property
    def waiting(self):
        """The number of requests that wait."""
        return self.admission.quick.waiting + self.admission.slow.waiting


async def test_clients_take_turns():
    """A released connection goes to the next client, however many requests of another wait already."""
    requests = Requests(size=1)
    await requests.ask("a", "a", "a", "a", "b", "c", "b")

    order = [(await requests.leave(requests.admitted[0][0]))[0][0] for _ in range(6)]

    assert ["a", "b", "c", "a", "b", "a"] == order


async def test_requests_of_one_client_are_served_in_the_order_of_arrival():
    """Within a client's turn, the request that has waited longest comes first."""
    requests = Requests(size=1)
    tasks = await requests.ask("a", "a", "a", "a")

    for served in range(1, 4):
        await requests.leave("a")
        assert [True] * (served + 1) + [False] * (3 - served) == [task.done() for task in tasks]


async def test_the_client_that_uses_fewer_connections_comes_first():
    """A client that holds connections waits for those that hold none."""
    requests = Requests(size=3)
    await requests.ask("a", "a", "b")
    await requests.ask("a", "a", "c", "d")

    assert [("c", "quick")] == await requests.leave("a")
    assert [("d", "quick")] == await requests.leave("b")


@pytest.mark.parametrize(("size", "at_most"), [(1, 1), (2, 1), (5, 4), (10, 9)])
async def test_one_client_leaves_a_connection_free(size, at_most):
    """With two connections or more, the last free one is for clients that hold none."""
    requests = Requests(size=size)
    await requests.ask(*["a"] * 12)
    assert [("a", "quick")] * at_most == requests.admitted

    await requests.ask("b")

    assert [("b", "quick")] * (size - at_most) == requests.admitted[at_most:]


@pytest.mark.parametrize("size", [1, 2, 5, 10])
async def test_the_service_itself_may_use_all_connections(size):
    """What no client has asked for, such as a script, does not share with others."""
    requests = Requests(size=size)
    await requests.ask(*[None] * (size + 1))

    assert [(None, "quick")] * size == requests.admitted


@pytest.mark.parametrize(("size", "of_one", "of_all"), [(1, 1, 1), (2, 1, 1), (5, 1, 1), (6, 1, 2), (10, 2, 3)])
async def test_slow_statements_have_a_part_of_the_connections(size, of_one, of_all):
    """A third of the pool, and at least one connection. The last one of them is for clients that have none of them."""
    requests = Requests(size=size)

    await requests.ask(*["a"] * 10, kind="slow")
    assert [("a", "slow")] * of_one == requests.admitted
    await requests.ask(*"bcdefghi", kind="slow")

    assert of_all == len(requests.admitted)


@pytest.mark.parametrize("size", [2, 5, 10])
async def test_other_statements_do_not_wait_for_slow_ones(size):
    """Whatever waits in the slow lane, a read is admitted at once: of another client, and of the same one."""
    requests = Requests(size=size)
    await requests.ask(*"aaaaabcdefg", kind="slow")
    slow = len(requests.admitted)

    await requests.ask("a")

    assert ("a", "quick") == requests.admitted[slow]
    await requests.leave("a")
    await requests.ask("z")
    assert ("z", "quick") == requests.admitted[slow]


@pytest.mark.parametrize("size", [3, 5, 10])
@pytest.mark.parametrize("kinds", [("slow", "quick"), ("quick", "slow")])
async def test_one_client_cannot_use_all_connections_with_both_kinds(size, kinds):
    """Its slow statements count, too."""
    requests = Requests(size=size)
    for kind in kinds:
        await requests.ask(*["a"] * 12, kind=kind)

    await requests.ask("b")

    assert ("b", "quick") == requests.admitted[-1]


async def test_lanes_take_turns_on_one_connection():
    """With a pool of one connection, neither kind of statement starves while requests of the other always wait."""
    requests = Requests(size=1)
    await requests.ask("a", "a", "a", "a", kind="slow")
    await requests.ask("b", "b", "b")

    order = [requests.admitted[0]]
    for _ in range(6):
        order += await requests.leave(*order[-1])

    assert ["slow", "quick", "slow", "quick", "slow", "quick", "slow"] == [kind for _, kind in order]


@pytest.mark.parametrize(("kind", "error"), [("quick", OverloadedError), ("slow", SlowRequestsBusyError)])
async def test_the_waiters_of_one_client_are_bounded(kind, error):
    """When as many wait as may, its next request is refused, and those of others wait."""
    requests = Requests(size=1)
    await requests.ask(*["a"] * (1 + WAITING_PER_CONNECTION), kind=kind)

    refused, waits = await requests.ask("a", "b", kind=kind)

    with pytest.raises(error) as raised:
        await refused
    assert type(raised.value) is error
    assert not waits.done()
    assert WAITING_PER_CONNECTION + 1 == requests.waiting


async def test_the_sum_of_waiters_is_bounded_and_the_client_with_the_most_is_refused():
    """A newcomer takes the place of the newest waiter of that client; a client that has as many is refused itself."""
    requests = Requests(size=1)
    many = await requests.ask(*["a"] * (1 + WAITING_PER_CONNECTION))
    others = await requests.ask(*["b"] * (ALL_WAITING_PER_CONNECTION - WAITING_PER_CONNECTION))
    assert ALL_WAITING_PER_CONNECTION == requests.waiting

    newcomer = (await requests.ask("c"))[0]

    with pytest.raises(OverloadedError):
        await many[-1]
    assert not any(task.done() for task in (*many[1:-1], *others, newcomer))
    assert ALL_WAITING_PER_CONNECTION == requests.waiting
    assert {"client_share": 1} == requests.events.shed


async def refusal(task):
    """The error by which a request was refused."""
    with pytest.raises(PoolExhaustedError) as raised:
        await task
    return raised.value


@pytest.mark.parametrize("kind", ["quick", "slow"])
async def test_what_one_of_several_clients_sends_too_much_is_counted_as_its_own_share(kind):
    """It is told apart whether its request is refused at once, displaced, or waited too long."""
    requests, prefix = Requests(size=3, wait_seconds=0.3), "slow_" if kind == "slow" else ""
    await requests.ask("b")
    tasks = await requests.ask(*["a"] * (3 + WAITING_PER_CONNECTION * requests.lane(kind).size), kind=kind)

    await asyncio.wait(tasks)
    outcomes = [await refusal(task) for task in tasks if task.exception()]

    assert WAITING_PER_CONNECTION < len(outcomes)

    assert {f"{prefix}client_share"} == set(requests.events.shed)
    assert {"client_share"} == {error.failure_code for error in outcomes}
    assert {"pool_exhausted", "overloaded", "slow_requests_busy"} >= {error.code for error in outcomes}


@pytest.mark.parametrize("clients", [["a"], [None], ["a", "b", "c", "d"]])
async def test_a_refusal_counts_as_a_failure_of_the_service_in_all_other_cases(clients):
    """A single client may be a proxy that hides all others; among several none has most of what is used or waits."""
    requests = Requests(size=4, wait_seconds=0.2)

    tasks = await requests.ask(*clients * (128 // len(clients)))
    await asyncio.wait(tasks)
    outcomes = [await refusal(task) for task in tasks if task.exception()]

    assert len(outcomes) > 100
    assert all(error.failure_code == error.code for error in outcomes)
    assert {"queue_full", "queue_timeout"} >= set(requests.events.shed)


async def test_the_client_with_most_waiters_is_told_apart_although_others_use_the_connections():
    """It waits behind its own requests, while the turns of others come first."""
    requests = Requests(size=4, wait_seconds=0.3)
    await requests.ask("b", "c", "d", "e")

    tasks = await requests.ask(*["a"] * 20)
    await asyncio.wait(tasks)

    codes = [(await refusal(task)).failure_code for task in tasks]
    assert ["client_share"] * 16 == codes[:16]


async def test_a_client_that_was_one_of_several_long_ago_is_a_single_one(monkeypatch):
    """What another client has sent more than a minute ago does not count."""
    monkeypatch.setattr(admission_module, "_SEVERAL_CLIENTS_SECONDS", 0.05)
    requests = Requests(size=1, wait_seconds=0.3)
    await requests.ask("b", "a")
    await requests.leave("b")

    (late,) = await requests.ask("a")

    with pytest.raises(PoolExhaustedError) as raised:
        await late
    assert "pool_exhausted" == raised.value.failure_code


async def test_a_waiter_that_is_displaced_late_is_refused_within_its_own_wait():
    """However many refusals come before, it does not wait for a second time."""
    requests = Requests(size=1, wait_seconds=1.0)
    many = await requests.ask(*["a"] * (1 + WAITING_PER_CONNECTION))
    others = await requests.ask(*["b"] * (ALL_WAITING_PER_CONNECTION - WAITING_PER_CONNECTION))
    now = asyncio.get_running_loop().time
    started = now()
    await asyncio.sleep(0.7)
    requests.admission._last_refusal = perf_counter() + 100

    others += await requests.ask("c")
    with pytest.raises(OverloadedError):
        await many[-1]

    assert now() - started < 1.5
    await asyncio.gather(*many, *others, return_exceptions=True)


async def test_equal_clients_do_not_displace_each_other():
    """When every client has one waiter and no more may wait, the newcomer is refused."""
    requests = Requests(size=1)
    waiting = await requests.ask(*range(1 + ALL_WAITING_PER_CONNECTION))

    newcomer = (await requests.ask("c"))[0]

    with pytest.raises(OverloadedError):
        await newcomer
    assert not any(task.done() for task in waiting[1:])


async def test_the_queue_is_bounded():
    """When it is full, a request is refused."""
    requests = Requests(size=1, wait_seconds=0.2)
    waiting = await requests.ask(*[None] * (1 + WAITING_PER_CONNECTION))

    last = (await requests.ask(None))[0]

    with pytest.raises(OverloadedError):
        await last
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_the_check_comes_before_all_waiters_and_has_no_limit():
    """It waits for longer than a request may, and takes the first connection that comes free."""
    requests = Requests(size=1, wait_seconds=0.05)
    await requests.ask("a")
    check = asyncio.create_task(requests.admission.enter_first())
    with pytest.raises(PoolExhaustedError):
        await (await requests.ask("b"))[0]
    waiting = (await requests.ask("b"))[0]

    assert [] == await requests.leave("a")

    await check
    assert not waiting.done()
    requests.admission.leave(None, requests.admission.quick)
    await waiting


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_cancelled_check_takes_no_connection(when):
    """Cancelled while it waits, or when it has just been given a connection: the next waiter gets it."""
    requests = Requests(size=1)
    _, waiting = await requests.ask("a", "b")
    check = asyncio.create_task(requests.admission.enter_first())
    await asyncio.sleep(0)

    if when == "before":
        check.cancel()
        await asyncio.sleep(0)
    requests.admission.leave("a", requests.admission.quick)
    check.cancel()

    await asyncio.wait_for(waiting, 5)
    assert check.cancelled()
    requests.admission.leave("b", requests.admission.quick)
    assert (1, 0) == (requests.admission.free, requests.waiting)


async def test_every_wait_has_the_same_limit():
    """One timer serves all waiters of both lanes: each ends after its own wait, not after that of the first."""
    requests = Requests(size=1, wait_seconds=0.3)
    await requests.ask("a")
    now, waits, errors = asyncio.get_running_loop().time, [], []

    async def request(delay, kind):
        await asyncio.sleep(delay)
        started = now()
        try:
            await enter(requests.admission, "a", requests.lane(kind))
        except PoolExhaustedError as error:
            errors.append(type(error))
        waits.append(now() - started)

    await asyncio.gather(*(request(0.1 * n, kind) for n, kind in enumerate(["quick", "slow", "quick", "slow"])))

    assert all(0.29 < seconds < 1.5 for seconds in waits), waits
    assert [PoolExhaustedError, SlowRequestsBusyError] * 2 == errors
    assert {"queue_timeout": 2, "slow_queue_timeout": 2} == requests.events.shed
    assert 0 == requests.waiting


async def test_a_wait_ends_in_time_after_an_earlier_waiter_was_served():
    """The timer that was set for a waiter who has a connection now does not forget the next waiter."""
    requests = Requests(size=1, wait_seconds=0.3)
    await requests.ask("a", "a")
    await asyncio.sleep(0.1)
    assert [("a", "quick")] == await requests.leave("a")

    last = (await requests.ask("a"))[0]

    with pytest.raises(PoolExhaustedError):
        await asyncio.wait_for(last, 5)


async def test_a_cancelled_waiter_takes_no_connection():
    """Cancelled before the connection came free or at the same moment: the next waiter gets it."""
    requests = Requests(size=1)
    _, before, after, last = await requests.ask("a", "a", "a", "a")
    before.cancel()
    requests.admission.leave("a", requests.admission.quick)  # passes over the waiter, whose task has not run since
    after.cancel()  # has been given the connection, and its task has not run since
    await asyncio.wait_for(last, 5)

    assert before.cancelled()
    assert after.cancelled()
    assert (0, 0) == (requests.admission.free, requests.waiting)


@pytest.mark.parametrize("size", [1, 2, 3, 6])
async def test_no_connection_is_lost(size):
    """Clients and checks enter, leave and are cancelled at random: no limit is exceeded, and all slots come back."""
    requests, source = Requests(size=size, wait_seconds=0.02), random.Random(size)
    admission = requests.admission

    async def request(client, kind):
        lane = requests.lane(kind)
        await enter(admission, client, lane)
        try:
            assert admission.quick.in_use + admission.slow.in_use == size - admission.free <= size
            assert admission.slow.in_use <= admission.slow.size
            await asyncio.sleep(source.random() / 500)
        finally:
            admission.leave(client, lane)
            if admission.free == size:
                assert 0 == requests.waiting

    async def check():
        while True:
            await admission.enter_first()
            try:
                await asyncio.sleep(source.random() / 500)
            finally:
                admission.leave(None, admission.quick)
            await asyncio.sleep(source.random() / 50)

    checking = asyncio.create_task(check())
    tasks = []
    for _ in range(800):
        tasks.append(asyncio.create_task(request(source.choice([None, *"aaabc"]), source.choice(["quick", "slow"]))))
        if source.random() < 0.3:
            asyncio.get_running_loop().call_later(source.random() / 50, tasks[-1].cancel)
        if source.random() < 0.2:
            await asyncio.sleep(0.001)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    checking.cancel()
    await asyncio.gather(checking, return_exceptions=True)

    assert {type(outcome) for outcome in outcomes} <= {
        type(None), asyncio.CancelledError, PoolExhaustedError, OverloadedError, SlowRequestsBusyError,
    }  # fmt: skip
    assert outcomes.count(None) > 50
    assert (size, 0) == (admission.free, requests.waiting)
    assert 0 == admission.quick.in_use == admission.slow.in_use


async def test_waiters_are_admitted_when_there_are_more_connections():
    """A worker begins with none where others have not given theirs back yet. Its requests wait, and are not refused."""
    requests = Requests(size=0)
    await requests.ask("a", "b", "a")
    assert [] == requests.admitted

    requests.admission.resize(2)
    await asyncio.sleep(0.01)

    assert [("a", "quick"), ("b", "quick")] == requests.admitted


@pytest.mark.parametrize("kind", ["quick", "slow"])
async def test_no_request_is_admitted_while_more_connections_are_in_use_than_may_be(kind):
    """After the number was reduced, those in use are given back first."""
    requests = Requests(size=6)
    await requests.ask(None, None, None, None)
    await requests.ask(*[None] * 3, kind=kind)
    admitted = len(requests.admitted)
    requests.admission.resize(2)
    checked = asyncio.create_task(requests.admission.enter_first())

    for in_use in range(admitted - 1, 1, -1):
        await requests.leave(*requests.admitted[0])
        assert in_use == len(requests.admitted)
        assert not checked.done()

    await requests.leave(*requests.admitted[0])
    await asyncio.wait_for(checked, 5)


async def test_a_check_that_failed_and_is_cancelled_gives_no_place_back():
    """It has none. A place that is given back twice would be for two connections."""
    requests = Requests(size=1)
    await requests.ask("a")
    check = asyncio.create_task(requests.admission.enter_first())
    await asyncio.sleep(0)

    requests.admission.fail_check()
    check.cancel()
    with pytest.raises(asyncio.CancelledError):
        await check

    assert (0, 1) == (requests.admission.free, requests.admission.quick.in_use)
