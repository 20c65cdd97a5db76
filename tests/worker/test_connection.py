"""The connection of one client, in all orders of events. tests/processes/test_connection.py asks a real server."""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from app.worker.limits import LINGER_SECONDS
from tests.worker.fake_connection import LIMITS, FakeServer

BOUND = max(LIMITS.receive_seconds, LIMITS.keep_alive_seconds, LINGER_SECONDS)

WHOLE = {
    "GET": b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET and close": b"GET %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "GET by HTTP/1.0": b"GET %s HTTP/1.0\r\n\r\n",
    "DELETE": b"DELETE %s HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
    "chunked": b"POST %s HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "expecting": b"POST %s HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
    "long": b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: 70000\r\n\r\n" + b"x" * 70_000,
    "upgrade": b"GET %s HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
}
REFUSED = {
    "no request": b"\0",
    "version": b"GET %s HTTP/2.0\r\nHost: a\r\n\r\n",
    "bad chunk": b"DELETE %s HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nZ\r\n",
    "bad chunk after 100": (
        b"POST %s HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\nZ\r\n"
    ),
    "bad chunk, long": (
        b"POST %s HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n11170\r\n" + b"x" * 70_000 + b"\r\nZ\r\n"
    ),
    "large head": b"GET %s HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 70_000,
    "two codings": b"POST %s HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
}

COUNTS = st.none() | st.integers(1, 200)
"""How many bytes arrive. None: everything."""


class ConnectionMachine(RuleBasedStateMachine):
    """One connection, its client and its application, which do anything at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.connect()

    def connect(self) -> None:
        """Open a connection to a server of its own."""
        self.server = FakeServer()
        self.input = b""
        """What the client has sent and the server has not read."""
        self.has_ended_input = False
        self.refused: set[str] = set()
        """The paths of requests that are malformed, or that the client has not sent completely."""
        self.requests = self.crashes = 0

    @property
    def is_open(self) -> bool:
        """Whether the connection exists."""
        return not self.server.transport.lost

    @property
    def can_read(self) -> bool:
        """Whether the server reads what arrives."""
        return self.is_open and self.server.transport.reading and not self.server.transport.closing

    def send(self, form: bytes, *, count: int | None) -> None:
        """Let the client send a request to a path of its own. `count` bytes arrive, or everything."""
        self.requests += 1
        path = f"/{self.requests}"
        if form in REFUSED.values():
            self.refused.add(path)
        self.input += form.replace(b"%s", path.encode())
        self.read(count)

    def read(self, count: int | None) -> None:
        """Let this much of what the client has sent arrive, or everything."""
        if self.input and self.can_read and count != 0:
            data, self.input = self.input[:count], b"" if count is None else self.input[count:]
            self.server.deliver(data)

    @precondition(lambda self: self.is_open and not self.has_ended_input)
    @rule(form=st.sampled_from(sorted(WHOLE.values())), count=COUNTS)
    def client_sends_a_request(self, form: bytes, count: int | None) -> None:
        """A request that is well-formed."""
        self.send(form, count=count)

    @precondition(lambda self: self.is_open and not self.has_ended_input)
    @rule(form=st.sampled_from(sorted(WHOLE.values())))
    def client_sends_two_requests(self, form: bytes) -> None:
        """The second one is pipelined."""
        self.send(form, count=0)
        self.send(WHOLE["GET"], count=None)

    @precondition(lambda self: self.is_open and not self.has_ended_input)
    @rule(form=st.sampled_from(sorted(REFUSED.values())), count=COUNTS)
    def client_sends_a_malformed_request(self, form: bytes, count: int | None) -> None:
        """A request that is refused. What the client sends after it is not read."""
        self.send(form, count=count)

    @precondition(lambda self: self.input and self.can_read)
    @rule(count=COUNTS)
    def more_arrives(self, count: int | None) -> None:
        """Some of what the client has sent arrives, or everything."""
        self.read(count)

    @precondition(lambda self: not self.input and self.can_read and not self.has_ended_input)
    @rule()
    def client_ends_its_input(self) -> None:
        """The client closes its sending side."""
        self.has_ended_input = True
        self.server.end_input()

    @precondition(lambda self: self.is_open)
    @rule(count=st.sampled_from([10, 20_000, 200_000]))
    def client_reads(self, count: int) -> None:
        """The client takes some of what was written."""
        self.server.client_reads(count)

    @precondition(lambda self: self.is_open and self.requests > 3)
    @rule()
    def client_resets(self) -> None:
        """The connection is lost."""
        self.server.reset()

    @precondition(lambda self: self.server.running)
    @rule(command=st.sampled_from([("read",), ("answer", 3), ("answer", 100_000), ("stream", 40_000), ("crash",)]))
    def application_acts(self, command: tuple[Any, ...]) -> None:
        """The application reads from the body, answers or fails."""
        assert self.server.running
        self.crashes += command[0] == "crash"
        handler = self.server.running
        self.server.order(handler, *command)
        if handler.is_refused and self.is_open and not self.server.connection.flow.write_paused:
            assert 400 <= self.server.responses()[-1][0] < 500

    @precondition(lambda self: not self.is_open)
    @rule()
    def client_connects(self) -> None:
        """Another connection, after one that has ended."""
        self.server.close()
        self.connect()

    @precondition(lambda self: self.is_open)
    @rule(seconds=st.sampled_from([0.5, 0.5, 3, 11, 80]))
    def time_passes(self, seconds: float) -> None:
        """No event happens for a while."""
        self.server.wait(seconds)

    @precondition(lambda self: self.is_open and not self.server.state.draining)
    @rule()
    def server_drains(self) -> None:
        """The worker is asked to stop."""
        self.server.drain()

    @invariant()
    def every_wait_has_a_deadline(self) -> None:
        """Only a running handler may take as long as it likes, and not if the client does not take its response."""
        connection = self.server.connection
        if not self.is_open:
            return
        if self.server.running is None or connection.flow.write_paused:
            assert connection.deadline <= self.server.loop.now + BOUND

    @invariant()
    def no_client_causes_an_error(self) -> None:
        """The application fails when it has a defect, and never because of what it sends to a connection that ends."""
        assert [] == self.server.transport.errors
        assert self.server.connection.logger.count <= self.crashes  # type: ignore[attr-defined]

    @invariant()
    def each_request_has_one_answer(self) -> None:
        """The answers come in the order of the requests, and a refusal is the last one."""
        responses = self.server.responses()
        answered = [path for status, path in responses if status == 200]
        expected = [handler.path for handler in self.server.handlers if handler.answered is not None]
        assert answered == expected[: len(answered)]
        assert all(status == 200 for status, _ in responses[:-1])
        assert len(responses) <= len(self.server.handlers) + 1

    @invariant()
    def a_client_that_sends_nothing_more_is_not_waited_for(self) -> None:
        """When it has its answers, the connection closes, and not after KEEP_ALIVE_SECONDS."""
        connection = self.server.connection
        if self.is_open and self.has_ended_input and not self.server.running and not connection.pipeline:
            assert connection.flow.write_paused or connection._closing

    @invariant()
    def one_request_is_answered_at_a_time(self) -> None:
        """A pipelined request begins when the response before it is complete."""
        assert sum(not handler.is_done for handler in self.server.handlers) <= 1

    @invariant()
    def what_is_refused_is_not_executed(self) -> None:
        """A refused request has not begun; if its body is long, the application does not get the end of the body."""
        for handler in self.server.handlers:
            if handler.path in self.refused:
                assert len(handler.received) + len(self.server.connection.cycle.body) > 60_000  # type: ignore[union-attr]
                assert not handler.has_whole_body

    def teardown(self) -> None:
        """Without the client's help, the connection ends as soon as the application has answered."""
        try:
            for _ in range(30):
                if not self.is_open:
                    break
                if handler := self.server.running:
                    self.server.order(handler, "answer", 3)
                self.server.wait(BOUND + 1)
            self.server.cancel_handlers()  # one that waits for its client to disconnect
            self.server.wait(BOUND + 1)
            self.server.wait(BOUND + 1)
            assert not self.is_open
            assert not self.server.connection.server_state.tasks
        finally:
            self.server.close()


ConnectionMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=40)
test_all_orders_of_events = ConnectionMachine.TestCase
