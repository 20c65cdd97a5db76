"""The choice of the connections that are closed, without sockets."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from structlog.testing import capture_logs

from app.worker.totals import Phase, Reason, Totals


@dataclass(eq=False)
class Client:
    """A connection in a state that the test chooses."""

    open: set["Client"] = field(repr=False)
    phase: Phase = Phase.IDLE
    since: float = 0
    has_answered: bool = True
    input: bool = False
    size: int = 0
    moved: int = 0

    def __post_init__(self) -> None:
        self.open.add(self)

    def has_input(self) -> bool:
        """Whether something waits to be read."""
        return self.input

    def buffered_bytes(self) -> int:
        """The bytes that the test chose."""
        return self.size

    def moved_bytes(self) -> int:
        """The progress that the test chose."""
        return self.moved

    def shed(self) -> None:
        """Leave the set."""
        self.open.remove(self)


class Observed:
    """Keeps what is reported."""

    def __init__(self) -> None:
        self.connections: Mapping[str, int] = {}
        self.buffered_bytes = 0
        self.shed: dict[str, int] = {}
        self.reasons: set[str] = set()

    def set_client_connections(self, connections: Mapping[str, int], *, buffered_bytes: int) -> None:
        """Keep the state."""
        self.connections, self.buffered_bytes = connections, buffered_bytes

    def connections_shed(self, reason: str, connections: int) -> None:
        """Add to the count, and know every reason."""
        self.reasons.add(reason)
        if connections:
            self.shed[reason] = self.shed.get(reason, 0) + connections


class Worker:
    """The totals of a worker whose clock the test sets."""

    def __init__(self, *, max_connections: int = 4, max_buffered_bytes: int = 4_000) -> None:
        self.now = 100.0
        self.open: set[Client] = set()
        self.observed = Observed()
        self.totals = Totals(
            self.open, max_connections=max_connections, max_buffered_bytes=max_buffered_bytes, clock=lambda: self.now
        )

    def client(self, **state: object) -> Client:
        """An open connection."""
        return Client(self.open, **state)  # type: ignore[arg-type]

    def connect(self) -> tuple[Client, bool]:
        """A new connection, and whether it was admitted."""
        newcomer = self.client(since=self.now, has_answered=False)
        return newcomer, self.totals.admit(newcomer)

    def measured(self) -> Observed:
        """What a heartbeat reports."""
        self.totals.measure(self.observed)
        return self.observed


def test_every_reason_is_reported_from_the_beginning():
    """An alert on the increase of a counter needs a value before the first one."""
    assert {*Reason} == Worker().measured().reasons


def test_a_connection_within_the_limit_closes_no_other():
    """The limit itself is allowed."""
    worker = Worker()
    others = {worker.client() for _ in range(3)}
    newcomer, admitted = worker.connect()

    assert admitted
    assert worker.open == {*others, newcomer}


def test_connections_are_closed_in_a_fixed_order():
    """The oldest of each kind first. The connection that is new and those with a running handler are kept."""
    worker = Worker(max_connections=14)
    order = [
        worker.client(phase=phase, since=since, has_answered=has_answered)
        for phase, has_answered, times in (
            (Phase.CLOSING, True, (1, 2)),
            (Phase.IDLE, False, (8, 9)),
            (Phase.RECEIVING, False, (6, 7)),
            (Phase.IDLE, True, (4, 5)),
            (Phase.RECEIVING, True, (2, 3)),
            (Phase.UNREAD, True, (1, 2)),
        )
        for since in times
    ]
    running = {worker.client(phase=Phase.RUNNING) for _ in range(2)}
    for closed in order:
        newcomer, admitted = worker.connect()
        assert admitted
        assert closed not in worker.open
        newcomer.phase = Phase.RUNNING
        assert running | {newcomer} <= worker.open

    assert {"closing": 2, "idle": 4, "receiving": 4, "unread": 2} == worker.measured().shed


def test_a_connection_whose_client_may_be_about_to_send_is_closed_last():
    """One that has been idle or receiving for less than 0.2 s."""
    worker = Worker()
    fresh = worker.client(since=worker.now - 0.1, has_answered=False)
    used = worker.client(since=worker.now - 0.1)
    unread = worker.client(phase=Phase.UNREAD, since=worker.now)
    worker.client(since=1)
    for _ in range(2):
        worker.connect()[0].phase = Phase.RUNNING
    assert unread not in worker.open
    worker.connect()[0].phase = Phase.RUNNING
    assert fresh not in worker.open
    assert used in worker.open


def test_a_connection_whose_next_request_has_arrived_is_not_closed():
    """The request has not been read yet, and would be lost."""
    worker = Worker(max_connections=2)
    asking = worker.client(since=1, input=True)
    idle = worker.client(since=2)
    newcomer, admitted = worker.connect()

    assert admitted
    assert worker.open == {asking, newcomer}
    assert idle not in worker.open


def test_a_new_connection_is_refused_if_all_handlers_run():
    """No connection with a running handler is closed. The refusal is counted."""
    worker = Worker(max_connections=2)
    running = {worker.client(phase=Phase.RUNNING) for _ in range(2)}
    newcomer, admitted = worker.connect()

    assert not admitted
    assert worker.open == {*running, newcomer}
    assert {"refused": 1} == worker.measured().shed


def test_refused_connections_are_closed_for_new_ones():
    """So their number does not grow while all handlers run."""
    worker = Worker(max_connections=2)
    running = {worker.client(phase=Phase.RUNNING) for _ in range(2)}
    for _ in range(50):
        worker.now += 1
        newcomer, admitted = worker.connect()
        assert not admitted
        newcomer.phase = Phase.CLOSING

    assert worker.open == {*running, newcomer}


def test_a_search_is_not_repeated_for_each_connection():
    """With 2,000 connections, 500 new ones read the phases of all of them fewer than 20 times."""
    worker = Worker(max_connections=2_000)
    reads = 0

    class Counted(Client):
        @property
        def phase(self) -> Phase:
            """Idle, and counted."""
            nonlocal reads
            reads += 1
            return Phase.IDLE

        @phase.setter
        def phase(self, phase: Phase) -> None:
            pass

    for number in range(2_000):
        Counted(worker.open, since=number)
    for _ in range(500):
        assert worker.connect()[1]

    assert reads < 20 * 2_000


def test_bytes_are_limited_between_two_heartbeats():
    """The largest connections are closed, until a tenth of the limit is free."""
    worker = Worker()
    small = [worker.client(size=400) for _ in range(4)]
    middle = worker.client(phase=Phase.UNREAD, size=1_100)
    largest = worker.client(phase=Phase.RECEIVING, size=1_500)
    worker.totals.buffered(4_000)
    assert largest in worker.open
    worker.totals.buffered(200)

    assert worker.open == {*small, middle}
    assert {"buffered_bytes": 1} == worker.measured().shed
    assert 2_700 == worker.observed.buffered_bytes


def test_a_connection_within_its_share_is_not_closed_because_of_bytes():
    """The share is MAX_BUFFERED_BYTES divided by MAX_CONNECTIONS."""
    worker = Worker()
    clients = {worker.client(size=1_000) for _ in range(6)}
    worker.totals.buffered(6_000)

    assert worker.open == clients


@pytest.mark.parametrize("heartbeats", [1, 2])
def test_a_client_that_reads_is_closed_after_those_that_do_not(heartbeats):
    """It is spared although its response is larger. Before a second heartbeat, nothing is known of its progress."""
    worker = Worker()
    reading = worker.client(phase=Phase.UNREAD, size=1_900, moved=5)
    stalled = worker.client(phase=Phase.UNREAD, size=1_500)
    for _ in range(heartbeats):
        worker.measured()
        reading.moved += 5
    worker.client(phase=Phase.UNREAD, size=900)
    worker.totals.buffered(4_001)

    assert (reading in worker.open) is (heartbeats == 2)
    assert (stalled in worker.open) is (heartbeats == 1)


def test_a_running_handler_is_closed_last_because_of_bytes():
    """Even if it holds the most."""
    worker = Worker()
    running = worker.client(phase=Phase.RUNNING, size=3_000)
    others = [worker.client(phase=Phase.RECEIVING, size=1_100) for _ in range(2)]
    worker.totals.buffered(5_200)
    assert worker.open == {running}

    running.size = 4_100
    worker.totals.buffered(2_000)
    assert not worker.open
    assert others


def test_the_heartbeat_reports_every_phase():
    """A phase without connections is reported as 0."""
    worker = Worker()
    worker.client(phase=Phase.UNREAD, size=30)
    worker.client(size=12)
    observed = worker.measured()

    assert {"closing": 0, "idle": 1, "receiving": 0, "unread": 1, "running": 0} == observed.connections
    assert 42 == observed.buffered_bytes


def test_what_was_closed_is_logged_once_a_minute():
    """The line has the number of connections for each reason since the line before."""
    worker = Worker(max_connections=1)
    with capture_logs() as lines:
        for _ in range(9):
            worker.connect()
            worker.now += 10
            worker.measured()

    assert [1, 6] == [line["closed_idle"] for line in lines]
    assert {"connections_shed"} == {line["event"] for line in lines}


def test_each_phase_has_a_reason():
    """A connection of any phase but `running` can be closed for a new one."""
    assert {str(phase) for phase in Phase} - {"running"} == {str(reason) for reason in Reason} - {
        "refused", "buffered_bytes",
    }  # fmt: skip
