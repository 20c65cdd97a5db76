"""Sends bounded load to a server on the loopback interface, and remembers what became of each request."""

import asyncio
import itertools
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is sent."""

    method: str = "GET"
    target: str = "/"
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    def encode(self, *, keep: bool) -> bytes:
        """The bytes of the request; unless the connection is kept it says so."""
        lines = [f"{self.method} {self.target} HTTP/1.1", "Host: localhost"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        if self.body or self.method in {"POST", "PUT", "PATCH"}:
            lines.append(f"Content-Length: {len(self.body)}")
        if not keep:
            lines.append("Connection: close")
        return "\r\n".join([*lines, "", ""]).encode() + self.body


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def closes(self) -> bool:
        """Whether the server will answer nothing more on this connection."""
        return self.headers.get("connection", "").lower() == "close"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One request and what became of it: an answer, or a failure."""

    number: int
    request: Request
    kept: bool
    """Whether it went out on a connection that had served before."""

    started: float
    """By the monotonic clock."""

    seconds: float
    answer: Answer | None
    failure: str | None
    """`refused` when no connection could be made, else how the connection failed: then it is unknown
    whether the request was carried out."""


@dataclass(slots=True)
class Report:
    """What became of all requests."""

    exchanges: list[Exchange] = field(default_factory=list)

    @property
    def statuses(self) -> Counter[int]:
        """How many answers had which status."""
        return Counter(exchange.answer.status for exchange in self.exchanges if exchange.answer)

    def failures(self, *, apart_from: tuple[str, ...] = ()) -> list[Exchange]:
        """Requests without an answer, and those answered with a 5xx."""
        return [
            exchange
            for exchange in self.exchanges
            if (exchange.answer is None or exchange.answer.status >= 500) and exchange.failure not in apart_from
        ]

    def seconds(self, quantile: float) -> float:
        """The time within which that part of all requests ended."""
        times = sorted(exchange.seconds for exchange in self.exchanges)
        return times[min(len(times) - 1, int(quantile * len(times)))]

    def __str__(self) -> str:
        failed = Counter(
            (exchange.failure or str(exchange.answer and exchange.answer.status), "kept" if exchange.kept else "new")
            for exchange in self.failures()
        )
        return f"{len(self.exchanges)} requests, statuses {dict(self.statuses)}, failed {dict(failed)}"


class Client:
    """A client of one connection at a time, which it keeps as long as the server does."""

    def __init__(self, port: int, *, keep: bool = True, timeout_seconds: float = 30) -> None:
        self.port = port
        self.keep = keep
        self.timeout_seconds = timeout_seconds
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def exchange(self, number: int, request: Request) -> Exchange:
        """Send the request and wait for its answer."""
        started = time.monotonic()
        answer, failure, kept = None, None, False
        try:
            async with asyncio.timeout(self.timeout_seconds):
                kept = await self._connect()
                answer = await self._send(request)
        except ConnectionRefusedError:
            failure = "refused"
        except TimeoutError:
            failure = "timeout"
        except asyncio.IncompleteReadError as error:
            failure = "closed" if not error.partial else "cut"
        except (OSError, ValueError) as error:
            failure = type(error).__name__
        if answer is None or answer.closes or not self.keep:
            self.close()
        return Exchange(
            number=number,
            request=request,
            kept=kept,
            started=started,
            seconds=time.monotonic() - started,
            answer=answer,
            failure=failure,
        )

    def close(self) -> None:
        """Leave the connection."""
        if self._streams:
            self._streams[1].close()
            self._streams = None

    async def _connect(self) -> bool:
        # As every client does: a connection that the server has closed meanwhile is not used again.
        if self._streams and (self._streams[0].at_eof() or self._streams[1].is_closing()):
            self.close()
        if self._streams:
            return True
        self._streams = await asyncio.open_connection("127.0.0.1", self.port)
        return False

    async def _send(self, request: Request) -> Answer:
        assert self._streams
        reader, writer = self._streams
        writer.write(request.encode(keep=self.keep))
        head = await reader.readuntil(b"\r\n\r\n")
        status_line, *lines = head.decode("latin-1").split("\r\n")[:-2]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        status = int(status_line.split(" ", 2)[1])
        body = b""
        if request.method != "HEAD" and status not in {204, 304}:
            body = await reader.readexactly(int(headers["content-length"]))
        return Answer(status=status, headers=headers, body=body)


async def send_load(
    port: int,
    *,
    rate: float,
    seconds: float = 60,
    kept: int = 20,
    fresh: int = 0,
    request: Callable[[int], Request] = lambda _: Request(),
    timeout_seconds: float = 30,
    count: float = math.inf,
    stopped: Callable[[], bool] = lambda: False,
    report: Report | None = None,
) -> Report:
    """Send requests at an even rate, bounded in time, and wait for their answers.

    Args:
        port: Where the server listens, on the loopback interface.
        rate: Requests a second, all clients together.
        seconds: How long at most.
        kept: Clients that keep their connection.
        fresh: Clients that make a connection for each request.
        request: Makes the request of a number; numbers count up from 0.
        timeout_seconds: How long a request may take.
        count: How many requests at most.
        stopped: Ends the load before its time.
        report: Where to write down what became of the requests.
    """
    report = report if report is not None else Report()
    clients = [Client(port, keep=number < kept, timeout_seconds=timeout_seconds) for number in range(kept + fresh)]
    numbers = itertools.count()
    start = time.monotonic()

    async def work(position: int, client: Client) -> None:
        due = start + position / rate
        while due < start + seconds and not stopped():
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            number = next(numbers)
            if number >= count:
                break
            report.exchanges.append(await client.exchange(number, request(number)))
            due = max(due + len(clients) / rate, time.monotonic() - 1)
        client.close()

    async with asyncio.TaskGroup() as group:
        for position, client in enumerate(clients):
            group.create_task(work(position, client))
    return report


@contextmanager
def load(
    port: int,
    *,
    rate: float = 300,
    seconds: float = 60,
    kept: int = 20,
    fresh: int = 10,
    request: Callable[[int], Request] = lambda _: Request(),
    timeout_seconds: float = 30,
) -> Iterator[Report]:
    """Send load beside what the block does. When the block ends, the report is complete."""
    report, stop = Report(), threading.Event()

    def run() -> None:
        asyncio.run(
            send_load(
                port,
                rate=rate,
                seconds=seconds,
                kept=kept,
                fresh=fresh,
                request=request,
                timeout_seconds=timeout_seconds,
                stopped=stop.is_set,
                report=report,
            )
        )

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield report
    finally:
        stop.set()
        thread.join(timeout_seconds + 10)
        assert not thread.is_alive(), "the load did not end"
