"""A client that sends requests at a fixed rate, whether or not the earlier ones are answered."""

import re
import select
import socket
import time
from collections import deque

CONNECTIONS = 32

_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
_CLOSES = re.compile(rb"(?i)\r\nconnection: *close")
_OK = b"HTTP/1.1 200"
_ANSWER_SECONDS = 10.0


class _Connection:
    """A connection with at most one request at a time."""

    due = 0.0
    """When its request should have been sent, by the monotonic clock."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._received = b""
        self.socket = self._connect()

    def _connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self._port), timeout=_ANSWER_SECONDS)

    def fileno(self) -> int:
        """The descriptor that `select` waits for."""
        return self.socket.fileno()

    def receive(self) -> bool:
        """Read what has arrived. True when the answer is complete.

        Raises:
            RuntimeError: The server has closed the connection, or the status is not 200.
        """
        data = self.socket.recv(65536)
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not data or not self._received.startswith(_OK[: len(self._received)]):
            raise RuntimeError(f"A request failed: {self._received[:1000]!r}")
        length = _LENGTH.search(head)
        if not end or length is None or len(body) < int(length[1]):
            return False
        self._received = b""
        if _CLOSES.search(head):
            self.socket.close()
            self.socket = self._connect()
        return True


def send(port: int, path: str, *, rate: float, seconds: float) -> list[float]:
    """Send `rate` requests a second, and return the seconds from when each should have been sent to its answer.

    Closed clients such as wrk send a request when the one before it is answered: while a server hangs they send
    nothing, and its slowness is seen in one request a connection.

    Raises:
        RuntimeError: A request failed, or has no answer.
    """
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    idle = deque(_Connection(port) for _ in range(CONNECTIONS))
    busy: set[_Connection] = set()
    taken: list[float] = []
    start = time.monotonic()
    left = deque(start + number / rate for number in range(int(rate * seconds)))
    while left or busy:
        while idle and left and left[0] <= time.monotonic():
            connection = idle.popleft()
            connection.due = left.popleft()
            connection.socket.sendall(request)
            busy.add(connection)
        wait = max(0.0, left[0] - time.monotonic()) if idle and left else _ANSWER_SECONDS
        # Not epoll: its timeout is in whole milliseconds.
        answered, _, _ = select.select(list(busy), (), (), wait)
        if not answered and wait == _ANSWER_SECONDS:
            raise RuntimeError(f"No answer for {_ANSWER_SECONDS:g} s.")
        for connection in answered:
            if connection.receive():
                taken.append(time.monotonic() - connection.due)
                busy.remove(connection)
                idle.append(connection)
    for connection in idle:
        connection.socket.close()
    return taken
