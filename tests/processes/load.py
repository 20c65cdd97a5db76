"""Sends bounded load to a server on the loopback interface, and records the result of each request."""

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
    """A request to send."""

    method: str = "GET"
    target: str = "/"
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    def encode(self, *, keep: bool) -> bytes:
        """The bytes of the request. If the connection is not kept, it says `Connection: close`."""
        lines = [f"{self.method} {self.target} HTTP/1.1", "Host: localhost"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        if self.body or self.method in {"POST", "PUT", "PATCH"}:
            lines.append(f"Content-Length: {len(self.body)}")
        if not keep:
            lines.append("Connection: close")
        return "\r\n".join([*lines, "", ""]).encode() + self.body


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The response to a request."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def closes(self) -> bool:
        """Whether the server closes the connection after this response."""
        return self.headers.get("connection", "").lower() == "close"


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestResult:
    """One request and its result: an answer, or a failure."""

    number: int
    request: Request
    kept: bool
    """Whether it was sent on a connection that had been used before."""

    started: float
    """By the monotonic clock."""

    seconds: float
    answer: Answer | None
    failure: str | None
    """`refused` if no connection could be made. Any other value says how the connection failed: then it
    is unknown whether the request was carried out."""


@dataclass(slots=True)
class Report:
    """The results of all requests."""

    results: list[RequestResult] = field(default_factory=list)

    @property
    def statuses(self) -> Counter[int]:
        """The number of answers with each status."""
        return Counter(result.answer.status for result in self.results if result.answer)

    def failures(self, *, apart_from: tuple[str, ...] = ()) -> list[RequestResult]:
        """Results without an answer, and answers with a 5xx."""
        return [
            result
            for result in self.results
            if (result.answer is None or result.answer.status >= 500) and result.failure not in apart_from
        ]

    def seconds(self, quantile: float) -> float:
        """The time within which this fraction of all requests ended."""
        times = sorted(result.seconds for result in self.results)
        return times[min(len(times) - 1, int(quantile * len(times)))]

    def __str__(self) -> str:
        failed = Counter(
            (result.failure or str(result.answer and result.answer.status), "kept" if result.kept else "new")
            for result in self.failures()
        )
        return f"{len(self.results)} requests, statuses {dict(self.statuses)}, failed {dict(failed)}"


class Client:
    """A client with one connection at a time, which it keeps until the server closes it."""

    def __init__(self, port: int, *, keep: bool = True, timeout_seconds: float = 30) -> None:
        self.port = port
        self.keep = keep
        self.timeout_seconds = timeout_seconds
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, number: int, request: Request) -> RequestResult:
        """Send the request and wait for its answer."""
        started = time.monotonic()
        answer, failure, kept = None, None, False
        try:
            async with asyncio.timeout(self.timeout_seconds):
                kept = await self._connect()
                answer = await self._send_and_receive(request)
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
        return RequestResult(
            number=number,
            request=request,
            kept=kept,
            started=started,
            seconds=time.monotonic() - started,
            answer=answer,
            failure=failure,
        )

    def close(self) -> None:
        """Close the connection."""
        if self._streams:
            self._streams[1].close()
            self._streams = None

    async def _connect(self) -> bool:
        # Like every HTTP client: a connection that the server has closed is not used again.
        if self._streams and (self._streams[0].at_eof() or self._streams[1].is_closing()):
            self.close()
        if self._streams:
            return True
        self._streams = await asyncio.open_connection("127.0.0.1", self.port)
        return False

    async def _send_and_receive(self, request: Request) -> Answer:
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
    """Send requests at a constant rate for a limited time, and wait for their answers.

    Args:
        port: Where the server listens, on the loopback interface.
        rate: Requests a second of all clients together.
        seconds: The longest time.
        kept: The number of clients that keep their connection.
        fresh: The number of clients that make a connection for each request.
        request: Makes the request for a number. Numbers count up from 0.
        timeout_seconds: How long a request may take.
        count: The most requests.
        stopped: Whether to end before `seconds` have passed.
        report: Where to record the results.
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
            report.results.append(await client.send(number, request(number)))
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
    """Send load while the block runs. After the block the report is complete."""
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
